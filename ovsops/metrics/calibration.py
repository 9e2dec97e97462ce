"""Whether scores mean what they say: ECE, reliability table, temperature. Axes: N samples, C classes, M bins.

Expected calibration error and temperature scaling as in Guo et al. (arXiv:1706.04599, eq. 3 and section 4.2);
bins of equal mass as in Nixon et al. (arXiv:1904.01685). Not measured: how well scores separate right from wrong
(a scorer that always says the base rate has ECE 0), and how scores behave on other images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ShapeError
from ovsops.metrics.counts import added, ratio

NUM_CELLS = 15 * 1024
"""Cells of equal width that scores are counted in; bins are whole numbers of them."""
_UNIT = 1 << 30
"""Scores are summed as whole multiples of 1 / 2**30, so that sums do not depend on their order."""

_SMALLEST_TEMPERATURE, _LARGEST_TEMPERATURE = 1e-4, 1e4


@dataclass(frozen=True, kw_only=True)
class ReliabilityTable:
    """Bins by score, ascending; those without samples have nan."""

    num_samples: Int64[np.ndarray, "M"]
    mean_score: Float64[np.ndarray, "M"]
    share_correct: Float64[np.ndarray, "M"]

    @property
    def ece(self) -> float:
        """Mean distance of score and share of right ones, weighted by samples; nan without samples."""
        gaps = np.nan_to_num(np.abs(self.mean_score - self.share_correct), nan=0.0)
        return float(ratio((gaps * self.num_samples).sum(), self.num_samples.sum()))


@dataclass(frozen=True, kw_only=True, eq=False)
class ReliabilityCounts:
    """Samples, sums of scores and right ones, by score. Holds up to 2**33 samples."""

    counts: Int64[np.ndarray, "3 15360"]
    """Rows: samples, sum of scores in units of 2**-30, right ones."""

    @classmethod
    def zeros(cls) -> "ReliabilityCounts":
        """Nothing counted yet."""
        return cls(counts=np.zeros((3, NUM_CELLS), np.int64))

    def update(self, scores: Float[Tensor, "N"], is_correct: Bool[Tensor, "N"]) -> "ReliabilityCounts":
        """These counts and those of more samples. Raises `ShapeError` for scores outside [0, 1]."""
        values = scores.detach().double().cpu()
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ShapeError(
                "scores outside [0, 1] or nan: calibration is about scores, put logits through a sigmoid"
            )
        cells = (values * NUM_CELLS).long().clamp(max=NUM_CELLS - 1)
        rows = (torch.ones_like(cells), (values * _UNIT).round().long(), is_correct.cpu().long())
        table = torch.zeros((3, NUM_CELLS), dtype=torch.int64)
        for row, amounts in zip(table, rows, strict=True):
            row.index_add_(0, cells, amounts)
        return ReliabilityCounts(counts=self.counts + table.numpy())

    def __add__(self, other: "ReliabilityCounts") -> "ReliabilityCounts":
        return ReliabilityCounts(counts=added(self.counts, other.counts, what="reliability counts"))

    def compute(
        self, *, num_bins: int = 15, kind: Literal["equal_width", "equal_mass"] = "equal_width"
    ) -> ReliabilityTable:
        """Reliability per bin.

        Bins are half-open, [low, high), the last one closed. Bins of equal mass hold as equal numbers of samples
        as cells of 1/15360 allow; samples of one score stay together. `num_bins` must divide 15360.
        """
        if num_bins < 1 or NUM_CELLS % num_bins:
            raise ShapeError(f"{num_bins} bins: give a divisor of {NUM_CELLS}, such as 10, 15 or 20")
        samples = self.counts[0]
        if kind == "equal_width":
            bins = np.arange(NUM_CELLS) // (NUM_CELLS // num_bins)
        else:
            middle = 2 * samples.cumsum() - samples  # twice the rank of a cell's middle sample
            bins = np.minimum(middle * num_bins // max(2 * int(samples.sum()), 1), num_bins - 1)
        table = np.zeros((3, num_bins), np.int64)
        for row, amounts in zip(table, self.counts, strict=True):
            np.add.at(row, bins, amounts)
        return ReliabilityTable(
            num_samples=table[0],
            mean_score=ratio(table[1], table[0] * _UNIT),
            share_correct=ratio(table[2], table[0]),
        )


def fit_sigmoid_temperature(logits: Float[Tensor, "N"], is_correct: Bool[Tensor, "N"]) -> float:
    """T > 0 that minimises the mean binary cross-entropy of sigmoid(logits / T). Raises as `_fit` does."""
    values, targets = logits.detach().double(), is_correct.double()
    return _fit(
        lambda inverse: F.binary_cross_entropy_with_logits(values * inverse, targets).item(), len(values)
    )


def fit_softmax_temperature(logits: Float[Tensor, "N C"], targets: Int64[Tensor, "N"]) -> float:
    """T > 0 that minimises the mean cross-entropy of softmax(logits / T). Raises as `_fit` does."""
    values = logits.detach().double()
    return _fit(lambda inverse: F.cross_entropy(values * inverse, targets).item(), len(values))


def _fit(loss: Callable[[float], float], num_samples: int) -> float:
    """Golden section over log T: the loss is convex in 1/T, so it has one valley there.

    Raises `ShapeError` without samples, and where the loss falls towards an end of [1e-4, 1e4]: logits that
    separate right from wrong without an error, or that say nothing, have no temperature.
    """
    if num_samples == 0:
        raise ShapeError("a temperature of no samples: give logits of a calibration set")
    low, high = math.log(_SMALLEST_TEMPERATURE), math.log(_LARGEST_TEMPERATURE)
    golden = (math.sqrt(5) - 1) / 2

    def at(log_temperature: float) -> float:
        return loss(math.exp(-log_temperature))

    left, right = high - golden * (high - low), low + golden * (high - low)
    loss_left, loss_right = at(left), at(right)
    while high - low > 1e-9:
        if loss_left <= loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - golden * (high - low)
            loss_left = at(left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + golden * (high - low)
            loss_right = at(right)
    temperature = math.exp((low + high) / 2)
    if not 2 * _SMALLEST_TEMPERATURE < temperature < _LARGEST_TEMPERATURE / 2:
        raise ShapeError(
            f"the best temperature of {num_samples} samples lies at the end of the search ({temperature:.3g}):"
            " these logits separate right from wrong without an error, or say nothing about it;"
            " use a larger calibration set"
        )
    return temperature
