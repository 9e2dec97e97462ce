"""Is a class in an image at all? Evidence, a gate fitted on truth, verdicts. Axes: C classes, S samples, D, H W.

Open-vocabulary detectors fail most by finding what is not there (SAM 3, arXiv:2511.16719: IL_MCC 0.21 of LLMDet). So a
class is first asked of the whole image. Four kinds of evidence for each image and class:

    image    score of the global image-text pair (sigmoid of scale and bias of the checkpoint)
    global, spatial, attention    cosines of the text with the pooled image, with its patches, with the patches that the
             model attends to; `joined_similarity` weighs them 0.4, 0.4, 0.2
    region   the best fused score of a box of the class, 0 without one

`fit_gate` learns their weights by logistic regression and two thresholds: below `absent` a class is taken for absent
and loses its boxes, from `present` on it is present; between them it is undecided: its boxes stay, for review.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ConfigError, ShapeError

EVIDENCE = ("image", "joined", "region")
"""Columns of the evidence."""
ABSENT, UNDECIDED, PRESENT = 0, 1, 2
"""Verdicts."""


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig:
    """How the three similarities of an image and a text are joined."""

    global_weight: float = 0.4
    spatial_weight: float = 0.4
    attention_weight: float = 0.2
    spatial: Literal["mean", "top"] = "top"
    """Mean over all patches, or over the best `top_share` of them: a small thing is lost in the mean of an image."""
    top_share: float = 0.05
    """At least one patch."""

    def __post_init__(self) -> None:
        weights = (self.global_weight, self.spatial_weight, self.attention_weight)
        if not all(weight >= 0 for weight in weights) or not abs(sum(weights) - 1) < 1e-6:
            raise ConfigError(f"presence similarity: weights {weights} are not negative and sum to 1")
        if not 0 < self.top_share <= 1:
            raise ConfigError(f"presence similarity: top_share = {self.top_share}: a share in (0, 1]")


def joined_similarity(
    image_feature: Float[Tensor, " D"],
    patch_tokens: Float[Tensor, "H W D"],
    attention: Float[Tensor, "H W"],
    text_features: Float[Tensor, "C D"],
    *,
    config: SimilarityConfig | None = None,
) -> Float[Tensor, " C"]:
    """Weighted sum of the three cosines of an image with each text, in [-1, 1].

    `attention` is what the pooled image looks at, not negative; where it is zero everywhere all patches count the same.
    """
    config = config or SimilarityConfig()
    if not (attention >= 0).all():
        raise ShapeError("attention of patches that is negative or nan: give the weights after the softmax")
    texts = F.normalize(text_features.float(), dim=-1)
    patches = F.normalize(patch_tokens.float(), dim=-1).flatten(0, 1)
    cosines = patches @ texts.T  # HW C
    weights = attention.float().flatten()
    total = weights.sum()
    weights = weights / total if total > 0 else torch.full_like(weights, 1 / weights.numel())
    attended = F.normalize(weights @ patches, dim=-1) @ texts.T
    whole = F.normalize(image_feature.float(), dim=-1) @ texts.T
    num_top = max(1, round(config.top_share * len(cosines)))
    spatial = (
        cosines.mean(dim=0) if config.spatial == "mean" else cosines.topk(num_top, dim=0).values.mean(dim=0)
    )
    return (
        config.global_weight * whole + config.spatial_weight * spatial + config.attention_weight * attended
    ).to(image_feature.dtype)


def best_region_scores(
    scores: Float[Tensor, " N"], labels: Int64[Tensor, " N"], *, num_classes: int
) -> Float[Tensor, " C"]:
    """Highest score of a box of each class; 0 for a class without one."""
    return scores.new_zeros(num_classes).scatter_reduce(0, labels, scores, reduce="amax", include_self=True)


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """How a gate is fitted."""

    ridge: float = 1.0
    """Weight of half the squared norm of the weights (not of the bias), in samples."""
    max_missed: float = 0.05
    """Largest share of present classes among those that it calls absent, on the split of the fit."""

    def __post_init__(self) -> None:
        if not self.ridge > 0 or not 0 <= self.max_missed < 1:
            raise ConfigError(f"{self}: ridge is positive, max_missed a share in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class PresenceGate:
    """Chance that a class is in an image, from evidence; and from where on it is believed."""

    names: tuple[str, ...]
    """Of the columns of evidence."""
    weights: tuple[float, ...]
    bias: float
    absent: float
    """Classes below are verified absent; 0 calls none absent."""
    present: float
    """Classes from here on are present; of the fit's split it has the highest MCC."""

    def __post_init__(self) -> None:
        if len(self.names) != len(self.weights) or not 0 <= self.absent <= self.present <= 1:
            raise ConfigError(
                f"presence gate of {len(self.names)} names, {len(self.weights)} weights, absent {self.absent},"
                f" present {self.present}: one weight a name, and 0 <= absent <= present <= 1"
            )

    def chances(self, evidence: Float64[np.ndarray, "S E"]) -> Float64[np.ndarray, " S"]:
        """Chance of each class to be in its image."""
        _check_evidence(evidence, len(self.names))
        return 1 / (1 + np.exp(-(evidence @ np.array(self.weights) + self.bias)))

    def verdicts(self, chances: Float64[np.ndarray, " S"]) -> Int64[np.ndarray, " S"]:
        """ABSENT, UNDECIDED or PRESENT."""
        return np.where(chances >= self.present, PRESENT, np.where(chances < self.absent, ABSENT, UNDECIDED))


