"""Captions that deny something or leave it open."""

import pytest

from ovsops.errors import VocabularyError
from ovsops.negatives.captions import accept
from ovsops.negatives.lexicon import lexicon_from_plain, load_lexicon
from ovsops.negatives.wording import Wording, wording_from_plain


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not a red car", "R_NEGATION"),
        ("a car that is NOT red.", "R_NEGATION"),
        ("the car isn't red", "R_NEGATION"),
        ("a dog that isn’t running", "R_NEGATION"),
        ("a dog that isnt running", "R_NEGATION"),
        ("a ball other than red", "R_NEGATION"),
        ("a car of any colour except\tred", "R_NEGATION"),
        ("a blue car rather than a red one", "R_NEGATION"),
        ("neither a red nor a blue car", "R_NEGATION"),
        ("a non-red car", "R_NEGATION"),
        ("a red or blue car", "R_ALTERNATIVE"),
        ("a red and/or blue car", "R_ALTERNATIVE"),
        ("a red/blue car", "R_ALTERNATIVE"),
        ("a red metal / plastic chair", "R_ALTERNATIVE"),
        ("maybe a red car", "R_ALTERNATIVE"),
        ("a car that may be red", "R_ALTERNATIVE"),
    ],
)
def test_denials_and_alternatives_are_refused(text: str, reason: str) -> None:
    assert accept(text, None, max_chars=1000) == (None, reason)


@pytest.mark.parametrize(
    "text",
    [
        "a red knot in a knotted rope",
        "an orange car in front of a north facing door",
        "a red non-stick pan",
        "a chair w/ a red cushion",
        "a red 24/7 sign",
        "a red car with another one",
        "a red car on a lot",
    ],
)
def test_words_that_only_look_alike_are_taken(text: str) -> None:
    assert accept(text, None, max_chars=1000) == (text, "en")


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("a red bottle with no label", ["no label"]),
        ("a chair without red and blue stripes", ["without red and blue stripes"]),
        ("a chair without arms, with a red seat", ["without arms"]),
        ("a chair without arms but a red seat.", ["without arms "]),
        ("no label. a bottle w/o a lid; red", ["no label", "w/o a lid"]),
        ("a red note on a table", []),
    ],
)
def test_what_a_caption_denies(text: str, denied: list[str]) -> None:
    spans = load_lexicon("en").wording.denied(text)
    assert [text[start:end] for start, end in spans] == denied


def test_the_same_in_a_language_without_spaces() -> None:
    found = wording_from_plain(
        {
            "R_NEGATION": ["不"],
            "R_ALTERNATIVE": ["或"],
            "except": ["不锈钢"],
            "denying": ["无"],
            "ends": ["，"],
        },
        language="zh",
        where="mine",
    )
    assert found.refusal("不是红色的车") == "R_NEGATION"
    assert found.refusal("红色或蓝色的车") == "R_ALTERNATIVE"
    assert found.refusal("不锈钢的杯子") is None
    assert found.refusal("不锈钢的杯子不大") == "R_NEGATION"
    assert found.denied("无红色标签，白色的瓶子") == [(0, 5)]


def test_a_lexicon_needs_no_wording() -> None:
    lexicon = lexicon_from_plain({"language": "en"}, where="mine")
    assert lexicon.wording.refusal("not a red car") is None
    assert Wording().denied("a car without wheels") == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"refuse": ["not"]}, "refuse: expected fields among R_NEGATION"),
        ({"R_NEGATION": ["Not"]}, "R_NEGATION: expected a list of texts in small letters"),
        ({"names": "hot dog"}, "names: expected a list"),
        ({"denying": [False]}, "denying: expected a list"),
    ],
)
def test_what_is_no_wording(data: dict[str, object], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        wording_from_plain(data, language="en", where="mine")
