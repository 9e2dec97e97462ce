"""A detector's scores recalibrated with a region classifier. Axes: N boxes, C names, D channels.

FG-CLIP 2 (arXiv:2510.10921, section 4.2.3 and appendix B) takes the softmax of a region's cosines with all names and
multiplies it with the detector's confidence, both under a root. With D the detector's scores, P the softmax at `scale`:

    keep        score = D[own] ** alpha * P[own] ** beta                 the label stays
    global      label, score = argmax, max over all c of D ** alpha * P ** beta
    competing   as global, but softmax and argmax run only over the names that compete with the detector's own

Names compete that share a group: the same noun under other attributes. A detector is often the better expert of nouns
and blind to colours, so a softmax over all names gives away what it knows. Temperature and exponents are not published:
choose them by AP50 on images of known boxes (`ovsops fit`), which also says when to leave the detector alone.

Roots lift scores (0.25 ** 0.5 = 0.5), and a softmax over many synonyms is small: set thresholds after fusion.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ConfigError, ShapeError

Mode = Literal["keep", "global", "competing"]


@dataclass(frozen=True, kw_only=True)
class RecalibrationConfig:
    """How the two opinions are joined."""

    mode: Mode = "competing"
    alpha: float = 0.5
    """Exponent of the detector's score; alpha = beta = 0.5 is the published geometric mean."""
    beta: float = 0.5
    """Exponent of the alignment."""
    scale: float = 100.0
    """Factor of the cosines before the softmax (100 in the published box classification: a temperature of 0.01)."""
    ties: Literal["detector", "first"] = "detector"
    """Of equally good names: the detector's own if it is among them, else the first; or always the first (the plain
    argmax, which names every box by the first class where the alignment has no say)."""

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("beta", self.beta)):
            if not 0 <= value < float("inf"):
                raise ConfigError(f"recalibration.{name} = {value}: an exponent is a finite number >= 0")
        if not 0 < self.scale < float("inf"):
            raise ConfigError(f"recalibration.scale = {self.scale}: a finite number > 0, such as 100")
        if self.alpha == self.beta == 0:
            raise ConfigError("recalibration.alpha = beta = 0 gives every box the score 1: raise one of them")


@dataclass(frozen=True, kw_only=True, eq=False)
class Recalibrated:
    """What became of each box, and everything it was made from."""

    labels: Int64[Tensor, " N"]
    """The name after recalibration, as its place."""
    scores: Float[Tensor, " N"]
    """Fused."""
    detector_labels: Int64[Tensor, " N"]
    detector_scores: Float[Tensor, " N"]
    """The detector's score of its own label: raw."""
    label_scores: Float[Tensor, " N"]
    """The detector's score of the final label; differs from the raw one only where the label changed."""
    alignment_scores: Float[Tensor, " N"]
    """P of the final label."""
    is_renamed: Bool[Tensor, " N"]


def region_similarity(
    region_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"]
) -> Float[Tensor, "N C"]:
    """Cosines. A region without a feature (all zero) has cosine 0 with every name, so its alignment is even."""
    regions, texts = F.normalize(region_features.float(), dim=1), F.normalize(text_features.float(), dim=1)
    return regions @ texts.T


def competing_groups(nouns: Sequence[str]) -> Int64[Tensor, " C"]:
    """One number for all names of the same noun, counted in order of appearance; `nouns[c]` is the noun of name c."""
    places = {noun: place for place, noun in enumerate(dict.fromkeys(nouns))}
    return torch.tensor([places[noun] for noun in nouns], dtype=torch.int64)


def log_alignment(
    similarity: Float[Tensor, "N C"], *, scale: float, groups: Int64[Tensor, " C"] | None = None
) -> Float64[Tensor, "N C"]:
    """Log of the softmax over all names, or, with `groups`, over the names of each one's own group."""
    logits = similarity.double() * scale
    if groups is None or logits.numel() == 0:
        return logits.log_softmax(dim=1)
    _, members = groups.unique(return_inverse=True)
    num_groups = int(members.max()) + 1
    index = members.to(logits.device).expand_as(logits)
    highest = logits.new_full((len(logits), num_groups), -torch.inf)
    highest = highest.scatter_reduce(1, index, logits, reduce="amax")
    shifted = logits - highest.gather(1, index)
    sums = logits.new_zeros((len(logits), num_groups)).scatter_add(1, index, shifted.exp())
    return shifted - sums.log().gather(1, index)


def log_fused(
    detector: Float[Tensor, "N C"], log_aligned: Float64[Tensor, "N C"], *, alpha: float, beta: float
) -> Float64[Tensor, "N C"]:
    """Log of D ** alpha * P ** beta, with 0 ** 0 = 1: an expert with exponent 0 is not heard, whatever it says."""
    zero = torch.zeros_like(log_aligned)
    return (alpha * detector.double().log() if alpha > 0 else zero) + (
        beta * log_aligned if beta > 0 else zero
    )


