"""What a detector knows of the miniature world: its boxes against the world's, on scenes that it was not taught.

A detector that was taught nouns is asked for all of them at once. Things of which nothing is seen are not there.
"""

from collections.abc import Mapping

import numpy as np
import torch

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.detections import Detections
from ovsops.backbones.mm_grounding_dino import DetectorConfig, LlmDet
from ovsops.metrics.detection import DetectionConfig
from ovsops.metrics.objects import TrueObjects
from ovsops.miniature.attributes import NOUNS, Language
from ovsops.text.label_names import LabelNames
from ovsops.training.scenes import SceneBank, region_planes, tight_boxes

MINIATURE_DETECTOR = DetectorConfig(
    short_side=128,
    max_long_side=256,
    pairs_per_pass=16,
    min_score=0.001,
    max_per_prompt=100,
    nms_iou=0.6,
    max_detections=100,
)
"""How a miniature LLMDet is measured: pictures as they are, low scores kept for the curve of precision and recall."""
KINDS: Mapping[str, DetectionConfig] = {
    "named": DetectionConfig(),
    "class-agnostic": DetectionConfig(is_class_agnostic=True),
}
"""Whether a box must have the right name, too."""


def load_detector(source: str, config: DetectorConfig = MINIATURE_DETECTOR) -> LlmDet:
    """A miniature LLMDet, `miniature:llmdet` or a folder."""
    return LlmDet(resolve(Checkpoint(source=source)), device="cpu", dtype=torch.float32, config=config)


def noun_names(language: Language) -> LabelNames:
    """All nouns; a label is the place of a noun."""
    return LabelNames(tuple(noun.in_language(language) for noun in NOUNS))


def detect_nouns(detector: LlmDet, bank: SceneBank, language: Language) -> list[Detections]:
    """What the detector finds in each scene."""
    images = [image.permute(1, 2, 0).numpy() for image in bank.images]
    return detector.detect(images, noun_names(language))


def true_nouns(bank: SceneBank) -> list[TrueObjects]:
    """The things that are seen in each scene, in pixels."""
    height, width = bank.size_hw
    num_things = bank.codes.shape[1]
    scenes = []
    for instances, semantic, codes in zip(bank.instances, bank.semantic, bank.codes, strict=True):
        planes = region_planes(instances[None], semantic[None], num_things=num_things)[:, :num_things] > 0
        is_seen = planes[0].any(dim=2).any(dim=1)
        boxes = tight_boxes(planes)[0, is_seen] * torch.tensor([width, height, width, height])
        scenes.append(
            TrueObjects(
                labels=codes[is_seen, 0].numpy().astype(np.int64), boxes_xyxy=boxes.numpy().astype(np.float64)
            )
        )
    return scenes
