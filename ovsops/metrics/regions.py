"""Which class each region is taken for, and whether two languages agree. Axes: R regions, K classes.

A row of similarities names a class only if one entry is highest: a row with a tie at its top has no answer, is
wrong, and agrees with nothing. So a constant scorer has accuracy 0 and agreement 0.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer
from torch import Tensor

from ovsops.errors import ShapeError
from ovsops.metrics.counts import added, ratio

NO_ANSWER = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionCounts:
    """Regions per true class: all, right, and (with a second language) the same answer in both.

    Regions come from the truth: it does not measure whether they would have been found, nor their masks.
    """

    counts: Int64[np.ndarray, "3 K"]
    """Rows: regions, right ones, ones named the same in both languages."""

    @classmethod
    def zeros(cls, num_classes: int) -> "RegionCounts":
        """Nothing counted yet."""
        return cls(counts=np.zeros((3, num_classes), np.int64))

    def update(
        self,
        similarity: Float[Tensor, "R K"],
        classes: Integer[np.ndarray, "R"],
        *,
        second_similarity: Float[Tensor, "R K"] | None = None,
    ) -> "RegionCounts":
        """These counts and those of more regions; the columns of `similarity` are the classes 0..K-1.

        Without a second language no answers agree; ask for the agreement only where all updates gave one.
        """
        num_classes = self.counts.shape[1]
        if similarity.shape[1] != num_classes or (
            len(classes) and not 0 <= classes.min() <= classes.max() < num_classes
        ):
            raise ShapeError(
                f"similarity of shape {tuple(similarity.shape)} with classes {np.unique(classes)[:5].tolist()}...:"
                f" this state counts classes 0..{num_classes - 1}"
            )
        answers = region_answers(similarity)
        groups = [classes, classes[answers == classes]]
        if second_similarity is not None:
            groups.append(classes[(answers == region_answers(second_similarity)) & (answers != NO_ANSWER)])
        counts = self.counts.copy()
        for row, group in enumerate(groups):
            counts[row] += np.bincount(group, minlength=num_classes)
        return RegionCounts(counts=counts)

    def __add__(self, other: "RegionCounts") -> "RegionCounts":
        return RegionCounts(counts=added(self.counts, other.counts, what="region counts"))

    @property
    def top_1(self) -> float:
        """Share of all regions that are named right; nan without regions."""
        return float(region_accuracy(self.counts))

    @property
    def agreement(self) -> float:
        """Share of all regions that both languages name the same, right or wrong; nan without regions."""
        return float(ratio(self.counts[2].sum(), self.counts[0].sum()))

    def compute(self) -> Float64[np.ndarray, "K"]:
        """Top-1 accuracy per class; nan where it has no regions."""
        return ratio(self.counts[1], self.counts[0])


def region_accuracy(
    counts: Float64[np.ndarray, "*B 3 K"] | Int64[np.ndarray, "*B 3 K"],
) -> Float64[np.ndarray, "*B"]:
    """Share of regions that are named right, of any batch of states (for `bootstrap`)."""
    return ratio(counts[..., 1, :].sum(axis=-1), counts[..., 0, :].sum(axis=-1))


def region_answers(similarity: Float[Tensor, "R K"]) -> Int64[np.ndarray, "R"]:
    """Class of the highest entry of each row; -1 where the highest is shared or not a number."""
    values = similarity.detach().float().cpu().numpy()
    best = values.max(axis=1, keepdims=True)
    is_best = values == best  # False all over where a row holds nan
    return np.where(is_best.sum(axis=1) == 1, is_best.argmax(axis=1), NO_ANSWER).astype(np.int64)