def fused_scores(
    detector: Float[Tensor, "N C"],
    similarity: Float[Tensor, "N C"],
    *,
    config: RecalibrationConfig,
    groups: Int64[Tensor, " C"] | None = None,
) -> Float[Tensor, "N C"]:
    """The fused score of every box under every name, for those who keep several names a box."""
    aligned = log_alignment(similarity, scale=config.scale, groups=_groups_of(config, groups))
    return log_fused(detector, aligned, alpha=config.alpha, beta=config.beta).exp().to(similarity.dtype)


def recalibrate(
    similarity: Float[Tensor, "N C"],
    detector_labels: Int64[Tensor, " N"],
    detector_scores: Float[Tensor, " N"],
    *,
    config: RecalibrationConfig,
    groups: Int64[Tensor, " C"] | None = None,
    scores_by_name: Float[Tensor, "N C"] | None = None,
) -> Recalibrated:
    """Names and scores of boxes after both have spoken.

    `scores_by_name` are the detector's scores of every name; without them its one score stands for all candidates. A
    box that it found several times under competing names may get the same name each time: suppress boxes afterwards.
    Raises `ShapeError` for values that are no scores, cosines or places, `ConfigError` for competing without groups.
    """
    _check(similarity, detector_labels, detector_scores, scores_by_name)
    groups = _groups_of(config, groups)
    aligned = log_alignment(similarity, scale=config.scale, groups=groups)
    detector = detector_scores[:, None].expand_as(similarity) if scores_by_name is None else scores_by_name
    if scores_by_name is not None and config.mode == "keep":
        # The label is the detector's, and so is the score that came with it.
        detector = detector.scatter(1, detector_labels[:, None], detector_scores[:, None].to(detector.dtype))
    fused = log_fused(detector, aligned, alpha=config.alpha, beta=config.beta)
    labels = _chosen(fused, detector_labels, config, groups)

    def of_label(values: Float[Tensor, "N C"]) -> Float[Tensor, " N"]:
        return values.gather(1, labels[:, None])[:, 0].to(detector_scores.dtype)

    return Recalibrated(
        labels=labels,
        scores=of_label(fused.exp()),
        detector_labels=detector_labels,
        detector_scores=detector_scores,
        label_scores=of_label(detector),
        alignment_scores=of_label(aligned.exp()),
        is_renamed=labels != detector_labels,
    )


def unchanged(
    detector_labels: Int64[Tensor, " N"],
    detector_scores: Float[Tensor, " N"],
    alignment_scores: Float[Tensor, " N"],
) -> Recalibrated:
    """The detector's own word, where recalibration was refused; the alignment is kept beside it."""
    return Recalibrated(
        labels=detector_labels,
        scores=detector_scores,
        detector_labels=detector_labels,
        detector_scores=detector_scores,
        label_scores=detector_scores,
        alignment_scores=alignment_scores,
        is_renamed=torch.zeros_like(detector_labels, dtype=torch.bool),
    )


def _chosen(
    fused: Float64[Tensor, "N C"],
    own: Int64[Tensor, " N"],
    config: RecalibrationConfig,
    groups: Int64[Tensor, " C"] | None,
) -> Int64[Tensor, " N"]:
    if config.mode == "keep" or len(own) == 0:
        return own.clone()
    is_candidate = (
        torch.ones_like(fused, dtype=torch.bool) if groups is None else groups[own][:, None] == groups[None]
    )
    best = fused.masked_fill(~is_candidate, -torch.inf).amax(dim=1, keepdim=True)
    is_best = (fused == best) & is_candidate  # all candidates where all have score 0
    first = is_best.int().argmax(dim=1)
    if config.ties == "first":
        return first
    return torch.where(is_best.gather(1, own[:, None])[:, 0], own, first)


def _groups_of(config: RecalibrationConfig, groups: Int64[Tensor, " C"] | None) -> Int64[Tensor, " C"] | None:
    if config.mode != "competing":
        return None
    if groups is None:
        raise ConfigError(
            "recalibration.mode = competing needs the group of every name (competing_groups of their nouns);"
            " without groups use global or keep"
        )
    return groups


def _check(
    similarity: Float[Tensor, "N C"],
    labels: Int64[Tensor, " N"],
    scores: Float[Tensor, " N"],
    scores_by_name: Float[Tensor, "N C"] | None,
) -> None:
    num_names = similarity.shape[1]
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_names:
        raise ShapeError(
            f"detector labels {labels.unique()[:5].tolist()}... with {num_names} names:"
            f" labels are places in 0..{num_names - 1}"
        )
    for what, values in (("detector scores", scores), ("detector scores by name", scores_by_name)):
        if values is not None and not ((values >= 0) & (values <= 1)).all():
            raise ShapeError(f"{what} outside [0, 1] or nan: put logits through a sigmoid first")
    if not (similarity.abs() <= 1 + 1e-3).all():
        raise ShapeError(
            "similarities outside [-1, 1] or nan: they are cosines, not logits; use region_similarity"
        )
