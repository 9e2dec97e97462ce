"""From a detector's boxes and what the expert saw of them to named, scored, gated boxes. No model runs here.

What the expert saw is looked up once; everything that depends on a number of the config is below, so that numbers can
be fitted without running it again. Axes: N boxes, C classes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from ovsops.annotators.annotation import ImagePresence, Rival
from ovsops.annotators.config import ExpertConfig, PresenceConfig
from ovsops.backbones.detections import Detections
from ovsops.masks.box_nms import box_iou, box_nms
from ovsops.regions.exclusive import ExclusiveConfig, resolve_exclusive
from ovsops.regions.presence import ABSENT as CLASS_ABSENT
from ovsops.regions.presence import best_region_scores, gate_image
from ovsops.regions.reasons import (
    ABSENT,
    CONTESTED,
    DOUBLE,
    LOST_EXCLUSIVE,
    LOW_SCORE,
    NO_FEATURE,
    RENAMED,
)
from ovsops.regions.recalibrate import Recalibrated, log_alignment, recalibrate, unchanged

PLAIN_SCALE = 100.0
"""Factor of cosines before the softmax where nothing is joined and the alignment is only written down."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertLook:
    """What the expert sees of an image and of the boxes in it."""

    similarity: Float[Tensor, "N C"]
    """Cosine of each box with each class."""
    is_empty: Bool[Tensor, " N"]
    """Boxes without area on the expert's grid."""
    image_scores: Float[Tensor, " C"]
    """Score of the whole image with each class."""
    joined: Float[Tensor, " C"]
    """Whole image, patches and attention joined."""


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedBoxes:
    """Boxes of one image with every opinion on them, best score first."""

    boxes_xyxy: Float[Tensor, "N 4"]
    labels: Int64[Tensor, " N"]
    """Places of classes, from 0."""
    scores: Float[Tensor, " N"]
    detector_scores: Float[Tensor, " N"]
    alignment_scores: Float[Tensor, " N"] | None
    sources: Int64[Tensor, " N"]
    """Place of each box among the detections that came in."""
    rivals: tuple[tuple[Rival, ...], ...]
    reasons: tuple[tuple[str, ...], ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
    presence: ImagePresence = field(default_factory=ImagePresence)

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, places: Int64[Tensor, " K"], *, reason: str = "") -> "JudgedBoxes":
        """Those at `places`, in that order; how many are left out is counted under `reason`."""
        chosen = places.tolist()
        gone = {reason: len(self) - len(chosen)} if reason and len(chosen) < len(self) else {}
        alignment = self.alignment_scores
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[places],
            labels=self.labels[places],
            scores=self.scores[places],
            detector_scores=self.detector_scores[places],
            alignment_scores=None if alignment is None else alignment[places],
            sources=self.sources[places],
            rivals=tuple(self.rivals[i] for i in chosen),
            reasons=tuple(self.reasons[i] for i in chosen),
            dropped=dict(Counter(self.dropped) + Counter(gone)),
        )


def unjudged(found: Detections) -> JudgedBoxes:
    """The detector's word alone, labels as they are."""
    return JudgedBoxes(
        boxes_xyxy=found.boxes_xyxy,
        labels=found.labels,
        scores=found.scores,
        detector_scores=found.scores,
        alignment_scores=None,
        sources=torch.arange(len(found)),
        rivals=((),) * len(found),
        reasons=((),) * len(found),
    )


def judge_boxes(
    look: ExpertLook, found: Detections, config: ExpertConfig, *, competing: Int64[Tensor, " C"]
) -> JudgedBoxes:
    """Boxes with names and scores of both, doubles and what is not there removed; what goes is counted."""
    joined = _joined(look.similarity, found, config, competing)
    judged = JudgedBoxes(
        boxes_xyxy=found.boxes_xyxy,
        labels=joined.labels,
        scores=joined.scores,
        detector_scores=joined.detector_scores,
        alignment_scores=joined.alignment_scores,
        sources=torch.arange(len(found)),
        rivals=((),) * len(found),
        reasons=_reasons(joined.is_renamed, look.is_empty),
    )
    kept = box_nms(judged.boxes_xyxy, judged.scores, iou=config.nms_iou, groups=judged.labels)
    judged = judged.at(kept, reason=DOUBLE)
    if config.presence is not None:
        judged = _gated(judged, config.presence, look)
    return judged.at((judged.scores >= config.min_score).nonzero()[:, 0], reason=LOW_SCORE)


