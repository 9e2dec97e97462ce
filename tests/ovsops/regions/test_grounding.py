import pytest
import torch

from ovsops.errors import ConfigError, ShapeError
from ovsops.regions.attributes import load_attributes
from ovsops.regions.caption_config import GroundingConfig
from ovsops.regions.grounding import contrasts_of, ground_caption, ground_text
from ovsops.regions.phrase_cache import PhraseCache
from tests.tiny.words import WordEncoder

VOCABULARY = load_attributes()


def ground(text: str, seen: str, noun: str, language: str = "en", rivals=(), **fields):
    encode = WordEncoder()
    return ground_text(
        text,
        encode.vectors([seen])[0],
        noun,
        language=language,
        encode=PhraseCache(encode, max_phrases=1000),
        vocabulary=VOCABULARY,
        rivals=rivals,
        config=GroundingConfig(**fields),
    )


def test_a_wrong_colour_is_dropped_and_the_right_stripe_stays() -> None:
    found = ground("a blue ball with a striped side", "red striped ball side", "ball")
    assert found.text == "ball with a striped side"
    assert found.dropped == ("a blue ball",)
    blue, striped = found.checks
    assert blue.contrast == "a red ball"
    assert blue.margin is not None
    assert blue.margin < 0
    assert striped.margin is not None
    assert striped.margin > 0


def test_chinese_clauses_are_checked_the_same_way() -> None:
    found = ground("红色的球，带有条纹", "红色球有格子", "球", "zh")
    assert found.text == "红色的球"
    assert found.dropped == ("带有条纹",)
    assert found.checks[1].contrast == "球带有格子"


def test_a_rival_name_is_a_contrast() -> None:
    assert ground("a red ball", "red box", "ball", rivals=["box", "ball"]).dropped == ("a red ball",)
    assert ground("a red ball", "red ball", "ball", rivals=["box", "ball"]).text == "a red ball"


def test_a_clause_without_contrast_needs_only_be_near() -> None:
    assert ground("a ball on the moon", "ball moon", "ball").text == "a ball on the moon"
    found = ground("it costs money", "ball", "ball", min_cosine=0.9)
    assert found.text == ""
    assert found.checks[0].margin is None


def test_contrasts_change_one_word_to_another_base() -> None:
    found = contrasts_of(
        "a light red ball made of wood",
        "ball",
        language="en",
        vocabulary=VOCABULARY,
        rivals=["cup"],
        max_contrasts=100,
    )
    assert found[0] == "a light red cup made of wood"
    assert "a blue ball made of wood" in found
    assert "a light red ball made of glass" in found
    assert not [text for text in found if "dark red" in text or "light light" in text]
    assert len(found) == 1 + 26 + 12


def test_clauses_beyond_the_limit_are_dropped_and_counted() -> None:
    found = ground(", ".join(["a red ball"] * 9), "red ball", "ball", max_clauses=4)
    assert len(found.checks) == 4
    assert found.num_unread == 5
    assert found.text == "a red ball, a red ball, a red ball, a red ball"


def caption_of(short: str, long: str, seen: str):
    encode = WordEncoder()
    return ground_caption(
        short,
        long,
        encode.vectors([seen])[0],
        "ball",
        source="vlm:tiny",
        language="en",
        encode=PhraseCache(encode, max_phrases=1000),
        vocabulary=VOCABULARY,
    )


def test_a_captioners_words_keep_their_source() -> None:
    found = caption_of("a red ball", "a red ball, with a blue stripe", "a red ball")
    assert (found.short, found.long, found.source) == ("a red ball", "a red ball", "vlm:tiny+grounded")
    assert found.dropped == ("with a blue stripe",)


def test_where_nothing_is_left_the_class_name_stands() -> None:
    found = caption_of("a blue ball", "<b>a blue ball</b>", "a red ball")
    assert (found.short, found.long, found.source) == ("ball", "ball", "detector")
    assert found.dropped == ("a blue ball",)


def test_an_empty_region_supports_nothing() -> None:
    with pytest.raises(ShapeError, match="an empty region supports no clause"):
        ground_text(
            "a ball",
            torch.zeros(600),
            "ball",
            language="en",
            encode=PhraseCache(WordEncoder(), max_phrases=9),
            vocabulary=VOCABULARY,
        )


@pytest.mark.parametrize("fields", [{"margin": -1.0}, {"min_cosine": 2.0}, {"max_clauses": 0}])
def test_nonsense_is_refused(fields) -> None:
    with pytest.raises(ConfigError):
        GroundingConfig(**fields)