def fit_gate(
    evidence: Float64[np.ndarray, "S E"],
    is_present: Bool[np.ndarray, " S"],
    *,
    names: tuple[str, ...] = EVIDENCE,
    config: GateConfig | None = None,
) -> PresenceGate:
    """Penalised logistic regression on standardised evidence, then both thresholds.

    Raises `ConfigError` where the split has only present or only absent classes. Both thresholds are chosen on this
    split: measure IL_MCC on other images.
    """
    config = config or GateConfig()
    _check_evidence(evidence, len(names))
    if not 0 < int(is_present.sum()) < len(is_present):
        raise ConfigError(
            f"presence gate: {int(is_present.sum())} of {len(is_present)} classes are present;"
            " ask for absent ones, too"
        )
    mean, deviation = evidence.mean(axis=0), evidence.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    design = np.concatenate([(evidence - mean) / scale, np.ones((len(evidence), 1))], axis=1)
    fitted = _logistic(design, is_present.astype(np.float64), config.ridge)
    weights = fitted[:-1] / scale
    bias = float(fitted[-1] - weights @ mean)
    chances = 1 / (1 + np.exp(-(evidence @ weights + bias)))
    present = _threshold_of_best_mcc(chances, is_present)
    absent = min(_threshold_of_absence(chances, is_present, config.max_missed), present)
    return PresenceGate(
        names=names, weights=tuple(weights.tolist()), bias=bias, absent=absent, present=present
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagePresence:
    """What is said of the classes of one image."""

    chances: Float64[np.ndarray, " C"]
    verdicts: Int64[np.ndarray, " C"]
    is_verified_absent: Bool[np.ndarray, " C"]
    """Absent, and without a box from `low` on: negatives that one may train on."""
    is_exhaustive: Bool[np.ndarray, " C"]
    """All its objects are believed found: verified absent, or present with a kept box from `sure` on and none from
    `low` to `sure`."""
    is_kept: Bool[np.ndarray, " N"]
    """Boxes that stay: at least `keep`, of a class that is not absent."""


def gate_image(
    gate: PresenceGate,
    evidence: Float64[np.ndarray, "C E"],
    scores: Float64[np.ndarray, " N"],
    labels: Int64[np.ndarray, " N"],
    *,
    keep: float,
    low: float,
    sure: float,
) -> ImagePresence:
    """Verdicts on the classes of an image and what they mean for its boxes, which go down to the score `low`.

    An absent class loses its boxes, but it is verified absent only if it had none, not even a weak one: where two
    witnesses disagree nobody should train on the one.
    """
    if not 0 <= low <= min(keep, sure) <= max(keep, sure) <= 1:
        raise ConfigError(f"presence: low = {low}, keep = {keep}, sure = {sure}: 0 <= low <= keep, sure <= 1")
    num_classes = len(evidence)
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ShapeError(f"labels {np.unique(labels)[:5].tolist()}... with evidence on {num_classes} classes")
    chances = gate.chances(evidence)
    verdicts = gate.verdicts(chances)
    is_kept = (scores >= keep) & (verdicts != ABSENT)[labels]
    is_sure, is_weak = is_kept & (scores >= sure), (scores >= low) & (scores < sure)
    has_sure, has_weak, has_any = (
        np.bincount(labels[chosen], minlength=num_classes) > 0 for chosen in (is_sure, is_weak, scores >= low)
    )
    is_verified_absent = (verdicts == ABSENT) & ~has_any
    return ImagePresence(
        chances=chances,
        verdicts=verdicts,
        is_verified_absent=is_verified_absent,
        is_exhaustive=is_verified_absent | ((verdicts == PRESENT) & has_sure & ~has_weak),
        is_kept=is_kept,
    )


def _logistic(
    design: Float64[np.ndarray, "S K"], target: Float64[np.ndarray, " S"], ridge: float
) -> Float64[np.ndarray, " K"]:
    """Newton's method with halved steps; the loss is convex and the ridge keeps the minimum finite."""
    penalty = np.append(np.full(design.shape[1] - 1, ridge), 1e-9)

    def loss(weights: Float64[np.ndarray, " K"]) -> float:
        logits = design @ weights
        return float(np.logaddexp(0, logits).sum() - target @ logits + (penalty * weights**2).sum() / 2)

    weights = np.zeros(design.shape[1])
    for _ in range(100):
        chance = 1 / (1 + np.exp(-(design @ weights)))
        gradient = design.T @ (chance - target) + penalty * weights
        hessian = (design.T * (chance * (1 - chance))) @ design + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while loss(weights - size * step) > loss(weights) and size > 1e-10:
            size /= 2
        weights = weights - size * step
        if float(np.abs(gradient).max()) < 1e-9 * len(design):
            break
    return weights


def _threshold_of_best_mcc(chances: Float64[np.ndarray, " S"], is_present: Bool[np.ndarray, " S"]) -> float:
    """The chance from which on classes are called present for the highest MCC; midway between two samples."""
    order = np.argsort(-chances, kind="stable")
    ranked, truth = chances[order], is_present[order]
    hits, called = np.cumsum(truth), np.arange(1, len(truth) + 1)
    num, num_true = len(truth), int(truth.sum())
    below = np.maximum(called * (num - called), 1) * num_true * (num - num_true)
    mcc = (hits * num - called * num_true) / np.sqrt(below.astype(np.float64))
    mcc[:-1][ranked[:-1] == ranked[1:]] = -np.inf  # equal chances cannot be parted
    place = int(mcc.argmax())
    return float(ranked[place] if place + 1 == num else (ranked[place] + ranked[place + 1]) / 2)


def _threshold_of_absence(
    chances: Float64[np.ndarray, " S"], is_present: Bool[np.ndarray, " S"], max_missed: float
) -> float:
    """The highest chance below which at most `max_missed` of the classes are present; 0 where there is none."""
    order = np.argsort(chances, kind="stable")
    ranked, truth = chances[order], is_present[order]
    missed = np.cumsum(truth) / np.arange(1, len(truth) + 1)
    can_part = np.append(ranked[:-1] < ranked[1:], True)
    places = ((missed <= max_missed) & can_part).nonzero()[0]
    if len(places) == 0:
        return 0.0
    last = int(places[-1])
    return float(1.0 if last + 1 == len(ranked) else (ranked[last] + ranked[last + 1]) / 2)


def _check_evidence(evidence: Float64[np.ndarray, "S E"], num_names: int) -> None:
    if evidence.shape[1] != num_names or not np.isfinite(evidence).all():
        raise ShapeError(
            f"evidence of shape {evidence.shape} for {num_names} columns, or not finite:"
            " every class of every image needs a number in each column (0 without a box)"
        )
