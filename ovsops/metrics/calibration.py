"""Whether scores mean what they say: ECE, reliability table, Platt scaling. Axes: N samples, C columns, M bins.

Expected calibration error as in Guo et al. (arXiv:1706.04599, eq. 3); bins of equal mass as in Nixon et al.
(arXiv:1904.01685). Not measured: how well scores separate right from wrong (a scorer that always says the base rate
has ECE 0), and how scores behave on other images.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.counts import added, ratio

NUM_CELLS = 15 * 1024
"""Cells of equal width that scores are counted in; bins are whole numbers of them."""
_UNIT = 1 << 30
"""Scores are summed as whole multiples of 1 / 2**30, so that sums do not depend on their order."""
_NEWTON_STEPS = 100


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


@dataclass(frozen=True, kw_only=True)
class SigmoidCalibration:
    """sigmoid(similarity / temperature + bias) is the chance that a pair is true."""

    temperature: float
    bias: float


def fit_sigmoid(similarity: Float[Tensor, " N"], truth: Bool[Tensor, " N"]) -> SigmoidCalibration:
    """Platt scaling: the temperature and bias of the least mean binary cross-entropy, with Platt's smoothed targets.

    Targets (n+ + 1) / (n+ + 2) and 1 / (n- + 2) (Platt 1999, section 2.2) keep the fit finite where the classes can
    be parted. Raises ConfigError where one truth is missing or a higher similarity does not mean a likelier pair.
    """
    num_true, num = int(truth.sum()), truth.numel()
    if not 0 < num_true < num:
        raise ConfigError(
            f"sigmoid fit: {num_true} of {num} pairs are true; both true and false ones are needed"
        )
    values = similarity.double()
    center, spread = values.mean(), values.std(correction=0).clamp_min(1e-12)
    design = torch.stack([(values - center) / spread, torch.ones_like(values)], dim=1)
    target = torch.where(truth, (num_true + 1) / (num_true + 2), 1 / (num - num_true + 2)).double()
    weights = _logistic_regression(design, target)
    slope = float(weights[0] / spread)
    if not slope > 0:
        raise ConfigError(
            f"sigmoid fit: the slope is {slope:.3g}, so a higher similarity does not mean a likelier pair; no "
            "temperature makes such scores mean anything"
        )
    return SigmoidCalibration(temperature=1 / slope, bias=float(weights[1] - weights[0] * center / spread))


def _logistic_regression(design: Float[Tensor, "N C"], target: Float[Tensor, " N"]) -> Float[Tensor, " C"]:
    """Newton's method with halved steps; two columns, so every step is a 2 x 2 system."""
    weights = design.new_zeros(design.shape[1])
    loss = F.binary_cross_entropy_with_logits(design @ weights, target)
    for _ in range(_NEWTON_STEPS):
        chance = (design @ weights).sigmoid()
        gradient = design.T @ (chance - target) / len(design)
        hessian = (design.T * (chance * (1 - chance))) @ design / len(design)
        ridge = 1e-12 * torch.eye(len(weights), dtype=design.dtype, device=design.device)
        step = torch.linalg.solve(hessian + ridge, gradient)
        size = 1.0
        while size > 1e-10:
            tried = weights - size * step
            after = F.binary_cross_entropy_with_logits(design @ tried, target)
            if after <= loss:
                break
            size /= 2
        else:
            break
        is_done = float(loss - after) < 1e-14
        weights, loss = tried, after
        if is_done:
            break
    return weights
