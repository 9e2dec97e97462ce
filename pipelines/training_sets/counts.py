"""What is in a set, counted sample by sample: for the index and the dataset card. Counts of shards add up to
those of the set.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from pipelines.training_sets.record import TrainingSample

UNKNOWN_LICENSE = "(unknown)"
_TABLES = ("splits", "languages", "licenses", "categories", "negative_types", "negative_sources")


@dataclass(kw_only=True)
class SetCounts:
    """Counts of one set."""

    images: int = 0
    regions: int = 0
    regions_with_negatives: int = 0
    regions_with_masks: int = 0
    image_bytes: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    """Images by split."""
    languages: Counter[str] = field(default_factory=Counter)
    """Images by language."""
    licenses: Counter[str] = field(default_factory=Counter)
    """Images by licence."""
    categories: Counter[str] = field(default_factory=Counter)
    """Regions by class."""
    negative_types: Counter[str] = field(default_factory=Counter)
    """Negatives by what was changed in them."""
    negative_sources: Counter[str] = field(default_factory=Counter)
    """Negatives by who wrote them; empty where rules alone did."""

    def add(self, sample: TrainingSample) -> None:
        """Count one sample."""
        self.images += 1
        self.image_bytes += len(sample.data)
        self.splits[sample.split] += 1
        self.languages[sample.language] += 1
        self.licenses[sample.license or UNKNOWN_LICENSE] += 1
        for region in sample.regions:
            self.regions += 1
            self.categories[region.category] += 1
            self.regions_with_masks += region.segmentation is not None
            if region.negatives is not None:
                self.regions_with_negatives += 1
                self.negative_types.update(region.negatives.types)
                self.negative_sources.update(region.negatives.sources or ())

    def merge(self, other: "SetCounts") -> None:
        """Add the counts of another shard."""
        for name, value in vars(other).items():
            if name in _TABLES:
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def to_plain(self) -> dict[str, int | dict[str, int]]:
        """For JSON; tables by falling count, then by name. `negative_sources` only where writers are said."""
        return {
            name: _sorted(value) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
            if name != "negative_sources" or value
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, int | Mapping[str, int]]) -> Self:
        """Counts that `to_plain` gave."""
        counts = cls()
        for name, value in plain.items():
            setattr(counts, name, value if isinstance(value, int) else Counter(value))
        return counts


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
