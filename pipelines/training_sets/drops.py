"""Every code for what is left out of a training set, or changed on its way into it, and how often it was."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

REASONS: Mapping[str, str] = {
    "D_NOT_LABELLED": "image: the label job failed on it or skipped it",
    "D_NO_BYTES": "image: its bytes are no JPEG, PNG or WebP",
    "D_EXIF_TURNED": "image: its EXIF turn is not applied by trainers, so that its boxes would lie elsewhere",
    "D_NO_CAPTION": "image: no caption, neither short nor long, that can be used",
    "D_NO_REGION": "image: no region is left",
    "D_LICENSE": "image: its licence is not on the list of those that are allowed",
    "D_LICENSE_UNKNOWN": "image: no licence is known, and one is required",
    "D_IMAGE_SMALL": "image: a side is below the least",
    "D_IMAGE_LONG": "image: the long side is too many times the short one",
    "D_EXACT_DUPLICATE": "image: the same bytes are in the set already",
    "D_NEAR_DUPLICATE": "image: looks like one that is kept",
    "D_REGION_REVIEW": "region: waits for a human's decision",
    "D_REGION_CROWD": "region: stands for many things",
    "D_REGION_BOX": "region: its box leaves the image or has no area",
    "D_REGION_TEXT": "region: no expression that can be used",
    "D_REGION_LANGUAGE": "region: described in another language than its image",
    "D_REGION_SCORE": "region: its score is below the least",
    "D_REGION_SMALL": "region: too small a share of the image, or too few pixels",
    "D_REGION_LARGE": "region: too large a share of the image",
    "D_REGION_BALANCE": "region: its class has more regions than it may have",
    "D_REGION_UNKNOWN_CLASS": "region: its class is not in the vocabulary",
    "D_NEGATIVES": "negatives of a region: not exactly ten different ones; the region stays, without negatives",
    "N_OTHER_LENGTH": "text: the short text stands for the long one that is missing, or the long for the short",
    "N_LICENSE_UNKNOWN": "image: kept without a known licence",
}
"""`D_` left something out, `N_` did not."""


@dataclass(frozen=True, kw_only=True)
class Drops:
    """Counts by code. Counts of shards add up to those of the set."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, code: str, count: int = 1) -> None:
        """Count `code`, which must be in `REASONS`."""
        assert code in REASONS, code
        if count:
            self.counts[code] += count

    def merge(self, other: "Drops") -> None:
        """Add the counts of another shard."""
        self.counts.update(other.counts)

    def to_plain(self) -> dict[str, int]:
        """Counts for JSON, in the order of the table."""
        return {code: self.counts[code] for code in REASONS if self.counts[code]}

    @classmethod
    def from_plain(cls, plain: Mapping[str, int]) -> Self:
        """Counts that `to_plain` gave."""
        drops = cls()
        for code, count in plain.items():
            drops.add(code, count)
        return drops


def image_reason(drops: Drops) -> str | None:
    """Why one image was left out, from what was counted of it alone; None where it was not."""
    return next(
        (code for code in drops.counts if code.startswith("D_") and REASONS[code].startswith("image:")), None
    )
