"""A detector's boxes against those of the scenes: the true ones are perfect, and names count where they should."""

import numpy as np
import torch

from ovsops.backbones.detections import Detections, no_detections
from ovsops.metrics.detection import DetectionCounts, DetectionFigures
from ovsops.metrics.objects import found_objects
from ovsops.miniature.scene import draw_scene
from ovsops.training.detector_quality import KINDS, noun_names, true_nouns
from ovsops.training.scenes import SceneBank


def test_true_boxes_are_those_of_the_scenes(bank: SceneBank) -> None:
    scene = draw_scene(100_000)
    boxes = np.array([thing.box_xywh for thing in scene.things], float)
    boxes[:, 2:] += boxes[:, :2]
    np.testing.assert_allclose(true_nouns(bank)[0].boxes_xyxy, boxes, atol=1e-4)
    names = noun_names("en").names
    assert [names[label] for label in true_nouns(bank)[0].labels] == [thing.noun for thing in scene.things]


def figures(found: list[Detections], bank: SceneBank, kind: str) -> DetectionFigures:
    mine = [found_objects(each) for each in found]
    return DetectionCounts.of_images(mine, true_nouns(bank), config=KINDS[kind]).compute()


def test_names_count_unless_they_do_not(bank: SceneBank) -> None:
    right, wrong = (
        [
            Detections(
                boxes_xyxy=torch.from_numpy(scene.boxes_xyxy).float(),
                scores=torch.linspace(0.9, 0.5, len(scene.labels)),
                labels=(torch.from_numpy(scene.labels) + shift) % 12,
            )
            for scene in true_nouns(bank)
        ]
        for shift in (0, 1)
    )
    assert figures(right, bank, "named").ap == 1.0
    assert figures(wrong, bank, "named").ap50 < 0.2
    assert figures(wrong, bank, "class-agnostic").ap == 1.0
    nothing = [no_detections() for _ in range(len(bank))]
    assert figures(nothing, bank, "named").average_recall == 0.0
