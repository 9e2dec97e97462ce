"""The recipe of the label job, and which of its fields can change a label.

`LabelRecipe` holds no number of its own where a stage or operator has one: its fields are their configs.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from jobs.door import BY_KIND
from jobs.truth_recipe import CocoInstancesTruthConfig, WorldTruthConfig
from ovsops.annotators.config import AnnotatorConfig, AnyCaptionerConfig, AnyDetectorConfig, ExpertConfig
from ovsops.annotators.regions import InstancesConfig
from ovsops.errors import ConfigError
from ovsops.images.decode import DecodeConfig
from ovsops.masks.regions import RegionConfig
from ovsops.regions.agreement import AgreementConfig
from ovsops.regions.exclusive import ExclusiveConfig
from ovsops.segmenters.kinds import AnySegmenterConfig
from pipelines.ask_config import AskConfig
from pipelines.endpoint_config import ENDPOINT_SETTINGS
from pipelines.label import LabelJob
from pipelines.readers import ReaderConfig
from pipelines.runner import Placement, RayConfig
from pipelines.stages.annotate import BatchConfig
from pipelines.storage import StorageOptions
from pipelines.summary import Limits


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """What is read."""

    shards: tuple[str, ...]
    """Archives, folders, globs, brace ranges `{000..123}`; local or s3://. Relative to the working directory."""
    only: tuple[str, ...] = ()
    """Names of those of these shards that are read (a nightly job names the new ones); empty: all of them."""
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    """Caps of the reader and the names of sidecar fields."""

    def __post_init__(self) -> None:
        if not self.shards:
            raise ConfigError("input.shards is empty; name at least one archive, folder or pattern")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """How the model's numbers are computed."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda when segment_on.num_gpus is over 0, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on cuda, float32 on the CPU. Part of what decides labels."""

    def resolve(self, *, num_gpus: float) -> "ModelConfig":
        """The same without `auto`."""
        device = self.device if self.device != "auto" else "cuda" if num_gpus > 0 else "cpu"
        dtype = self.dtype if self.dtype != "auto" else "bfloat16" if device == "cuda" else "float32"
        return ModelConfig(device=device, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class SecondOpinion:
    """Another segmenter whose map is compared with the first one's, region by region."""

    segmenter: Annotated[AnySegmenterConfig, BY_KIND]
    """As the recipe's own `segmenter`."""
    compare: AgreementConfig = field(default_factory=AgreementConfig)
    """What counts as agreement."""


@dataclass(frozen=True, kw_only=True)
class CalibratorFile:
    """Where the map of scores to chances lies that was fitted on truth or audits."""

    source: str
    """A JSON file as `ovsops fit` writes it, or `miniature:NAME` for one that comes with the package."""
    sha256: str | None = None
    """Of the file; None records it without checking."""


def job_default(name: str) -> Any:
    """The label job's own default of a field."""
    (found,) = (f for f in fields(LabelJob) if f.name == name)
    return found.default_factory


@dataclass(frozen=True, kw_only=True)
class LabelRecipe:
    """The label job: images in, COCO masks in Parquet out."""

    job: Literal["label"] = "label"
    """Which job the recipe describes."""
    input: InputConfig
    """What is read."""
    output: str
    """Folder or s3://bucket/prefix that gets the labels. Relative to the working directory."""
    vocabulary: Any
    """A file (relative to the recipe), the name of a built-in vocabulary, or the vocabulary itself."""
    languages: tuple[str, ...] = ("en",)
    """Languages whose prompts stand for a class; ids and outputs do not depend on them."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """Caps on images."""
    segmenter: Annotated[AnySegmenterConfig, BY_KIND] | None = None
    """Checkpoints and numbers of the segmenter; `kind` says which. `use` takes those of a file or of a built-in
    setting, and what stands beside it changes them. Null where only boxes are wanted."""
    detector: Annotated[AnyDetectorConfig, BY_KIND] | None = None
    """Who finds things with boxes; null where the segmenter's regions are enough. `use` as for segmenters."""
    expert: ExpertConfig | None = None
    """FG-CLIP 2's second opinion about every box. `use` as for segmenters."""
    captioner: AnyCaptionerConfig | None = None
    """Who describes the detector's boxes; the expert, where there is one, checks the words. Its captions replace those
    of the expert where they say something that is supported."""
    exclusive: ExclusiveConfig = field(default_factory=ExclusiveConfig)
    """When names of one of the vocabulary's exclusive groups are rivals for a thing."""
    instances: InstancesConfig = field(default_factory=InstancesConfig)
    """From boxes to instances."""
    agreement: SecondOpinion | None = None
    """A second segmenter to compare with."""
    calibrator: CalibratorFile | None = None
    """What turns scores of boxes into chances; null leaves `score_calibrated` empty."""
    ask: AskConfig | None = None
    """A vision-language model's captions and verdicts about regions; null asks nobody."""
    truth: Annotated[WorldTruthConfig | CocoInstancesTruthConfig, BY_KIND] = field(
        default_factory=WorldTruthConfig
    )
    """What is true of the images, for `ovsops fit` alone: the JSON of drawn scenes, or a COCO file. No label depends
    on it."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Device and precision of the model."""
    regions: RegionConfig = field(default_factory=RegionConfig)
    """From class maps to regions."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    """How images are grouped for the model."""
    limits: Limits = field(default_factory=Limits)
    """When a finished run exits with 3."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How object storage is reached. Credentials come from the environment, never from a recipe."""
    ray: RayConfig = field(default_factory=RayConfig)
    """The cluster."""
    segment_on: Placement = field(default_factory=job_default("segment_on"))
    """Actors of the segmenter."""
    encode_on: Placement = field(default_factory=job_default("encode_on"))
    """Workers that turn class maps into regions, and write parts where nobody is asked."""
    ask_on: Placement = field(default_factory=job_default("ask_on"))
    """Workers that ask the endpoint and write parts. They wait for the network: small shares of a CPU, blocks side by
    side. A share of a GPU is for `ask.ground`."""
    cache: str | None = None
    """Folder of text features; OVSOPS_CACHE or ~/.cache/ovsops where it is not given."""

    def __post_init__(self) -> None:
        _ = self.annotators  # refuses parts that do not go together
        if not isinstance(self.vocabulary, str | Mapping) or not self.vocabulary:
            raise ConfigError("vocabulary: expected a file, a built-in name or a mapping with `classes`")
        if not self.languages:
            raise ConfigError("languages is empty; name at least one, for example [en]")
        if self.segment_on.actors < 1:
            raise ConfigError(
                "segment_on.actors is 0: the model would be loaded for every block; give 1 or more"
            )
        if self.ask is not None and self.ask_on.actors < 1:
            raise ConfigError(
                "ask_on.actors is 0: a decoder would be started for every block; give 1 or more"
            )
        if self.model.device == "cuda" and self.segment_on.num_gpus <= 0:
            raise ConfigError(
                "model.device is cuda, but segment_on.num_gpus is 0; give each actor a share of a GPU"
            )

    @property
    def annotators(self) -> AnnotatorConfig:
        """Who takes part; the calibrator's file is not read."""
        return AnnotatorConfig(
            segmenter=self.segmenter,
            detector=self.detector,
            expert=self.expert,
            captioner=self.captioner,
            other=None if self.agreement is None else self.agreement.segmenter,
            exclusive=self.exclusive,
        )

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Of the steps that take part."""
        return (self.segment_on, self.encode_on, *([] if self.ask is None else [self.ask_on]))

    @property
    def cache_dir(self) -> Path:
        """Where text features are kept."""
        place = self.cache or os.environ.get("OVSOPS_CACHE") or "~/.cache/ovsops"
        return Path(place).expanduser()


_SETTINGS = (
    "job",
    "input.shards",
    "input.only",
    "output",
    "segmenter.*.source",
    "segmenter.*.revision",
    "segmenter.views_per_batch",
    "segmenter.class_chunk",
    "detector.*.source",
    "detector.*.revision",
    "detector.reading.pairs_per_pass",
    "expert.fgclip2.source",
    "expert.fgclip2.revision",
    "captioner.florence2.source",
    "captioner.florence2.revision",
    "captioner.reading.regions_per_batch",
    "agreement.segmenter.*.source",
    "agreement.segmenter.*.revision",
    "calibrator.source",
    *(f"ask.endpoint.{name}" for name in ENDPOINT_SETTINGS),
    "ask.stop_after",
    "ask.ground.fgclip2.source",
    "ask.ground.fgclip2.revision",
    "model.device",
    "limits",
    "storage",
    "ray",
    "segment_on",
    "encode_on",
    "ask_on",
    "truth",
    "cache",
)
"""Fields that cannot change a label. Everything else can, so that a new field is never forgotten."""


_BATCH_LABELS = "batch.skip_under_side"


def is_setting(path: str) -> bool:
    """Whether the field at a dotted path may change between starts of one output."""
    if path.startswith("batch."):
        return path != _BATCH_LABELS
    keys = path.split(".")
    for pattern in _SETTINGS:
        parts = pattern.split(".")
        if len(parts) <= len(keys) and all(p in ("*", k) for p, k in zip(parts, keys, strict=False)):
            return True
    return False
