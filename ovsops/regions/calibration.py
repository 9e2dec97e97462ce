"""Scores that mean what they say: calibrators by group of classes, bound to their models. Axes: N samples, K knots.

Fitted after training on boxes whose truth is known, from ground truth or audits (for detection, post-hoc isotonic
regression beats methods that calibrate while training: Kuzucu et al., arXiv:2405.20459). Two kinds of map:

    isotonic     the best rising step function (Zadrozny and Elkan 2002; pool adjacent violators), joined by lines
    temperature  sigmoid(logit(score) / temperature + bias) (Platt 1999)

A group with few samples is drawn towards the map of all: (n * own + prior * all) / (n + prior), rising as both are. A
calibrator remembers the fingerprint of the models it was fitted on and refuses scores of others.

Not promised: that chances hold on other images, or that scores part right from wrong any better; order inside a group
never turns, but isotonic maps tie scores that could be told apart.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from scipy.optimize import isotonic_regression

from ovsops.errors import CheckpointError, ConfigError, ShapeError
from ovsops.metrics.calibration import fit_sigmoid

VERSION = 1
"""Of the file format."""
_EDGE = 1e-6
"""Scores are kept this far from 0 and 1 before a logit is taken."""

Kind = Literal["isotonic", "temperature"]


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """How calibrators are fitted."""

    kind: Kind = "isotonic"
    min_samples: int = 50
    """A group with fewer samples, or without both right and wrong ones, gets the map of all groups."""
    prior_samples: float = 50.0
    """How many samples the map of all weighs beside a group's own; 0 trusts the group alone."""

    def __post_init__(self) -> None:
        if self.min_samples < 1 or not 0 <= self.prior_samples < math.inf:
            raise ConfigError(f"{self}: min_samples is at least 1, prior_samples a finite number >= 0")


