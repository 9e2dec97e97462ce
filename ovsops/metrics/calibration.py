"""Whether scores mean what they say: ECE, reliability tables, Platt scaling. Axes: N samples, C columns, M bins.

Expected calibration error as in Guo et al. (arXiv:1706.04599, eq. 3), over bins of equal width. Not measured: how well
scores separate right from wrong (a scorer that always says the base rate has ECE 0), and how scores behave on other
images.

A reliability table is `3 x M` whole numbers, so tables of images add up in any order: weight of the samples in a bin,
sum of weight times score in steps of `1 / unit`, weight of the right ones.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, Num
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.counts import ratio

SAMPLE_UNIT = 1 << 30
"""Steps of a score where samples weigh 1: room for 2**33 of them."""
PIXEL_UNIT = 1 << 16
"""Steps where they weigh by their pixels: room for 2**47 pixels."""
_NEWTON_STEPS = 100


def reliability_table(
    scores: Float64[np.ndarray, "N"],
    is_right: Bool[np.ndarray, "N"],
    *,
    num_bins: int,
    weights: Int64[np.ndarray, "N"] | None = None,
    unit: int = SAMPLE_UNIT,
) -> Int64[np.ndarray, "3 M"]:
    """Samples by score; each weighs 1 without `weights`. Bins are half-open, [low, high), the last one closed.

    Raises `ShapeError` for scores outside [0, 1] and for nan.
    """
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ShapeError(
            "scores outside [0, 1] or nan: calibration is about scores, put logits through a sigmoid"
        )
    bins = np.minimum((scores * num_bins).astype(np.int64), num_bins - 1)
    weight = np.ones(len(scores), np.int64) if weights is None else weights
    table = np.zeros((3, num_bins), np.int64)
    for row, amounts in zip(
        table, (weight, weight * np.rint(scores * unit).astype(np.int64), weight * is_right), strict=True
    ):
        np.add.at(row, bins, amounts)
    return table


def mean_scores(table: Num[np.ndarray, "*B 3 M"], *, unit: int = SAMPLE_UNIT) -> Float64[np.ndarray, "*B M"]:
    """Mean score of each bin; nan in empty ones."""
    return ratio(table[..., 1, :], table[..., 0, :] * unit)


def right_shares(table: Num[np.ndarray, "*B 3 M"]) -> Float64[np.ndarray, "*B M"]:
    """Share of right samples of each bin; nan in empty ones."""
    return ratio(table[..., 2, :], table[..., 0, :])


def calibration_error(
    table: Num[np.ndarray, "*B 3 M"], *, unit: int = SAMPLE_UNIT
) -> Float64[np.ndarray, "*B"]:
    """Mean distance of score and share of right ones over bins, weighted by their samples; nan without samples."""
    gaps = np.nan_to_num(np.abs(mean_scores(table, unit=unit) - right_shares(table)))
    return ratio((gaps * table[..., 0, :]).sum(axis=-1), table[..., 0, :].sum(axis=-1))


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
