"""Constants by which SigLIP joins DINO.

Pure functions, to be run on validation scenes: what is fitted and what is reported must not be the same scenes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.errors import ConfigError, ShapeError

ALPHAS = tuple(step / 10 for step in range(11))
"""Shares of DINO that are tried; 0 and 1 are the two parts alone."""


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


def choose_alpha(worth: Mapping[float, float]) -> AlphaChoice:
    """The share of DINO that is worth most, from what each share that was tried is worth (more is better).

    0 and 1 must be among them: only then is the choice never worse than the better part on these scenes. Of equal
    shares the one nearest to 0.5 is taken, the larger of two.
    """
    if not worth or min(worth) != 0 or max(worth) != 1:
        raise ConfigError(
            f"alpha grid {sorted(worth)}: it must run from 0 to 1 and hold both, the two parts alone, or the fused "
            "figure could fall below the better part without anybody seeing it"
        )
    curve = tuple(sorted(worth.items()))
    best = max(curve, key=lambda tried: (tried[1], -abs(tried[0] - 0.5), tried[0]))
    return AlphaChoice(alpha=best[0], curve=curve)
