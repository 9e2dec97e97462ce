"""The recipe of a negatives run: which labels, how false, checked by whom."""

from dataclasses import dataclass, field
from typing import Literal

from ovsops.errors import ConfigError
from ovsops.negatives.config import NegativeConfig
from pipelines.endpoint_config import ENDPOINT_SETTINGS
from pipelines.llm_batch import VLLM_SETTINGS
from pipelines.negatives import DrawConfig
from pipelines.negatives_audit import AuditConfig
from pipelines.negatives_llm import LlmDraw
from pipelines.negatives_validators import ValidateConfig
from pipelines.runner import Placement, RayConfig
from pipelines.storage import StorageOptions
from pipelines.unit_config import UnitLimits, work_placement


@dataclass(frozen=True, kw_only=True)
class NegativesRecipe:
    """The negatives job: labelled regions in, ten negatives of each out, or a reason."""

    job: Literal["negatives"] = "negatives"
    """Which job the recipe describes."""
    labels: str
    """Output of a label run. What it has committed is used. Relative to the working directory."""
    output: str
    """Folder or s3://bucket/prefix that gets the negatives. Relative to the working directory."""
    draw: DrawConfig = field(default_factory=DrawConfig)
    """Which texts get negatives."""
    negatives: NegativeConfig = field(default_factory=NegativeConfig)
    """How negatives are drawn: level, seed, and the numbers of the balance."""
    validate: ValidateConfig | None = field(default_factory=ValidateConfig)
    """Who looks at candidates before ten are taken; null: nobody."""
    llm: LlmDraw | None = None
    """A language model that writes negatives, beside the rules or in their place; null: rules alone."""
    audit: AuditConfig = field(default_factory=AuditConfig)
    """What a person is given to read."""
    limits: UnitLimits = field(default_factory=UnitLimits)
    """When a finished run exits with 3."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How object storage is reached, of labels and output. Credentials come from the environment."""
    ray: RayConfig = field(default_factory=RayConfig)
    """The cluster."""
    work_on: Placement = field(default_factory=work_placement)
    """Workers, a shard each at a time; `actors: 0` takes as many as there are CPUs."""

    @property
    def settings(self) -> tuple[str, ...]:
        """Fields that may change between starts of one output: they cannot change a negative."""
        return (
            "job",
            "labels",
            "output",
            "validate.margin.fgclip2.source",
            "validate.margin.fgclip2.revision",
            "validate.margin.device",
            *(f"llm.endpoint.{name}" for name in ENDPOINT_SETTINGS),
            *(f"llm.vllm.{name}" for name in VLLM_SETTINGS),
            "llm.stop_after",
            "llm.max_unanswered_share",
            "audit",
            "limits",
            "storage",
            "ray",
            "work_on",
        )

    def __post_init__(self) -> None:
        self._check_llm()
        margin = None if self.validate is None else self.validate.margin
        if margin is None:
            return
        if self.work_on.actors < 1:
            raise ConfigError(
                "work_on.actors is 0: the model of validate.margin would be loaded for every shard; give 1 or more"
            )
        if margin.device == "cuda" and self.work_on.num_gpus <= 0:
            raise ConfigError(
                "validate.margin.device is cuda, but work_on.num_gpus is 0; give each actor a share of a GPU"
            )

    def _check_llm(self) -> None:
        if self.llm is None:
            return
        self.llm.asked(self.negatives)  # refuses a level that needs no model
        if self.validate is None or not self.validate.texts:
            raise ConfigError(
                "llm: a model may write the caption itself, or one negative twice, and nobody would look: set"
                " validate.texts"
            )
        endpoint = self.llm.endpoint
        if endpoint is not None and endpoint.max_cost is not None and self.work_on.actors < 1:
            raise ConfigError(
                "llm.endpoint.max_cost is what one worker may spend, and work_on.actors is 0: each task would be a"
                " new one; give 1 or more"
            )
