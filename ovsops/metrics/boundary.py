"""How well outlines are met: boundary F and boundary IoU. Axes: h w pixels, C ids, B any batch of states.

Boundary F (Martin et al., TPAMI 2004; per class as in Csurka et al., BMVC 2013): a boundary pixel of a class is
one of its pixels with a 4-neighbour of another class. It is met if a boundary pixel of the same class of the
other map lies within the tolerance, 0.75 % of the image diagonal (Csurka et al.), Euclidean. Here pixels are
summed over all images before the division, where Csurka et al. average over images: a big image weighs more.
Edges against ignored pixels and against the border of the image are no boundary.

Boundary IoU (arXiv:2103.16562, eq. 3): IoU of the bands of pixels that lie in the class and within d pixels of
its outline; d is 2 % of the image diagonal, distances are those of a square of 2d + 1 pixels, and the border of
the image is outline, as in the authors' code. The border of ignored pixels counts as outline, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer, Num
from scipy import ndimage

from ovsops.errors import ConfigError
from ovsops.metrics.counts import added, mean_of_defined, ratio
from ovsops.metrics.segmentation import IGNORE, check_labels, iou

HITS_PREDICTED, PREDICTED, HITS_TRUTH, TRUTH = 0, 1, 2, 3
"""Rows of `BoundaryCounts`: predicted boundary pixels that are met, all of them; the same of the truth."""

_OUTSIDE = -1


@dataclass(frozen=True, kw_only=True)
class BoundaryConfig:
    """Distances, as shares of the image diagonal."""

    tolerance: float = 0.0075
    """Of boundary F."""
    band: float = 0.02
    """Of boundary IoU; rounded to whole pixels, at least 1."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < 1:
                raise ConfigError(f"boundary.{name} = {value}: a share of the image diagonal lies in (0, 1)")


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundaryCounts:
    """Boundary pixels of each id, and how many were met.

    Does not measure the inside of regions, holes that stay within the tolerance, or in which image the misses
    are; says nothing about data sets whose truth leaves a strip of ignored pixels along every outline (VOC).
    """

    counts: Int64[np.ndarray, "4 C"]

    @classmethod
    def zeros(cls, num_ids: int) -> "BoundaryCounts":
        """Nothing counted yet, for ids 0 to `num_ids` - 1."""
        return cls(counts=np.zeros((4, num_ids), np.int64))

    def update(
        self,
        truth: Integer[np.ndarray, "h w"],
        predicted: Integer[np.ndarray, "h w"],
        *,
        config: BoundaryConfig | None = None,
        ignore: int = IGNORE,
    ) -> "BoundaryCounts":
        """These counts and those of one more image. Raises `ShapeError` for labels outside the ids."""
        counts = self.counts.copy()
        truth, predicted = _comparable(truth, predicted, num_ids=counts.shape[1], ignore=ignore)
        tolerance = (config or BoundaryConfig()).tolerance * float(np.hypot(*truth.shape))
        lines = [np.where(boundary_pixels(labels), labels, _OUTSIDE) for labels in (predicted, truth)]
        for row, line in zip((PREDICTED, TRUTH), lines, strict=True):
            counts[row] += np.bincount(line[line != _OUTSIDE], minlength=counts.shape[1])
        for i in np.intersect1d(lines[0], lines[1]):
            if i != _OUTSIDE:
                counts[HITS_PREDICTED, i] += _num_near(lines[0] == i, lines[1] == i, tolerance)
                counts[HITS_TRUTH, i] += _num_near(lines[1] == i, lines[0] == i, tolerance)
        return BoundaryCounts(counts=counts)

    def __add__(self, other: "BoundaryCounts") -> "BoundaryCounts":
        return BoundaryCounts(counts=added(self.counts, other.counts, what="boundary counts"))

    def compute(self) -> Float64[np.ndarray, "C"]:
        """Boundary F per id; see `boundary_f`."""
        return boundary_f(self.counts)


