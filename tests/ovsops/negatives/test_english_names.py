"""Words that look like attributes and are parts of names, or things of their own."""

import pytest

from ovsops.negatives.config import NegativeConfig
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.english import parse_english
from ovsops.negatives.lexicon import load_lexicon
from ovsops.negatives.sampler import Negatives, NegativeSampler, fit_sampler


@pytest.fixture(scope="module")
def sampler() -> NegativeSampler:
    return fit_sampler(CorpusSample(), NegativeConfig())


def slots_of(text: str) -> list[str]:
    return [text[slot.start : slot.end] for slot in parse_english(text).slots]


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("a hot dog", []),
        ("two hot dogs", ["two"]),
        ("a red fire truck", ["red"]),
        ("a big white polar bear", ["big", "white"]),
        ("a glass of white wine", []),
        ("a red wine glass", []),
        ("a wooden ice cream stand", ["wooden"]),
        ("a green off white sofa", ["green", "sofa"]),
        ("a man in running shoes", ["man"]),
        ("a dog beside a washing machine", ["dog"]),
    ],
)
def test_nothing_is_cut_out_of_a_name(text: str, slots: list[str]) -> None:
    assert slots_of(text) == slots


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("a photo of the White House", []),
        ("White House at night", []),
        ("a Red Bull can", []),
        ("a Red car", ["Red", "car"]),
        ("A red car. Blue wheels.", ["red", "car", "Blue"]),
        ("A Red Car On The Street", ["Red", "Car"]),
        ("A RED CAR", ["RED", "CAR"]),
    ],
)
def test_capitals_within_a_sentence_are_names(text: str, slots: list[str]) -> None:
    assert slots_of(text) == slots


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("an orange on a plate", []),
        ("an orange orange on a plate", ["orange"]),
        ("a woman with a white orange", ["woman", "white"]),
        ("a small ripe orange", ["small"]),
        ("an orange cat", ["orange", "cat"]),
        ("a ball in white and orange.", ["ball", "white", "orange"]),
        ("the bowl is bright orange", ["bowl", "bright orange"]),
        ("silver spoon made of silver", ["silver", "spoon"]),
        ("a ring made of gold and silver with red stones", ["ring", "red"]),
        ("a ring made of a combination of gold and silver", ["ring"]),
        ("a cup of gold", []),
        ("a gold and black cup", ["gold", "black", "cup"]),
        ("a car in shades of silver and black", ["car", "silver", "black"]),
        ("a chair in a combination of black and silver", ["chair", "black", "silver"]),
        ("a painting on a red wall", ["red", "wall"]),
        ("a man painting a wall", ["painting"]),
    ],
)
def test_words_of_colours_that_are_things(text: str, slots: list[str]) -> None:
    assert slots_of(text) == slots


def test_names_are_written_once_and_hold_a_word_of_the_lexicon() -> None:
    lexicon = load_lexicon("en")
    names = lexicon.wording.names
    assert len(set(names)) == len(names)
    surfaces = [f" {surface} " for surface in lexicon.by_surface]
    assert [name for name in names if not any(surface in f" {name} " for surface in surfaces)] == []


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("a red bottle with no blue label", "no blue label"),
        ("a red chair without metal arms and wooden legs", "without metal arms and wooden legs"),
        ("a red wooden bench w/o a green cushion. .", "w/o a green cushion."),
    ],
)
def test_what_a_caption_denies_is_in_every_negative(sampler: NegativeSampler, text: str, denied: str) -> None:
    answer = sampler.negatives_for(text, key="1")
    assert isinstance(answer, Negatives)
    assert all(denied in negative for negative in answer.negatives)


def test_after_the_denial_values_change_again() -> None:
    assert slots_of("a chair without arms, with a red seat") == ["chair", "red"]
    assert slots_of("a bottle without a red label and a blue cap") == ["bottle"]
