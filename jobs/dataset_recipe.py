"""The recipe of a training set: which labels and negatives, what is kept, which formats."""

from dataclasses import dataclass, field
from typing import Literal

from ovsops.errors import ConfigError
from pipelines.dataset import SetConfig
from pipelines.runner import Placement, RayConfig
from pipelines.storage import StorageOptions, scheme_of
from pipelines.training_sets.build import BuildConfig
from pipelines.training_sets.duplicates import DuplicateConfig
from pipelines.training_sets.filters import FilterConfig
from pipelines.training_sets.splits import SplitConfig
from pipelines.unit_config import UnitLimits, work_placement


@dataclass(frozen=True, kw_only=True)
class DatasetRecipe:
    """The dataset job: labels, negatives and images in, training sets out."""

    job: Literal["dataset"] = "dataset"
    """Which job the recipe describes."""
    labels: str
    """Output of a label run. What it has committed is used. Relative to the working directory."""
    negatives: str | None = None
    """Output of a negatives run over the same labels; null makes a set without negatives."""
    output: str
    """Folder that gets the sets; all workers must share it. Relative to the working directory."""
    set: SetConfig = field(default_factory=SetConfig)
    """Name, formats, sizes of files, and how the validator looks at them."""
    build: BuildConfig = field(default_factory=BuildConfig)
    """What becomes a sample."""
    filters: FilterConfig = field(default_factory=FilterConfig)
    """What is too small, too large, too frequent, or not allowed."""
    duplicates: DuplicateConfig = field(default_factory=DuplicateConfig)
    """Which images are taken for the same. Groups of them never cross splits."""
    splits: SplitConfig = field(default_factory=SplitConfig)
    """Shares of val and test."""
    keep_splits_of: str | None = None
    """Output of an earlier dataset run whose images stay in their splits: what was held out stays held out."""
    shards: tuple[str, ...] = ()
    """Where the images are now, as `input.shards` of a label recipe; empty: where the label run found them."""
    limits: UnitLimits = field(default_factory=UnitLimits)
    """When a finished run exits with 3."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How object storage is reached, of labels, negatives and images. Credentials come from the environment."""
    ray: RayConfig = field(default_factory=RayConfig)
    """The cluster."""
    work_on: Placement = field(default_factory=work_placement)
    """Workers, a shard each at a time; `actors: 0` takes as many as there are CPUs."""

    def __post_init__(self) -> None:
        if scheme_of(self.output) != "file":
            raise ConfigError(
                f"output is {self.output}: a training set is written into a folder, which trainers read; copy it to a"
                " bucket when it is done"
            )
        if self.build.keep_without_regions != self.filters.keep_without_regions:
            raise ConfigError(
                "build.keep_without_regions and filters.keep_without_regions differ: give both the same"
            )
        if self.duplicates.min_cosine is not None:
            raise ConfigError(
                "duplicates.min_cosine compares embeddings of images, and a label run has none: leave it null; copies"
                " are found by bytes and by perceptual hashes"
            )

    @property
    def settings(self) -> tuple[str, ...]:
        """Fields that may change between starts of one output: they cannot change the set."""
        return (
            "job",
            "labels",
            "negatives",
            "output",
            "shards",
            "set.check_images",
            "limits",
            "storage",
            "ray",
            "work_on",
        )
