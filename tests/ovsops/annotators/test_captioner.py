"""Whose words a box gets: the captioner's, what is left of them, or those that it had."""

import numpy as np
import pytest
import torch

from ovsops.annotators.captioner import BoxCaptioner, CaptionerClasses, captioner_classes
from ovsops.annotators.names import group_rivals
from ovsops.backbones.florence2 import RegionText
from ovsops.errors import VocabularyError
from ovsops.regions.said import RegionCaption
from ovsops.text.vocabulary import Vocabulary

IMAGE = np.zeros((8, 8, 3), np.uint8)
BOXES = torch.tensor([[0.0, 0, 4, 4], [0, 0, 0, 0], [2, 2, 8, 8], [1, 1, 3, 3]])
LABELS = torch.tensor([0, 1, 0, 1])
CLASSES = CaptionerClasses(nouns=("ball", "box"), rivals=((), ()))
VOCABULARY = Vocabulary.from_mapping(
    {
        "name": "toys",
        "languages": ["en", "zh"],
        "templates": {"en": ["{}"], "zh": ["{}"]},
        "classes": [
            {"id": 1, "name": "red ball", "group": "ball", "prompts": {"zh": ["红球"]}},
            {"id": 2, "name": "blue ball", "group": "ball"},
            {"id": 5, "name": "box"},
        ],
    }
)


class Words:
    """A describer with answers of its own: markup, nothing, and marks alone among them."""

    def describe(self, image: np.ndarray, boxes_xyxy: torch.Tensor) -> list[RegionText | None]:
        said = ["a <b>red</b>\nball", None, " . ", "never asked"]
        return [None if words is None else RegionText(words, False) for words in said[: len(boxes_xyxy)]]


def test_words_are_cleaned_and_what_says_nothing_leaves_the_earlier_caption() -> None:
    earlier = [RegionCaption(short=name, long=name, source="fgclip2") for name in "abcd"]
    captioner = BoxCaptioner(Words(), source="florence2", classes=CLASSES, max_regions=3)
    found = captioner.describe(IMAGE, None, BOXES, LABELS, earlier)
    assert found[0] == RegionCaption(short="a red ball", long="a red ball", source="florence2")
    assert found[1:] == earlier[1:], "a box without area, marks alone, and one beyond the cap"
    assert captioner.describe(IMAGE, None, BOXES, LABELS)[1:] == [None, None, None]


def test_no_boxes_are_no_captions() -> None:
    captioner = BoxCaptioner(Words(), source="florence2", classes=CLASSES, max_regions=3)
    assert captioner.describe(IMAGE, None, BOXES[:0], LABELS[:0]) == []


def test_rivals_are_the_others_of_the_group() -> None:
    assert group_rivals(VOCABULARY) == ((1,), (0,), ())
    assert captioner_classes(VOCABULARY, ["en"], is_checked=True).rivals == (
        ("blue ball",),
        ("red ball",),
        (),
    )


def test_a_noun_that_is_missing_is_refused_where_words_are_checked() -> None:
    foreign = Vocabulary.from_mapping(
        {
            "name": "toys",
            "languages": ["zh"],
            "name_language": "zh",
            "templates": {"zh": ["{}"]},
            "classes": [{"id": 1, "name": "球"}],
        }
    )
    assert captioner_classes(foreign, ["zh"], is_checked=False).nouns == ("球",)
    with pytest.raises(VocabularyError, match="has no English prompt"):
        captioner_classes(foreign, ["zh"], is_checked=True)
