"""Segmenter, detector and expert over a batch of images, in the order in which each needs the other.

image ─► segment ─► detect (model, or connected things) ─► judge (expert) ─► exclusive names ─► describe ─► calibrate
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from ovsops.annotators.annotation import Annotation, FoundBox, ImagePresence
from ovsops.annotators.calibrated import BoxCalibrator
from ovsops.annotators.captioner import BoxCaptioner
from ovsops.annotators.expert import RegionExpert
from ovsops.annotators.judging import JudgedBoxes, unjudged, without_losers
from ovsops.annotators.names import ClassPrompt
from ovsops.backbones.detections import Detections
from ovsops.masks.class_map import ClassMap
from ovsops.masks.rle import Rle
from ovsops.regions.box_masks import BoxPrompter
from ovsops.regions.exclusive import ExclusiveConfig
from ovsops.regions.reasons import NO_MASK
from ovsops.regions.said import RegionCaption
from ovsops.regions.verdicts import Verification
from ovsops.segmenters.segmenter import Segmenter

Pixels = UInt8[np.ndarray, "_ _ 3"]
"""An RGB image, EXIF-applied."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a detector says of one image."""

    detections: Detections
    """Labels are places of classes in the vocabulary, from 0."""
    prompts: tuple[ClassPrompt, ...]
    """The words that found each."""
    masks: tuple[Rle, ...] | None = None
    """Of a detector that draws them."""
    presence: ImagePresence = field(default_factory=ImagePresence)


@runtime_checkable
class BoxFinder(Protocol):
    """What finds things with boxes; class maps are at hand where there is a segmenter."""

    def find(self, images: Sequence[Pixels], class_maps: Sequence[ClassMap | None]) -> list[Found]:
        """The things of each image, in order; an image's do not depend on the others."""


@runtime_checkable
class MapsAndBoxes(Protocol):
    """What gives class maps and boxes from one look at an image."""

    def segment_and_find(self, images: Sequence[Pixels]) -> list[tuple[ClassMap, Found]]:
        """Both, for each image, in order."""


