"""Constants that make scores mean something: how SigLIP joins DINO, and how sure a similarity is.

Pure functions of similarities and truth, to be run on validation scenes: what is fitted and what is reported must
not be the same scenes. Axes: N samples, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ConfigError, ShapeError

ALPHAS = tuple(step / 10 for step in range(11))
"""Shares of DINO that are tried; 0 and 1 are the two parts alone."""
_TEMPERATURES = (1e-4, 1e2)
_NEWTON_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Affine:
    """scale * similarity + shift."""

    scale: float
    shift: float


@dataclass(frozen=True, kw_only=True)
class AlphaChoice:
    """A share of DINO, and what every share that was tried is worth."""

    alpha: float
    curve: tuple[tuple[float, float], ...]
    """(alpha, metric), in rising order of alpha."""

    @property
    def best(self) -> float:
        """The metric at the chosen share."""
        return dict(self.curve)[self.alpha]

    @property
    def gain(self) -> float:
        """How far the chosen share is above the better part alone; never negative."""
        values = dict(self.curve)
        return self.best - max(values[0.0], values[1.0])


@dataclass(frozen=True, kw_only=True)
class SigmoidCalibration:
    """sigmoid(similarity / temperature + bias) is the chance that a pair is true."""

    temperature: float
    bias: float


def fit_affine(siglip: Float[Tensor, "..."], dino: Float[Tensor, "..."]) -> Affine:
    """kappa and c that give SigLIP's similarities the mean and the spread of DINO's.

    Constants of a calibration set rather than of each image: standardising per image would let every new class
    move all scores.
    """
    own, other = siglip.double(), dino.double()
    if own.numel() < 2 or other.numel() < 2:
        raise ShapeError(
            f"affine fit: {own.numel()} and {other.numel()} similarities have no spread; give two or more"
        )
    spread = own.std(correction=0)
    if not torch.isfinite(spread) or spread <= 1e-12:
        raise ConfigError(
            "affine fit: SigLIP's similarities are all equal, so no scale brings them to DINO's spread; "
            "are the features those of a trained tower?"
        )
    scale = float(other.std(correction=0) / spread)
    return Affine(scale=scale, shift=float(other.mean() - scale * own.mean()))


def choose_alpha(
    dino: Float[Tensor, "*N"],
    siglip: Float[Tensor, "*N"],
    metric: Callable[[Tensor], float],
    *,
    affine: Affine,
    alphas: Sequence[float] = ALPHAS,
) -> AlphaChoice:
    """The share alpha whose fused similarity, alpha * dino + (1 - alpha)(kappa * siglip + c), is worth most.

    `metric` judges a fused similarity (more is better). The grid must hold 0 and 1: only then is the choice never
    worse than the better part on these scenes. Of equal shares the one nearest to 0.5 is taken, the larger of two.
    """
    shares = sorted(set(alphas))
    if not shares or shares[0] != 0 or shares[-1] != 1:
        raise ConfigError(
            f"alpha grid {list(alphas)}: it must run from 0 to 1 and hold both, the two parts alone, or the fused "
            "figure could fall below the better part without anybody seeing it"
        )
    scaled = affine.scale * siglip.float() + affine.shift
    curve = tuple(
        (float(alpha), float(metric(alpha * dino.float() + (1 - alpha) * scaled))) for alpha in shares
    )
    best = max(curve, key=lambda tried: (tried[1], -abs(tried[0] - 0.5), tried[0]))
    return AlphaChoice(alpha=best[0], curve=curve)


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


def fit_softmax_temperature(similarity: Float[Tensor, "N C"], truth: Int[Tensor, " N"]) -> float:
    """T of the least cross-entropy of softmax(similarity / T) (temperature scaling, arXiv:1706.04599).

    The loss is convex in 1/T; its slope is searched by bisection between T = 0.0001 and 100, and an end of that range
    is the answer where the slope does not change its sign: similarities that are always right, or of no use.
    """
    if not len(similarity):
        raise ShapeError("temperature fit: no sample, so there is no least cross-entropy")
    values = similarity.double()
    own = values.gather(1, truth[:, None].long())[:, 0]

    def slope(inverse: float) -> float:
        expected = ((values * inverse).softmax(dim=1) * values).sum(dim=1)
        return float((expected - own).mean())

    low, high = 1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]
    if slope(low) >= 0:
        return 1 / low
    if slope(high) <= 0:
        return 1 / high
    for _ in range(80):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / (low * high) ** 0.5


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
