"""The recipe of an evaluation: which labelled runs, against which truth, which figures."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from jobs.door import BY_KIND
from jobs.truth_recipe import CocoInstancesTruthConfig, WorldTruthConfig
from ovsops.errors import ConfigError
from ovsops.images.decode import DecodeConfig
from ovsops.metrics.bootstrap import BootstrapConfig
from pipelines.evaluate import EvaluateLimits
from pipelines.evaluation.counting import CountConfig
from pipelines.evaluation.object_counts import ObjectsConfig
from pipelines.evaluation.pictures import PicturesConfig
from pipelines.storage import StorageOptions
from pipelines.truth.layout import Split

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")


@dataclass(frozen=True, kw_only=True)
class _Published:
    """A published data set in its own folders; images are matched by file name."""

    root: str
    """Folder of the data set as its publisher lays it out."""
    split: Split = "val"
    """Which part of it."""


@dataclass(frozen=True, kw_only=True)
class VocTruthConfig(_Published):
    """PASCAL VOC 2012 segmentation."""

    kind: Literal["voc2012"] = "voc2012"
    background: bool = True
    """21 classes with background; false is 20 without, where background is ignored."""

    @property
    def benchmark(self) -> str:
        """Name of the evaluation."""
        return "voc_21" if self.background else "voc_20"


@dataclass(frozen=True, kw_only=True)
class ContextTruthConfig(_Published):
    """PASCAL Context."""

    kind: Literal["context"] = "context"
    background: bool = True
    """60 classes with background; false is 59 without, where background is ignored."""

    @property
    def benchmark(self) -> str:
        """Name of the evaluation."""
        return "context_60" if self.background else "context_59"


@dataclass(frozen=True, kw_only=True)
class CocoStuffTruthConfig(_Published):
    """COCO-Stuff 164k, 171 classes."""

    kind: Literal["coco_stuff"] = "coco_stuff"

    @property
    def benchmark(self) -> str:
        """Name of the evaluation."""
        return "coco_stuff_171"


@dataclass(frozen=True, kw_only=True)
class CocoObjectTruthConfig(_Published):
    """COCO-Object: 80 things and background."""

    kind: Literal["coco_object"] = "coco_object"

    @property
    def benchmark(self) -> str:
        """Name of the evaluation."""
        return "coco_object_81"


@dataclass(frozen=True, kw_only=True)
class AdeTruthConfig(_Published):
    """ADE20K, 150 classes."""

    kind: Literal["ade20k"] = "ade20k"

    @property
    def benchmark(self) -> str:
        """Name of the evaluation."""
        return "ade20k_150"


@dataclass(frozen=True, kw_only=True)
class CityscapesTruthConfig(_Published):
    """Cityscapes, 19 classes."""

    kind: Literal["cityscapes"] = "cityscapes"

    @property
    def benchmark(self) -> str:
        """Name of the evaluation."""
        return "cityscapes_19"


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe:
    """The evaluate job: labelled runs against ground truth."""

    job: Literal["evaluate"] = "evaluate"
    """Which job the recipe describes."""
    labels: dict[str, str]
    """Outputs of the label job by the name that tables call them, compared with the first; one needs no name."""
    truth: Annotated[
        WorldTruthConfig
        | VocTruthConfig
        | ContextTruthConfig
        | CocoStuffTruthConfig
        | CocoObjectTruthConfig
        | AdeTruthConfig
        | CityscapesTruthConfig
        | CocoInstancesTruthConfig,
        BY_KIND,
    ]
    """What is true of the images."""
    output: str
    """Folder or s3://bucket/prefix that gets figures, plots and the page."""
    title: str = "Evaluation"
    """Heading of the page and of the tables."""
    notice: str = ""
    """A sentence that stands below it: what a reader must know before the figures."""
    counts: CountConfig = field(default_factory=CountConfig)
    """Numbers that change figures."""
    objects: ObjectsConfig = field(default_factory=ObjectsConfig)
    """Which figures of instances stand beside those of the map; one word stands for `compute`."""
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    """Resamples of the intervals."""
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    """Which images are drawn beside their truth."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """Caps on published images and label maps."""
    limits: EvaluateLimits = field(default_factory=EvaluateLimits)
    """When a finished evaluation exits with 3."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How object storage is reached. Credentials come from the environment, never from a recipe."""

    def __post_init__(self) -> None:
        if not self.labels:
            raise ConfigError("labels is empty; name at least one output of the label job")
        for name in self.labels:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"labels.{name}: a run's name becomes a file name; use letters, digits, - and _, at most 40"
                )


_SETTINGS = (
    "job",
    "labels",
    "output",
    "title",
    "notice",
    "pictures",
    "limits",
    "storage",
    "truth.root",
    "truth.shards",
    "truth.annotations",
    "objects.max_found",
)
"""Fields that do not decide a figure: of labels and truth, their content does."""


def is_evaluate_setting(path: str) -> bool:
    """Whether the field at a dotted path may change between starts of one evaluation."""
    return any(path == setting or path.startswith(f"{setting}.") for setting in _SETTINGS)
