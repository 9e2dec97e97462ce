"""SAM 3 as a source of instances: masks for boxes, and its own instances."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.detections import Detections
from ovsops.backbones.untrained_sam3 import write_untrained_sam3
from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.rle import mask_to_rle, rle_area
from ovsops.regions.box_masks import BoxPrompter
from ovsops.regions.instances import build_instances
from ovsops.segmenters.sam3 import Sam3Segmenter, build_sam3, compute_sam3_text
from ovsops.segmenters.sam3_boxes import Sam3BoxConfig, Sam3BoxPrompter, instances_as_detections
from ovsops.segmenters.sam3_config import Sam3SegmenterConfig
from ovsops.segmenters.sam3_masks import Sam3Detections, Sam3Instance
from ovsops.text.vocabulary import Vocabulary
from tests.tiny.images import photo_pixels
from tests.tiny.sam3 import SMALLEST

IMAGE = photo_pixels(60, 90)
BOXES = torch.tensor([[0.0, 0.0, 90.0, 60.0], [20.0, 10.0, 70.0, 50.0], [95.0, 0.0, 120.0, 60.0]])
ANY = Sam3BoxConfig(min_box_iou=0.0)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Sam3Segmenter:
    folder: Path = write_untrained_sam3(tmp_path_factory.mktemp("sam3"), **SMALLEST)
    config = Sam3SegmenterConfig(
        sam3=Checkpoint(source=str(folder)), prompts_per_batch=2, instance_threshold=0.3
    )
    return build_sam3(config, vocabulary, compute_sam3_text(config, vocabulary, ("en",)))


def test_each_box_gets_a_mask_and_its_place(segmenter: Sam3Segmenter) -> None:
    prompter = Sam3BoxPrompter(segmenter, ANY)
    assert isinstance(prompter, BoxPrompter)
    found = prompter.masks(IMAGE, BOXES, torch.tensor([0, 1, 0]))
    assert found.reasons == ((), (), ("R_NO_AREA",))
    assert found.rles[2] is None
    assert all(rle is not None and rle.size_hw == (60, 90) and rle_area(rle) for rle in found.rles[:2])
    assert ((found.scores[:2] > 0) & (found.scores[:2] <= 1)).all()
    detections = Detections(
        boxes_xyxy=BOXES, scores=torch.tensor([0.5, 0.4, 0.3]), labels=torch.tensor([0, 1, 0])
    )
    classes = [_Class(1), _Class(2)]
    built = build_instances(detections, found, classes)
    assert len(built.instances) == 2
    assert built.dropped == {"R_NO_AREA": 1}


def test_a_box_does_not_depend_on_the_others(segmenter: Sam3Segmenter) -> None:
    prompter = Sam3BoxPrompter(segmenter, ANY)
    together = prompter.masks(IMAGE, BOXES, torch.tensor([0, 1, 0]))
    alone = prompter.masks(IMAGE, BOXES[1:2], torch.tensor([1]))
    assert alone.rles[0] == together.rles[1]
    np.testing.assert_allclose(alone.scores[0], together.scores[1], atol=1e-6)


def test_the_box_and_the_phrase_both_matter(segmenter: Sam3Segmenter) -> None:
    prompter = Sam3BoxPrompter(segmenter, ANY)
    found = prompter.masks(IMAGE, BOXES[[1, 1]], torch.tensor([0, 1]))
    assert found.scores[0] != found.scores[1]
    moved = prompter.masks(IMAGE, BOXES[:1], torch.tensor([0]))
    assert moved.scores[0] != found.scores[0]


@pytest.mark.parametrize(
    "config", [Sam3BoxConfig(min_box_iou=1.0), Sam3BoxConfig(min_box_iou=0.0, min_score=1.0)]
)
def test_where_nothing_lies_on_the_box_there_is_no_mask(
    segmenter: Sam3Segmenter, config: Sam3BoxConfig
) -> None:
    found = Sam3BoxPrompter(segmenter, config).masks(IMAGE, BOXES[:2], torch.tensor([0, 0]))
    assert (found.rles, found.reasons) == ((None, None), (("R_NO_MASK",), ("R_NO_MASK",)))
    assert np.isnan(found.scores).all()


def test_the_image_is_encoded_once_and_not_at_all_without_boxes(
    segmenter: Sam3Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    plain = segmenter.sam3.encode_images

    def counted(pixels: torch.Tensor) -> Any:
        calls.append(len(pixels))
        return plain(pixels)

    monkeypatch.setattr(segmenter.sam3, "encode_images", counted)
    prompter = Sam3BoxPrompter(segmenter, ANY)
    assert len(prompter.masks(IMAGE, BOXES[:0], torch.zeros(0, dtype=torch.int64))) == 0
    assert prompter.masks(IMAGE, BOXES[2:], torch.tensor([0])).rles == (None,)
    assert calls == []
    prompter.masks(IMAGE, BOXES[:1].repeat(5, 1), torch.tensor([0, 1, 0, 1, 0]))
    assert calls == [1]


def test_nonsense_is_refused(segmenter: Sam3Segmenter) -> None:
    with pytest.raises(ShapeError, match="box of label 99"):
        Sam3BoxPrompter(segmenter).masks(IMAGE, BOXES[:1], torch.tensor([99]))
    with pytest.raises(ConfigError, match="min_box_iou"):
        Sam3BoxConfig(min_box_iou=1.5)
    windows = Sam3SegmenterConfig(sam3=segmenter.config.sam3, views="slide")
    other = Sam3Segmenter(windows, segmenter.text, segmenter.sam3, device="cpu")
    with pytest.raises(ConfigError, match="must be squash"):
        Sam3BoxPrompter(other)


class _Class:
    kind = "thing"

    def __init__(self, category_id: int) -> None:
        self.id = category_id


def test_its_own_instances_are_detections_with_masks() -> None:
    mask = np.zeros((4, 6), np.bool_)
    mask[1:3, 1:4] = True
    instance = Sam3Instance(
        prompt=0, label=2, score=0.75, box_xyxy=(1.0, 1.0, 4.0, 3.0), mask=mask_to_rle(mask)
    )
    background = Sam3Instance(
        prompt=3, label=0, score=0.9, box_xyxy=(0.0, 0.0, 6.0, 4.0), mask=mask_to_rle(~mask)
    )
    found = Sam3Detections(presence=np.ones(4, np.float32), instances=(background, instance))
    detections, masks = instances_as_detections(found, (4, 6))
    [built] = build_instances(detections, masks, [_Class(3), _Class(9)]).instances
    assert (built.category_id, built.score, built.mask_score, built.agreement) == (9, 0.75, 0.75, 1.0)
    nothing = instances_as_detections(Sam3Detections(presence=np.ones(1, np.float32), instances=()), (4, 6))
    assert len(nothing[0]) == len(nothing[1]) == 0