@dataclass(frozen=True, kw_only=True, eq=False)
class BandCounts:
    """Pixels per id in the bands along outlines: intersection, truth, prediction.

    Does not measure the inside of big regions; in regions thinner than twice the band it equals the IoU.
    """

    areas: Int64[np.ndarray, "3 C"]

    @classmethod
    def zeros(cls, num_ids: int) -> "BandCounts":
        """Nothing counted yet, for ids 0 to `num_ids` - 1."""
        return cls(areas=np.zeros((3, num_ids), np.int64))

    def update(
        self,
        truth: Integer[np.ndarray, "h w"],
        predicted: Integer[np.ndarray, "h w"],
        *,
        config: BoundaryConfig | None = None,
        ignore: int = IGNORE,
    ) -> "BandCounts":
        """These counts and those of one more image. Raises `ShapeError` for labels outside the ids."""
        num_ids = self.areas.shape[1]
        truth, predicted = _comparable(truth, predicted, num_ids=num_ids, ignore=ignore)
        distance = max(1, round((config or BoundaryConfig()).band * float(np.hypot(*truth.shape))))
        in_truth, in_predicted = (
            band_pixels(labels, distance) & (labels != _OUTSIDE) for labels in (truth, predicted)
        )
        shared = truth[in_truth & in_predicted & (truth == predicted)]
        rows = [
            np.bincount(ids, minlength=num_ids) for ids in (shared, truth[in_truth], predicted[in_predicted])
        ]
        return BandCounts(areas=self.areas + np.stack(rows))

    def __add__(self, other: "BandCounts") -> "BandCounts":
        return BandCounts(areas=added(self.areas, other.areas, what="band counts"))

    def compute(self) -> Float64[np.ndarray, "C"]:
        """Boundary IoU per id; nan where no band has a pixel."""
        return iou(self.areas)


def boundary_f(counts: Num[np.ndarray, "*B 4 C"]) -> Float64[np.ndarray, "*B C"]:
    """Harmonic mean of precision and recall of boundary pixels; 0 where none is met, nan where there is none."""
    precision = ratio(counts[..., HITS_PREDICTED, :], counts[..., PREDICTED, :])
    recall = ratio(counts[..., HITS_TRUTH, :], counts[..., TRUTH, :])
    f = np.nan_to_num(ratio(2 * precision * recall, precision + recall), nan=0.0)
    return np.where((counts[..., PREDICTED, :] + counts[..., TRUTH, :]) > 0, f, np.nan)


def mean_boundary_f(
    counts: Num[np.ndarray, "*B 4 C"], ids: Sequence[int] | None = None
) -> Float64[np.ndarray, "*B"]:
    """Mean over the ids (of `ids`) that have a boundary in truth or prediction."""
    return mean_of_defined(boundary_f(counts), ids)


def boundary_pixels(labels: Integer[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels with a 4-neighbour of another label, ignored ones (-1) aside."""
    is_boundary = np.zeros(labels.shape, bool)
    for one, other in (
        (np.s_[:-1, :], np.s_[1:, :]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    ):
        differs = (labels[one] != labels[other]) & (labels[one] != _OUTSIDE) & (labels[other] != _OUTSIDE)
        is_boundary[one] |= differs
        is_boundary[other] |= differs
    return is_boundary


def band_pixels(labels: Integer[np.ndarray, "h w"], distance: int) -> Bool[np.ndarray, "h w"]:
    """Pixels whose square of 2 `distance` + 1 holds another label or leaves the image."""
    size, outside = 2 * distance + 1, _OUTSIDE - 1
    lowest = ndimage.minimum_filter(labels, size=size, mode="constant", cval=outside)
    highest = ndimage.maximum_filter(labels, size=size, mode="constant", cval=outside)
    return lowest != highest


def _comparable(
    truth: Integer[np.ndarray, "h w"], predicted: Integer[np.ndarray, "h w"], *, num_ids: int, ignore: int
) -> tuple[Int64[np.ndarray, "h w"], Int64[np.ndarray, "h w"]]:
    """Both maps with -1 where the truth says nothing."""
    is_known = truth != ignore
    for what, labels in (("truth", truth), ("prediction", predicted)):
        check_labels(labels[is_known], num_ids, what=what)
    return (
        np.where(is_known, truth.astype(np.int64), _OUTSIDE),
        np.where(is_known, predicted.astype(np.int64), _OUTSIDE),
    )


def _num_near(pixels: Bool[np.ndarray, "h w"], targets: Bool[np.ndarray, "h w"], tolerance: float) -> int:
    """How many of `pixels` have a target within `tolerance`, worked out in the box that holds both."""
    rows, columns = ((pixels | targets).any(axis=axis).nonzero()[0] for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    distances = ndimage.distance_transform_edt(~targets[box])
    return int((distances[pixels[box]] <= tolerance + 1e-9).sum())
