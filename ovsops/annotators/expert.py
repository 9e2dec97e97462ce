"""The region expert: FG-CLIP 2's word on every box that a detector found. Axes: N boxes, C classes, D channels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor

from ovsops.annotators.annotation import ImagePresence, Rival
from ovsops.annotators.config import ExpertConfig, PresenceConfig
from ovsops.annotators.expert_text import ExpertText
from ovsops.backbones.detections import Detections
from ovsops.backbones.fgclip2 import FgClip2, FgClip2Image
from ovsops.backbones.fgclip2_scores import image_text_probabilities
from ovsops.masks.box_nms import box_iou, box_nms
from ovsops.regions.captions import RegionCaption, RegionCaptioner
from ovsops.regions.exclusive import ExclusiveConfig, resolve_exclusive
from ovsops.regions.presence import (
    PresenceGate,
    best_region_scores,
    gate_image,
    joined_similarity,
)
from ovsops.regions.reasons import (
    ABSENT,
    CONTESTED,
    DOUBLE,
    LOST_EXCLUSIVE,
    LOW_SCORE,
    NO_FEATURE,
    RENAMED,
)
from ovsops.regions.recalibrate import (
    Recalibrated,
    log_alignment,
    recalibrate,
    region_similarity,
    unchanged,
)
from ovsops.regions.verify import Verification, evidence_map, verify_regions


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


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertClasses:
    """What the expert knows of a vocabulary's classes beside their texts."""

    competing: Int64[Tensor, " C"]
    """Classes that compete share a number."""
    rivals: Bool[Tensor, "C C"]
    """Names that stand against each other when a label is verified."""
    names: tuple[str, ...]
    nouns: tuple[str, ...]
    """What captions begin with, in their language."""
    is_stuff: tuple[bool, ...]
    caption_language: str


