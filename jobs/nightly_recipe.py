"""The recipe of a nightly run: which jobs, over which shards, what is watched, and what may go."""

from dataclasses import dataclass, field
from typing import Any, Literal

from ovsops.errors import ConfigError
from pipelines.audit.config import SampleConfig
from pipelines.codes import RETRYABLE
from pipelines.diff.config import DiffConfig
from pipelines.nightly_prune import KeepConfig
from pipelines.storage import StorageOptions


@dataclass(frozen=True, kw_only=True)
class CanaryConfig:
    """Shards that never change and are labelled every night: so must their labels stay."""

    shards: tuple[str, ...]
    """As `input.shards` of a label recipe. A few hundred images suffice; they are no part of the corpus."""

    def __post_init__(self) -> None:
        if not self.shards:
            raise ConfigError("canary.shards is empty: name a shard that never changes, or leave canary out")


@dataclass(frozen=True, kw_only=True)
class RetryConfig:
    """Failed rows of earlier nights."""

    nights: int = 7
    """So many earlier nights are looked at; 0 tries nothing again."""
    codes: tuple[str, ...] = tuple(sorted(RETRYABLE))
    """Failures that may go better the next time; the bytes of others are at fault, and they fail again."""

    def __post_init__(self) -> None:
        if self.nights < 0:
            raise ConfigError(f"retry.nights is {self.nights}: give 0 or more")
        if unknown := sorted(set(self.codes) - RETRYABLE):
            raise ConfigError(
                f"retry.codes: {', '.join(unknown)} is not retryable; {', '.join(sorted(RETRYABLE))} are"
            )


@dataclass(frozen=True, kw_only=True)
class AuditDraw:
    """A sample of the night's labels for people to judge."""

    sample: SampleConfig = field(default_factory=SampleConfig)
    """How many, and which."""
    pictures: bool = True
    """Whether the labels are drawn."""


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """What a night is compared with, and what alarms (exit 3)."""

    diff: DiffConfig = field(default_factory=DiffConfig)
    """Limits of drift, as of `ovsops diff`."""
    of_data: bool = True
    """Whether drift of the pictures themselves (their size) alarms, too."""
    drift: Literal["alarm", "note"] = "alarm"
    """What drift of tonight's labels against the last night's does."""
    canary: Literal["alarm", "note"] = "alarm"
    """What canary labels that are not those of the last night do."""


@dataclass(frozen=True, kw_only=True)
class NightlyRecipe:
    """The nightly job: label -> negatives -> dataset -> evaluate -> audit over the shards that are new."""

    job: Literal["nightly"] = "nightly"
    """Which job the recipe describes."""
    output: str
    """Folder or s3://bucket/prefix that gets every night. Relative to the working directory."""
    label: Any
    """The label recipe: a file (relative to this one), `{use: FILE, ...fields that change it}`, or all fields. Its
    `input.shards` is the corpus; its `output` is the night's."""
    negatives: Any = None
    """The negatives recipe, likewise; null leaves the step out. `labels` and `output` are the night's."""
    dataset: Any = None
    """The dataset recipe, likewise. `labels`, `negatives` and `output` are the night's, and `keep_splits_of` the last
    night's set where the recipe names none."""
    evaluate: Any = None
    """The evaluate recipe, likewise. `labels` and `output` are the night's."""
    audit: AuditDraw | None = None
    """Null draws no sample."""
    canary: CanaryConfig | None = None
    """Null watches no canary."""
    retry: RetryConfig = field(default_factory=RetryConfig)
    """Which failures of earlier nights are tried again."""
    watch: WatchConfig = field(default_factory=WatchConfig)
    """What is compared with the last night."""
    keep: KeepConfig | None = None
    """Which nights keep their labels; null keeps all."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How object storage is reached: of the output, and of steps that do not say. Credentials come from the
    environment."""

    def __post_init__(self) -> None:
        if self.dataset is not None and self.label is None:
            raise ConfigError("label is null: every night begins with labels")
        for step in ("label", "negatives", "dataset", "evaluate"):
            value = getattr(self, step)
            if value is not None and not isinstance(value, str | dict):
                raise ConfigError(
                    f"{step}: expected a recipe file, `use` with fields, or the fields of a recipe"
                )
        if self.label is None:
            raise ConfigError("label is missing: every night begins with labels")