def presence_evidence(look: ExpertLook, judged: JudgedBoxes) -> Float64[np.ndarray, "C 3"]:
    """What speaks for each class to be in the image, in the columns of `ovsops.regions.presence.EVIDENCE`."""
    region = best_region_scores(judged.scores, judged.labels, num_classes=len(look.joined))
    return torch.stack([look.image_scores, look.joined, region.float()], dim=1).double().numpy()


def _joined(
    similarity: Float[Tensor, "N C"],
    found: Detections,
    config: ExpertConfig,
    competing: Int64[Tensor, " C"],
) -> Recalibrated:
    if config.recalibration is None:
        aligned = log_alignment(similarity, scale=PLAIN_SCALE).exp().gather(1, found.labels[:, None])[:, 0]
        return unchanged(found.labels, found.scores, aligned.to(found.scores.dtype))
    return recalibrate(similarity, found.labels, found.scores, config=config.recalibration, groups=competing)


def _gated(judged: JudgedBoxes, presence: PresenceConfig, look: ExpertLook) -> JudgedBoxes:
    """Without the boxes of absent classes, and with what was said of each class."""
    found = gate_image(
        presence.gate,
        presence_evidence(look, judged),
        judged.scores.double().numpy(),
        judged.labels.numpy(),
        keep=presence.keep,
        low=presence.low,
        sure=presence.sure,
    )
    is_absent = torch.from_numpy(found.verdicts == CLASS_ABSENT)[judged.labels]
    there = judged.at((~is_absent).nonzero()[:, 0], reason=ABSENT)
    kept = there.at((there.scores >= presence.keep).nonzero()[:, 0], reason=LOW_SCORE)
    return replace(
        kept,
        presence=ImagePresence(
            scores=tuple(enumerate(found.chances.tolist())),
            verified_absent=tuple(found.is_verified_absent.nonzero()[0].tolist()),
            exhaustive=tuple(found.is_exhaustive.nonzero()[0].tolist()),
        ),
    )


def without_losers(
    judged: JudgedBoxes, groups: Sequence[Int64[Tensor, " C"]], config: ExclusiveConfig
) -> JudgedBoxes:
    """Of names that exclude each other on one thing, the best; the others become its rivals."""
    for group in groups:
        if len(judged) < 2:
            break
        ious = box_iou(judged.boxes_xyxy, judged.boxes_xyxy)
        resolved = resolve_exclusive(judged.scores, judged.labels, ious, group, config=config)
        rivals, reasons = list(judged.rivals), list(judged.reasons)
        for loser in (~resolved.is_kept).nonzero()[:, 0].tolist():
            winner = int(resolved.winner[loser])
            lost = Rival(label=int(judged.labels[loser]), score=float(judged.scores[loser]))
            rivals[winner] = (*rivals[winner], lost)
        for winner in resolved.is_contested.nonzero()[:, 0].tolist():
            reasons[winner] = (*reasons[winner], CONTESTED)
        judged = replace(judged, rivals=tuple(rivals), reasons=tuple(reasons))
        judged = judged.at(resolved.is_kept.nonzero()[:, 0], reason=LOST_EXCLUSIVE)
    return judged


def _reasons(is_renamed: Bool[Tensor, " N"], is_empty: Bool[Tensor, " N"]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(code for code, holds in ((NO_FEATURE, empty), (RENAMED, renamed)) if holds)
        for renamed, empty in zip(is_renamed.tolist(), is_empty.tolist(), strict=True)
    )