class RegionExpert:
    """Names, scores and presence by FG-CLIP 2, joined with a detector's."""

    def __init__(
        self,
        config: ExpertConfig,
        text: ExpertText,
        model: FgClip2,
        *,
        classes: ExpertClasses,
        device: str,
    ) -> None:
        self.config, self.model, self.classes = config, model, classes
        self.text = text.to(device)
        self.captioner = (
            None
            if config.captions is None
            else RegionCaptioner(partial(model.encode_text, length="box"), config=config.captions)
        )

    def see(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[FgClip2Image]:
        """What the expert sees of each image; images do not depend on each other."""
        return self.model.encode_images(images, budget=self.config.max_patches)

    def judge(self, seen: FgClip2Image, found: Detections) -> JudgedBoxes:
        """Boxes with the expert's names and scores, doubles and what is not there removed."""
        similarity, is_empty = self._similarity(seen, found.boxes_xyxy)
        joined = self._joined(similarity, found)
        judged = JudgedBoxes(
            boxes_xyxy=found.boxes_xyxy,
            labels=joined.labels,
            scores=joined.scores,
            detector_scores=joined.detector_scores,
            alignment_scores=joined.alignment_scores,
            sources=torch.arange(len(found)),
            rivals=((),) * len(found),
            reasons=_reasons(joined.is_renamed, is_empty),
        )
        kept = box_nms(judged.boxes_xyxy, judged.scores, iou=self.config.nms_iou, groups=judged.labels)
        judged = judged.at(kept, reason=DOUBLE)
        if self.config.presence is not None:
            judged = self._gated(judged, self.config.presence, seen)
        return judged.at((judged.scores >= self.config.min_score).nonzero()[:, 0], reason=LOW_SCORE)

    def describe(
        self, seen: FgClip2Image, boxes_xyxy: Float[Tensor, "N 4"], labels: Int64[Tensor, " N"]
    ) -> list[RegionCaption] | None:
        """A caption of each box, from its class's noun; None where no captions are wanted."""
        config = self.config.captions
        if self.captioner is None or config is None:
            return None
        features, is_empty = self.model.region_features(seen, boxes_xyxy)
        words = [self.classes.nouns[label] for label in labels.tolist()]
        asked = [
            config.asked(self.classes.names[label], is_stuff=bool(self.classes.is_stuff[label]))
            for label in labels.tolist()
        ]
        return self.captioner.caption(
            features, is_empty, words, language=self.classes.caption_language, asked=asked
        )

    def verify(
        self, seen: FgClip2Image, boxes_xyxy: Float[Tensor, "N 4"], labels: Int64[Tensor, " N"]
    ) -> list[Verification] | None:
        """Whether each box is what its label says; None where nobody asks."""
        config = self.config.verify
        if config is None:
            return None
        similarity, is_empty = self._similarity(seen, boxes_xyxy)
        found = verify_regions(
            similarity, labels, is_empty, is_rival=self.classes.rivals[labels], config=config
        )
        if not config.evidence_side:
            return found
        return [
            each
            if empty
            else replace(
                each,
                evidence=evidence_map(seen, box, self.text.box[label], max_side=config.evidence_side),
            )
            for each, empty, box, label in zip(
                found, is_empty.tolist(), boxes_xyxy.tolist(), labels.tolist(), strict=True
            )
        ]

    def presence_evidence(
        self, seen: FgClip2Image, judged: JudgedBoxes, presence: PresenceConfig
    ) -> Float64[np.ndarray, "C 3"]:
        """What speaks for each class to be in the image, in the columns of `ovsops.regions.presence.EVIDENCE`."""
        image = image_text_probabilities(
            seen.pooled[None],
            self.text.short,
            logit_scale=self.model.logit_scale,
            logit_bias=self.model.logit_bias,
        )[0]
        joined = joined_similarity(
            seen.pooled, seen.dense_map, seen.attention, self.text.box, config=presence.similarity
        )
        region = best_region_scores(judged.scores, judged.labels, num_classes=len(self.text.class_ids))
        return torch.stack([image.cpu(), joined.cpu(), region.to(image.dtype)], dim=1).double().numpy()

    def _similarity(
        self, seen: FgClip2Image, boxes_xyxy: Float[Tensor, "N 4"]
    ) -> tuple[Float[Tensor, "N C"], Bool[Tensor, " N"]]:
        features, is_empty = self.model.region_features(seen, boxes_xyxy)
        return region_similarity(features, self.text.box).cpu(), is_empty.cpu()

    def _joined(self, similarity: Float[Tensor, "N C"], found: Detections) -> Recalibrated:
        config = self.config.recalibration
        if config is None:
            aligned = log_alignment(similarity, scale=100.0).exp().gather(1, found.labels[:, None])[:, 0]
            return unchanged(found.labels, found.scores, aligned.to(found.scores.dtype))
        return recalibrate(
            similarity, found.labels, found.scores, config=config, groups=self.classes.competing
        )

    def _gated(self, judged: JudgedBoxes, presence: PresenceConfig, seen: FgClip2Image) -> JudgedBoxes:
        """Without the boxes of absent classes, and with what was said of each class."""
        evidence = self.presence_evidence(seen, judged, presence)
        found = gate_image(
            presence.gate,
            evidence,
            judged.scores.double().numpy(),
            judged.labels.numpy(),
            keep=presence.keep,
            low=presence.low,
        )
        is_absent = presence_verdict_absent(presence.gate, found.chances)[judged.labels.numpy()]
        there = judged.at(torch.from_numpy((~is_absent).nonzero()[0]), reason=ABSENT)
        kept = there.at((there.scores >= presence.keep).nonzero()[:, 0], reason=LOW_SCORE)
        return replace(
            kept,
            presence=ImagePresence(
                scores=tuple(enumerate(found.chances.tolist())),
                verified_absent=tuple(found.is_verified_absent.nonzero()[0].tolist()),
                exhaustive=tuple(found.is_exhaustive.nonzero()[0].tolist()),
            ),
        )


def presence_verdict_absent(gate: PresenceGate, chances: Float64[np.ndarray, " C"]) -> Bool[np.ndarray, " C"]:
    """Which classes the gate calls absent."""
    return chances < gate.absent


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