class Annotator:
    """Everything that is said of images. What is said of one does not depend on its batch."""

    def __init__(
        self,
        *,
        segmenter: Segmenter | None = None,
        finder: BoxFinder | MapsAndBoxes | None = None,
        prompter: BoxPrompter | None = None,
        expert: RegionExpert | None = None,
        captioner: BoxCaptioner | None = None,
        other: Segmenter | None = None,
        exclusive: tuple[Sequence[Int64[Tensor, " C"]], ExclusiveConfig] = ((), ExclusiveConfig()),
        calibrator: BoxCalibrator | None = None,
        first_prompts: Sequence[ClassPrompt] = (),
    ) -> None:
        self.segmenter, self.finder, self.expert, self.other = segmenter, finder, expert, other
        self.prompter, self.captioner = prompter, captioner
        self.exclusive, self.exclusive_config = exclusive
        self.calibrator, self.first_prompts = calibrator, first_prompts

    def annotate(self, images: Sequence[Pixels]) -> list[Annotation]:
        """One annotation per image, in order."""
        if not images:
            return []
        maps, found = self._maps_and_boxes(images)
        others = [None] * len(images) if self.other is None else self.other.segment(images)
        if found is None:
            return [
                Annotation(class_map=own, other_map=other) for own, other in zip(maps, others, strict=True)
            ]
        seen = [None] * len(images) if self.expert is None else self.expert.see(images)
        annotations = []
        for image, own, other, boxes, view in zip(images, maps, others, found, seen, strict=True):
            judged, presence, regions = unjudged(boxes.detections), boxes.presence, None
            if self.expert is not None and view is not None:
                regions = self.expert.regions(view, boxes.detections.boxes_xyxy)
                judged = self.expert.judge(view, regions, boxes.detections)
                presence = judged.presence if self.expert.config.presence else boxes.presence
            judged = without_losers(judged, self.exclusive, self.exclusive_config)
            judged, masks = self._masked(image, judged, boxes.masks)
            regions = None if regions is None else regions.at(judged.sources)
            captions: Sequence[RegionCaption | None] | None = None
            verifications = None
            if self.expert is not None and view is not None and regions is not None:
                captions = self.expert.describe(regions, judged.labels)
                verifications = self.expert.verify(view, regions, judged.boxes_xyxy, judged.labels)
            if self.captioner is not None:
                captions = self.captioner.describe(image, regions, judged.boxes_xyxy, judged.labels, captions)
            annotations.append(
                Annotation(
                    class_map=own,
                    other_map=other,
                    boxes=self._found_boxes(judged, boxes, masks, captions, verifications),
                    presence=presence,
                    dropped=judged.dropped,
                )
            )
        return annotations

    def _maps_and_boxes(self, images: Sequence[Pixels]) -> tuple[list[ClassMap | None], list[Found] | None]:
        if isinstance(self.finder, MapsAndBoxes):
            pairs = self.finder.segment_and_find(images)
            return [class_map for class_map, _ in pairs], [found for _, found in pairs]
        maps: list[ClassMap | None] = [None] * len(images)
        if self.segmenter is not None:
            maps = list(self.segmenter.segment(images))
        return maps, None if self.finder is None else self.finder.find(images, maps)

    def _masked(
        self, image: Pixels, judged: JudgedBoxes, own: Sequence[Rle] | None
    ) -> tuple[JudgedBoxes, Sequence[Rle | None]]:
        """The masks that the boxes came with, or that are drawn for them now; a box for which none is drawn goes."""
        if own is not None:
            return judged, [own[source] for source in judged.sources.tolist()]
        if self.prompter is None:
            return judged, [None] * len(judged)
        drawn = self.prompter.masks(image, judged.boxes_xyxy, judged.labels).rles
        has_mask = torch.tensor([rle is not None for rle in drawn], dtype=torch.bool)
        kept = has_mask.nonzero()[:, 0]
        return judged.at(kept, reason=NO_MASK), [drawn[i] for i in kept.tolist()]

    def _found_boxes(
        self,
        judged: JudgedBoxes,
        found: Found,
        masks: Sequence[Rle | None],
        captions: Sequence[RegionCaption | None] | None,
        verifications: Sequence[Verification] | None,
    ) -> tuple[FoundBox, ...]:
        calibrated = None if self.calibrator is None else self.calibrator.chances(judged)
        aligned = judged.alignment_scores
        boxes = []
        for i, (corners, label, source) in enumerate(
            zip(judged.boxes_xyxy.tolist(), judged.labels.tolist(), judged.sources.tolist(), strict=True)
        ):
            asked = found.prompts[source]
            words = asked if asked.label == label else self.first_prompts[label]
            x1, y1, x2, y2 = corners
            boxes.append(
                FoundBox(
                    label=label,
                    box_xyxy=(x1, y1, x2, y2),
                    prompt=words.prompt,
                    language=words.language,
                    score=float(judged.scores[i]),
                    score_detector=float(judged.detector_scores[i]),
                    score_alignment=None if aligned is None else float(aligned[i]),
                    score_calibrated=None if calibrated is None else float(calibrated[i]),
                    mask=masks[i],
                    rivals=judged.rivals[i],
                    caption=None if captions is None else captions[i],
                    verification=None if verifications is None else verifications[i],
                    reasons=judged.reasons[i],
                )
            )
        return tuple(boxes)


def class_detections(found: Detections, labels: Int64[Tensor, " names"]) -> Detections:
    """Detections of names as detections of classes."""
    return Detections(
        boxes_xyxy=found.boxes_xyxy,
        scores=found.scores,
        labels=labels[found.labels] if len(found) else torch.zeros(0, dtype=torch.int64),
    )
