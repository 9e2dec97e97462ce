"""IoU and accuracy of label maps, from counts of pixels. Axes: h w pixels, C ids, B any batch of states.

A label map holds ids 0..C-1; `IGNORE` in the truth takes a pixel out of all counts. Counts of images and shards
add up, and division comes last, so any sharding gives the same number.

The published protocol (as mmsegmentation computes it: intersection and union summed over the data set, then a
mean over classes): a class that occurs neither in the truth nor in the prediction has no IoU and is left out of
the mean; one that is predicted but never true has IoU 0 and counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Integer, Num

from ovsops.errors import ShapeError
from ovsops.metrics.counts import added, mean_of_defined, ratio

IGNORE = 255
"""Label of pixels that the truth says nothing about."""
INTERSECTION, TRUTH, PREDICTED = 0, 1, 2
"""Rows of an area table."""


@dataclass(frozen=True, kw_only=True)
class SegmentationFigures:
    """What counts of pixels say. Not measured: where in an image the errors are, outlines, and instances."""

    iou: Float64[np.ndarray, "C"]
    """Per id; nan where it neither occurs nor is predicted."""
    accuracy: Float64[np.ndarray, "C"]
    """Per id, share of its true pixels that were found; nan where it does not occur."""
    mean_iou: float
    mean_accuracy: float
    pixel_accuracy: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ConfusionCounts:
    """Pixels by true id (row) and predicted id (column).

    Does not measure outlines (`boundary`), instances, or how sure a label was; big images weigh more than small
    ones, and a rare class counts in the mean as much as a frequent one.
    """

    counts: Int64[np.ndarray, "C C"]

    @classmethod
    def zeros(cls, num_ids: int) -> "ConfusionCounts":
        """Nothing counted yet, for ids 0 to `num_ids` - 1."""
        return cls(counts=np.zeros((num_ids, num_ids), np.int64))

    def update(
        self, truth: Integer[np.ndarray, "*S"], predicted: Integer[np.ndarray, "*S"], *, ignore: int = IGNORE
    ) -> "ConfusionCounts":
        """These counts and those of one more image.

        Raises `ShapeError` for labels outside the ids; a prediction is free where the truth is `ignore`.
        """
        num_ids = len(self.counts)
        is_known = truth != ignore
        rows, columns = truth[is_known].astype(np.int64), predicted[is_known].astype(np.int64)
        for what, labels in (("truth", rows), ("prediction", columns)):
            check_labels(labels, num_ids, what=what)
        cells = np.bincount(rows * num_ids + columns, minlength=num_ids * num_ids)
        return ConfusionCounts(counts=self.counts + cells.reshape(num_ids, num_ids))

    def __add__(self, other: "ConfusionCounts") -> "ConfusionCounts":
        return ConfusionCounts(counts=added(self.counts, other.counts, what="confusion counts"))

    @property
    def areas(self) -> Int64[np.ndarray, "3 C"]:
        """Pixels per id of intersection, truth and prediction: all that IoU and accuracy need."""
        return np.stack([self.counts.diagonal(), self.counts.sum(axis=1), self.counts.sum(axis=0)])

    def compute(self, ids: Sequence[int] | None = None) -> SegmentationFigures:
        """Figures, with means over `ids` (all where None). Leave 0 out for data sets without background."""
        areas = self.areas
        return SegmentationFigures(
            iou=iou(areas),
            accuracy=accuracy(areas),
            mean_iou=float(mean_iou(areas, ids)),
            mean_accuracy=float(mean_of_defined(accuracy(areas), ids)),
            pixel_accuracy=float(pixel_accuracy(areas, ids)),
        )

    def remapped(self, table: Integer[np.ndarray, "C"]) -> "ConfusionCounts":
        """The counts of the same pixels had every label been replaced by `table[label]` first."""
        num_ids = int(table.max()) + 1
        onto = np.zeros((len(self.counts), num_ids), np.int64)
        onto[np.arange(len(self.counts)), table] = 1
        return ConfusionCounts(counts=onto.T @ self.counts @ onto)


def iou(areas: Num[np.ndarray, "*B 3 C"]) -> Float64[np.ndarray, "*B C"]:
    """Intersection over union per id; nan where both are 0."""
    hits = areas[..., INTERSECTION, :]
    return ratio(hits, areas[..., TRUTH, :] + areas[..., PREDICTED, :] - hits)


def accuracy(areas: Num[np.ndarray, "*B 3 C"]) -> Float64[np.ndarray, "*B C"]:
    """Share of the true pixels of each id that were found; nan where it has none."""
    return ratio(areas[..., INTERSECTION, :], areas[..., TRUTH, :])


def mean_iou(areas: Num[np.ndarray, "*B 3 C"], ids: Sequence[int] | None = None) -> Float64[np.ndarray, "*B"]:
    """Mean of the IoU over the ids (of `ids`) that occur in truth or prediction."""
    return mean_of_defined(iou(areas), ids)


def pixel_accuracy(
    areas: Num[np.ndarray, "*B 3 C"], ids: Sequence[int] | None = None
) -> Float64[np.ndarray, "*B"]:
    """Share of the pixels whose true id is one of `ids` (any where None) that got it."""
    chosen = areas if ids is None else areas[..., list(ids)]
    return ratio(chosen[..., INTERSECTION, :].sum(axis=-1), chosen[..., TRUTH, :].sum(axis=-1))


def background_table(num_ids: int, kept: Sequence[int]) -> Int64[np.ndarray, "C"]:
    """A table for `ConfusionCounts.remapped` that makes `kept` 1, 2, ... in their order and all other ids 0.

    With the things of a world as `kept` it gives the view of nouns and one background.
    """
    if len(set(kept)) < len(kept) or not all(0 <= i < num_ids for i in kept):
        raise ShapeError(f"kept ids {list(kept)}: they must be different and lie in 0..{num_ids - 1}")
    table = np.zeros(num_ids, np.int64)
    table[list(kept)] = np.arange(1, len(kept) + 1)
    return table


def check_labels(labels: Integer[np.ndarray, "*S"], num_ids: int, *, what: str) -> None:
    """Raise `ShapeError` where a label is not in 0..num_ids-1."""
    if labels.size and (labels.min() < 0 or labels.max() >= num_ids):
        wrong = np.unique(labels[(labels < 0) | (labels >= num_ids)])[:5].tolist()
        raise ShapeError(
            f"{what} has labels {wrong}, but ids are 0..{num_ids - 1}: count with more ids, or remap the labels"
        )
