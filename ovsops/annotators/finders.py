"""What finds boxes: LLMDet, connected things of a class map, SAM 3."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8

from ovsops.annotators.annotation import ImagePresence
from ovsops.annotators.annotator import Found, class_detections
from ovsops.annotators.names import ClassPrompt, DetectorNames
from ovsops.backbones.detections import Detections
from ovsops.backbones.mm_grounding_dino import LlmDet
from ovsops.errors import ShapeError
from ovsops.masks.box_nms import box_nms
from ovsops.masks.class_map import ClassMap
from ovsops.masks.regions import RegionClass
from ovsops.regions.proposals import ProposalConfig, proposals_from_class_map
from ovsops.segmenters.sam3 import Sam3Segmenter
from ovsops.segmenters.sam3_masks import Sam3Detections


class LlmDetFinder:
    """Boxes of every name; boxes that synonyms of a class found twice are one."""

    def __init__(self, model: LlmDet, names: DetectorNames) -> None:
        self.model, self.names = model, names

    def find(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], class_maps: Sequence[ClassMap | None]
    ) -> list[Found]:
        """Class maps are not looked at."""
        found = []
        for of_names in self.model.detect(images, self.names.names):
            of_classes = class_detections(of_names, self.names.labels)
            kept = box_nms(
                of_classes.boxes_xyxy,
                of_classes.scores,
                iou=self.model.config.nms_iou,
                groups=of_classes.labels,
            )
            prompts = tuple(self.names.prompts[i] for i in of_names.labels[kept].tolist())
            found.append(Found(detections=of_classes.at(kept), prompts=prompts))
        return found


class ProposalFinder:
    """Connected parts of a segmenter's things as boxes, with the mean score of their pixels."""

    def __init__(
        self, config: ProposalConfig, classes: Sequence[RegionClass], first_prompts: Sequence[ClassPrompt]
    ) -> None:
        self.config, self.classes, self.first_prompts = config, classes, first_prompts

    def find(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], class_maps: Sequence[ClassMap | None]
    ) -> list[Found]:
        """Raises `ShapeError` for an image without a class map."""
        found = []
        for class_map in class_maps:
            if class_map is None:
                raise ShapeError("proposals are parts of a class map, and there is none: add a segmenter")
            detections = proposals_from_class_map(class_map, self.classes, self.config)
            prompts = tuple(self.first_prompts[label] for label in detections.labels.tolist())
            found.append(Found(detections=detections, prompts=prompts))
        return found


class Sam3Finder:
    """Class maps and instances of SAM 3 from one encoding of the image."""

    def __init__(self, segmenter: Sam3Segmenter, prompts: Sequence[ClassPrompt]) -> None:
        self.segmenter, self.prompts = segmenter, prompts

    def segment_and_find(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[tuple[ClassMap, Found]]:
        """Instances of background prompts are left out; a class is as present as its best prompt."""
        return [
            (class_map, self._found(detections))
            for class_map, detections in self.segmenter.segment_and_detect(images)
        ]

    def _found(self, detections: Sam3Detections) -> Found:
        instances = [each for each in detections.instances if each.label > 0]
        boxes = torch.tensor([each.box_xyxy for each in instances], dtype=torch.float32).reshape(-1, 4)
        return Found(
            detections=Detections(
                boxes_xyxy=boxes,
                scores=torch.tensor([each.score for each in instances], dtype=torch.float32),
                labels=torch.tensor([each.label - 1 for each in instances], dtype=torch.int64),
            ),
            prompts=tuple(self.prompts[each.prompt] for each in instances),
            masks=tuple(each.mask for each in instances),
            presence=ImagePresence(scores=self._presence(detections)),
        )

    def _presence(self, detections: Sam3Detections) -> tuple[tuple[int, float], ...]:
        best: dict[int, float] = {}
        owners = (self.segmenter.text.query_class - 1).tolist()
        for owner, score in zip(owners, detections.presence.tolist(), strict=True):
            if owner >= 0:
                best[owner] = max(best.get(owner, 0.0), score)
        return tuple(sorted(best.items()))
