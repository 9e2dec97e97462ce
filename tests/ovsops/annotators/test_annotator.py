"""All that is said of an image's boxes, with untrained checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ovsops.annotators.annotator import Annotator
from ovsops.annotators.build import compute_annotator_text, load_annotator
from ovsops.annotators.config import AnnotatorConfig, ExpertConfig, LlmDetConfig
from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.fgclip2 import FgClip2
from ovsops.backbones.mm_grounding_dino import DetectorConfig
from ovsops.backbones.untrained_fgclip2 import write_untrained_fgclip2
from ovsops.backbones.untrained_llmdet import write_untrained_llmdet
from ovsops.regions.caption_config import CaptionConfig
from ovsops.regions.verify import VerifyConfig
from ovsops.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_mapping(
    {
        "name": "tiny",
        "languages": ["en"],
        "templates": {"en": ["a {}."]},
        "classes": [{"id": 1, "name": "red thing"}, {"id": 7, "name": "blue thing"}],
    }
)


@pytest.fixture(scope="module")
def annotator(tmp_path_factory: pytest.TempPathFactory) -> Annotator:
    folder: Path = tmp_path_factory.mktemp("weights")
    write_untrained_llmdet(folder / "llmdet")
    write_untrained_fgclip2(folder / "fgclip2")
    config = AnnotatorConfig(
        detector=LlmDetConfig(
            llmdet=Checkpoint(source=str(folder / "llmdet")),
            reading=DetectorConfig(short_side=64, max_long_side=96, min_score=0.0, max_detections=8),
        ),
        expert=ExpertConfig(
            fgclip2=Checkpoint(source=str(folder / "fgclip2")),
            max_patches=16,
            min_score=0.0,
            nms_iou=0.5,
            captions=CaptionConfig(),
            verify=VerifyConfig(evidence_side=4),
        ),
    )
    text = compute_annotator_text(config, VOCABULARY, ("en",))
    return load_annotator(config, VOCABULARY, ("en",), text)


def test_an_image_is_looked_at_once_for_all_that_is_said_of_its_boxes(
    annotator: Annotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is said of a box is what would be said of it alone, though their order changes in between."""
    images = [np.random.default_rng(i).integers(0, 255, (64, 80, 3), np.uint8) for i in range(2)]
    looks: list[int] = []
    look = FgClip2.region_features

    def counted(self: FgClip2, image: object, boxes_xyxy: torch.Tensor) -> object:
        looks.append(len(boxes_xyxy))
        return look(self, image, boxes_xyxy)  # type: ignore[arg-type]

    monkeypatch.setattr(FgClip2, "region_features", counted)
    found = annotator.annotate(images)
    assert len(looks) == len(images)
    monkeypatch.undo()
    assert annotator.expert is not None
    for image, each, num_looked_at in zip(images, found, looks, strict=True):
        assert each.boxes is not None
        assert 0 < len(each.boxes) <= num_looked_at
        [seen] = annotator.expert.see([image])
        for box in each.boxes:
            corners, label = torch.tensor([box.box_xyxy]), torch.tensor([box.label])
            alone = annotator.expert.regions(seen, corners)
            assert annotator.expert.describe(alone, label) == [box.caption]
            [verification] = annotator.expert.verify(seen, alone, corners, label) or [None]
            assert verification is not None
            assert box.verification is not None
            assert verification.answer == box.verification.answer
