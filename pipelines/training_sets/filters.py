"""Filters of samples and regions. Each looks at one sample alone, so that shards may come in any order; each
drop has a reason.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ovsops.errors import ConfigError
from pipelines.training_sets.drops import Drops
from pipelines.training_sets.duplicates import share_of
from pipelines.training_sets.record import TrainingRegion, TrainingSample


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """What is too small, too large, too frequent, or not allowed."""

    min_side: int = 64
    """Pixels of an image's short side."""
    max_aspect: float = 10.0
    """Long side over short side of an image."""
    min_region_side: float = 8.0
    """Pixels of a box's short side: less than half a patch of 16 says nothing about attributes."""
    min_region_share: float = 0.0005
    """Area of a box over that of the image."""
    max_region_share: float = 1.0
    """Area of a box over that of the image."""
    licenses: tuple[str, ...] | None = None
    """Licences that are allowed, compared without case and outer spaces; null allows all."""
    unknown_license: Literal["keep", "drop"] = "keep"
    """Images whose licence nobody states are counted, and kept or dropped."""
    max_per_class: int | None = None
    """Regions that a class has at most, as an expected number: each region is kept with the same chance, by a
    hash of its id.
    """
    keep_without_regions: bool = False

    def __post_init__(self) -> None:
        if self.min_side < 1 or self.max_aspect < 1 or self.min_region_side < 0:
            raise ConfigError("filters: min_side and max_aspect are at least 1, min_region_side at least 0")
        if not 0 <= self.min_region_share < self.max_region_share <= 1:
            raise ConfigError("filters: give 0 <= min_region_share < max_region_share <= 1")
        if self.max_per_class is not None and self.max_per_class < 1:
            raise ConfigError(f"filters.max_per_class is {self.max_per_class}: give 1 or more, or null")


def filter_sample(
    sample: TrainingSample,
    config: FilterConfig,
    drops: Drops,
    class_counts: Mapping[int, int] | None = None,
) -> TrainingSample | None:
    """The sample with the regions that stay, or None; what goes is counted.

    `class_counts` are regions by class over the whole set after all other filters (`count_classes` of a first
    pass without `max_per_class`); without them classes are not balanced.
    """
    reason = _image_reason(sample, config)
    if reason:
        drops.add(reason)
        return None
    kept = []
    for region in sample.regions:
        reason = _region_reason(region, sample, config) or _balance_reason(region, config, class_counts or {})
        if reason:
            drops.add(reason)
        else:
            kept.append(region)
    if not kept and not config.keep_without_regions:
        drops.add("D_NO_REGION")
        return None
    if sample.license is None:
        drops.add("N_LICENSE_UNKNOWN")
    return sample if len(kept) == len(sample.regions) else replace(sample, regions=tuple(kept))


def count_classes(sample: TrainingSample, counts: Counter[int]) -> None:
    """Add the sample's regions by class."""
    counts.update(region.category_id for region in sample.regions)


def _image_reason(sample: TrainingSample, config: FilterConfig) -> str:
    short, long = sorted((sample.width, sample.height))
    if short < config.min_side:
        return "D_IMAGE_SMALL"
    if long > config.max_aspect * short:
        return "D_IMAGE_LONG"
    if sample.license is None:
        return "D_LICENSE_UNKNOWN" if config.unknown_license == "drop" else ""
    allowed = None if config.licenses is None else {name.strip().casefold() for name in config.licenses}
    return "" if allowed is None or sample.license.strip().casefold() in allowed else "D_LICENSE"


def _region_reason(region: TrainingRegion, sample: TrainingSample, config: FilterConfig) -> str:
    x1, y1, x2, y2 = region.box
    share = (x2 - x1) * (y2 - y1)
    side = min((x2 - x1) * sample.width, (y2 - y1) * sample.height)
    if share < config.min_region_share or side < config.min_region_side:
        return "D_REGION_SMALL"
    return "D_REGION_LARGE" if share > config.max_region_share else ""


def _balance_reason(region: TrainingRegion, config: FilterConfig, class_counts: Mapping[int, int]) -> str:
    count = class_counts.get(region.category_id, 0)
    if config.max_per_class is None or count <= config.max_per_class:
        return ""
    return (
        "D_REGION_BALANCE" if share_of(region.region_uid, "balance") >= config.max_per_class / count else ""
    )