@dataclass(frozen=True, kw_only=True)
class ScoreMap:
    """One rising map of scores, as knots joined by lines; level beyond the ends."""

    scores: tuple[float, ...]
    chances: tuple[float, ...]
    num_samples: int
    """Samples of the group itself; 0 where the map is that of all groups."""

    def __post_init__(self) -> None:
        rises = all(a < b for a, b in zip(self.scores, self.scores[1:], strict=False))
        never_falls = all(a <= b for a, b in zip(self.chances, self.chances[1:], strict=False))
        inside = all(0 <= value <= 1 for value in (*self.scores, *self.chances))
        if len(self.scores) != len(self.chances) or not self.scores or not (rises and never_falls and inside):
            raise ConfigError(
                f"score map of {len(self.scores)} scores and {len(self.chances)} chances:"
                " as many of both are wanted, in [0, 1], rising"
            )

    def __call__(self, scores: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
        """The chance of each score."""
        return np.interp(scores, self.scores, self.chances)


@dataclass(frozen=True, kw_only=True)
class ScoreCalibrator:
    """Maps of all groups of classes, and what they hold for."""

    fingerprint: str
    """Digest of detector, region classifier and recalibration settings whose scores these maps were fitted on."""
    kind: Kind
    source: str
    """What was right and wrong according to: `truth`, or the name of an audit."""
    pooled: ScoreMap
    by_group: Mapping[int, ScoreMap]

    def calibrated(
        self, scores: Float64[np.ndarray, " N"], groups: Int64[np.ndarray, " N"], *, fingerprint: str
    ) -> Float64[np.ndarray, " N"]:
        """Chance of each to be right. A group that was not fitted gets the map of all.

        Raises `CheckpointError` where the scores come from other models than those of the fit.
        """
        if fingerprint != self.fingerprint:
            raise CheckpointError(
                f"calibrator fitted on {self.fingerprint}, scores of {fingerprint}: fit it again on the models"
                " in use, or write uncalibrated scores"
            )
        _check_scores(scores)
        chances = np.empty(len(scores))
        for group in np.unique(groups).tolist():
            mine = groups == group
            chances[mine] = self.by_group.get(group, self.pooled)(scores[mine])
        return chances

    def to_json(self) -> dict[str, Any]:
        """For a file; `from_json` reads it back to the same bits."""
        return {
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "kind": self.kind,
            "source": self.source,
            "pooled": _to_json(self.pooled),
            "by_group": {str(group): _to_json(found) for group, found in sorted(self.by_group.items())},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ScoreCalibrator":
        """Raises `CheckpointError` for another version and for what is no calibrator."""
        if data.get("version") != VERSION:
            raise CheckpointError(
                f"calibrator of version {data.get('version')!r}, this code reads {VERSION}: fit it again"
            )
        try:
            return cls(
                fingerprint=data["fingerprint"],
                kind=data["kind"],
                source=data["source"],
                pooled=_from_json(data["pooled"]),
                by_group={int(group): _from_json(found) for group, found in data["by_group"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"calibrator that cannot be read ({error!r}): fit it again") from error


def fit_calibrator(
    scores: Float64[np.ndarray, " N"],
    is_right: Bool[np.ndarray, " N"],
    groups: Int64[np.ndarray, " N"],
    *,
    fingerprint: str,
    source: str = "truth",
    config: CalibrationConfig | None = None,
    weights: Float64[np.ndarray, " N"] | None = None,
) -> ScoreCalibrator:
    """Fit one map on all samples and one on each group that has enough of them.

    `weights` say how many boxes of a run each sample stands for, where a sample was drawn unequally (an audit); only
    isotonic maps take them.

    Raises `ConfigError` where the samples of all groups together do not suffice or no sample is right (wrong).
    """
    config = config or CalibrationConfig()
    _check_scores(scores)
    if not _suffice(is_right, config):
        raise ConfigError(
            f"{len(scores)} samples, {int(is_right.sum())} right: a calibrator needs {config.min_samples}"
            " with both right and wrong ones; take more images of known boxes, or audit more"
        )
    if weights is not None and config.kind != "isotonic":
        raise ConfigError(f"calibration.kind is {config.kind}: samples with weights need isotonic")
    weighed = np.ones(len(scores)) if weights is None else weights
    pooled = _fitted(scores, is_right, weighed, config.kind)
    by_group = {}
    for group in np.unique(groups).tolist():
        mine = groups == group
        if _suffice(is_right[mine], config):
            own = _fitted(scores[mine], is_right[mine], weighed[mine], config.kind)
            by_group[group] = _drawn_to(own, pooled, config.prior_samples)
    return ScoreCalibrator(
        fingerprint=fingerprint, kind=config.kind, source=source, pooled=pooled, by_group=by_group
    )


def _fitted(
    scores: Float64[np.ndarray, " N"],
    is_right: Bool[np.ndarray, " N"],
    weights: Float64[np.ndarray, " N"],
    kind: Kind,
) -> ScoreMap:
    if kind == "isotonic":
        knots, chances = _isotonic(scores, is_right, weights)
    else:
        logits = _logits(scores)
        fit = fit_sigmoid(torch.from_numpy(logits), torch.from_numpy(is_right))
        # Dense knots in logits keep the curve within 1e-4 of the sigmoid.
        places = np.linspace(_logits(np.zeros(1))[0], _logits(np.ones(1))[0], 1025)
        knots, chances = (1 / (1 + np.exp(-x)) for x in (places, places / fit.temperature + fit.bias))
        chances = np.maximum.accumulate(chances)
    return ScoreMap(scores=tuple(knots.tolist()), chances=tuple(chances.tolist()), num_samples=len(scores))


def _isotonic(
    scores: Float64[np.ndarray, " N"],
    is_right: Bool[np.ndarray, " N"],
    own_weights: Float64[np.ndarray, " N"],
) -> tuple[Float64[np.ndarray, " K"], Float64[np.ndarray, " K"]]:
    """Both ends of every step; equal scores are one sample with their weight."""
    values, members = np.unique(scores, return_inverse=True)
    weights = np.bincount(members, weights=own_weights)
    shares = np.bincount(members, weights=own_weights * is_right) / weights
    steps = isotonic_regression(shares, weights=weights).x.clip(0, 1)
    is_end = np.ones(len(values), bool)
    is_end[1:-1] = (steps[1:-1] != steps[:-2]) | (steps[1:-1] != steps[2:])
    return values[is_end], np.maximum.accumulate(steps[is_end])


def _drawn_to(own: ScoreMap, pooled: ScoreMap, prior: float) -> ScoreMap:
    """Weighted mean of two maps, at the knots of both: between them both are straight, so it is exact."""
    knots = np.union1d(own.scores, pooled.scores)
    chances = (own.num_samples * own(knots) + prior * pooled(knots)) / (own.num_samples + prior)
    return ScoreMap(
        scores=tuple(knots.tolist()),
        chances=tuple(np.maximum.accumulate(chances.clip(0, 1)).tolist()),
        num_samples=own.num_samples,
    )


def _suffice(is_right: Bool[np.ndarray, " N"], config: CalibrationConfig) -> bool:
    return len(is_right) >= config.min_samples and 0 < int(is_right.sum()) < len(is_right)


def _logits(scores: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    inside = scores.clip(_EDGE, 1 - _EDGE)
    return np.log(inside / (1 - inside))


def _check_scores(scores: Float64[np.ndarray, " N"]) -> None:
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ShapeError(
            "scores outside [0, 1] or nan: calibration is about scores, put logits through a sigmoid"
        )


def _to_json(found: ScoreMap) -> dict[str, Any]:
    return {"scores": list(found.scores), "chances": list(found.chances), "num_samples": found.num_samples}


def _from_json(data: Mapping[str, Any]) -> ScoreMap:
    return ScoreMap(
        scores=tuple(data["scores"]), chances=tuple(data["chances"]), num_samples=data["num_samples"]
    )
