"""What ships of LLMDet keeps its promises: figures of the shipped files on test scenes, a little below the card's.

`python -m benchmarks.detector_quality` gives the figures on more scenes, with intervals.
"""

from dataclasses import replace

import pytest
import torch

from ovsops.backbones.detections import Detections
from ovsops.backbones.mm_grounding_dino import LlmDet
from ovsops.backbones.shipped import miniature_checkpoint
from ovsops.metrics.detection import DetectionCounts, DetectionFigures
from ovsops.metrics.objects import found_objects
from ovsops.miniature.attributes import COLOURS, LANGUAGES, NOUNS, STUFF, Language
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.text.label_names import LabelNames
from ovsops.training.detector_quality import (
    KINDS,
    detect_nouns,
    load_detector,
    true_nouns,
)
from ovsops.training.scenes import SceneBank, bank_of

SHIPPED = "miniature:llmdet"


@pytest.fixture(scope="module")
def scenes() -> SceneBank:
    return bank_of(draw_scene(seed) for seed in seeds_of("test")[:64])


@pytest.fixture(scope="module")
def detector() -> LlmDet:
    return load_detector(SHIPPED)


@pytest.fixture(scope="module")
def found(detector: LlmDet, scenes: SceneBank) -> dict[Language, list[Detections]]:
    return {language: detect_nouns(detector, scenes, language) for language in LANGUAGES}


def figures(found: list[Detections], scenes: SceneBank, kind: str) -> DetectionFigures:
    mine = [found_objects(each) for each in found]
    return DetectionCounts.of_images(mine, true_nouns(scenes), config=KINDS[kind]).compute()


def test_the_file_is_small() -> None:
    assert (miniature_checkpoint("llmdet") / "model.safetensors").stat().st_size < 4.5e6


@pytest.mark.parametrize("language", LANGUAGES)
def test_nouns_are_found_and_named(
    found: dict[Language, list[Detections]], scenes: SceneBank, language: Language
) -> None:
    named = figures(found[language], scenes, "named")
    assert named.ap50 >= 0.86
    assert named.ap >= 0.62
    assert named.average_recall >= 0.69
    assert figures(found[language], scenes, "class-agnostic").ap50 >= 0.88


def test_labels_hang_on_the_names(found: dict[Language, list[Detections]], scenes: SceneBank) -> None:
    """The same boxes under names that moved on by one are wrong."""
    moved = [replace(each, labels=(each.labels + 1) % len(NOUNS)) for each in found["en"]]
    assert figures(moved, scenes, "named").ap50 < 0.1


def test_what_is_not_there_is_not_found(
    detector: LlmDet, found: dict[Language, list[Detections]], scenes: SceneBank
) -> None:
    """Asked for stuff alone it has no box above a half; scores of true nouns reach higher."""
    images = [image.permute(1, 2, 0).numpy() for image in scenes.images[:16]]
    stuff = detector.detect(images, LabelNames(tuple(word.en for word in STUFF)))
    assert max(float(each.scores.max()) for each in stuff if len(each)) < 0.5
    nouns = found["en"][:16]
    assert torch.tensor([float(each.scores.max()) for each in nouns]).median() > 0.5


def test_it_does_not_see_colours(detector: LlmDet, scenes: SceneBank) -> None:
    """Of boxes found for "red ball", "blue ball", ... the true colour scores best hardly more often than by chance."""
    right, total = 0, 0
    for place, things in enumerate(true_nouns(scenes)[:24]):
        image = scenes.images[place].permute(1, 2, 0).numpy()
        codes = scenes.codes[place]
        for noun, colour in codes[: len(things.labels), :2].tolist():
            names = LabelNames(tuple(f"{c.en} {NOUNS[noun].en}" for c in COLOURS))
            (boxes,) = detector.detect([image], names)
            if len(boxes) and (codes[:, 0] == noun).sum() == 1:
                right, total = right + int(boxes.labels[0] == colour), total + 1
    assert total >= 30
    assert right / total < 0.4
