"""Slots of captions in both languages, worked out by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovsops.negatives.lexicon import Language, load_lexicon
from ovsops.negatives.phrase import Phrase
from ovsops.negatives.sampler import parse


def said(text: str, language: Language) -> list[tuple[str, str]]:
    return [(slot.type, text[slot.start : slot.end]) for slot in parse(text, language).slots]


ENGLISH = [
    (
        "A light grey plastic pipe.",
        [("colour", "light grey"), ("material", "plastic"), ("object", "pipe")],
    ),
    ("A transparent glass.", [("transparency", "transparent"), ("object", "glass")]),
    ("A glass bowl made of glass", [("material", "glass"), ("object", "bowl"), ("material", "glass")]),
    (
        "a white, red and yellow helmet",
        [("colour", "white"), ("colour", "red"), ("colour", "yellow"), ("object", "helmet")],
    ),
    ("a metal and glass case", [("material", "metal"), ("material", "glass")]),
    ("a cup with a logo pattern", [("object", "cup"), ("pattern", "logo")]),
    ("a cup with a logo", [("object", "cup")]),
    ("an orange on a plate", []),
    ("an orange plate", [("colour", "orange"), ("object", "plate")]),
    ("a metal-framed mirror", [("object", "mirror")]),
    ("a glass of red wine", []),
    (
        "two brown dogs running",
        [("count", "two"), ("colour", "brown"), ("object", "dogs"), ("action", "running")],
    ),
    (
        "a big red fish left of a star",
        [("size", "big"), ("colour", "red"), ("object", "fish"), ("relation", "left of")],
    ),
    ("a dress with long sleeves", [("object", "dress"), ("size", "long")]),
    (
        "small pink checkered tree",
        [("size", "small"), ("colour", "pink"), ("pattern", "checkered"), ("object", "tree")],
    ),
    ("a textured pipe", [("object", "pipe")]),
]
CHINESE = [
    ("小粉色格子树", [("size", "小"), ("colour", "粉色"), ("pattern", "格子"), ("object", "树")]),
    (
        "大红色条纹闪亮的鱼",
        [("size", "大"), ("colour", "红色"), ("pattern", "条纹"), ("finish", "闪亮"), ("object", "鱼")],
    ),
    ("两只黑色的猫", [("count", "两"), ("colour", "黑色"), ("object", "猫")]),
    ("由木头制成的棕色桌子", [("material", "木头"), ("colour", "棕色"), ("object", "桌子")]),
    ("一个透明的玻璃杯", [("transparency", "透明"), ("object", "玻璃杯")]),
    ("穿白衬衫的男人", [("colour", "白"), ("object", "衬衫")]),
    ("半透明的塑料瓶子", [("transparency", "半透明"), ("material", "塑料"), ("object", "瓶子")]),
    ("小提琴", []),
    ("树懒", []),
    ("球在盒子左边", [("object", "球"), ("relation", "左边")]),
]


@pytest.mark.parametrize(("text", "expected"), ENGLISH)
def test_english(text: str, expected: list[tuple[str, str]]) -> None:
    assert said(text, "en") == expected


@pytest.mark.parametrize(("text", "expected"), CHINESE)
def test_chinese(text: str, expected: list[tuple[str, str]]) -> None:
    assert said(text, "zh") == expected


def replaced(text: str, language: Language, **surfaces: str) -> str:
    phrase = parse(text, language)
    return phrase.replaced({int(place[1:]): surface for place, surface in surfaces.items()})


def test_articles_capitals_and_several_changes() -> None:
    assert replaced("A red bowl.", "en", s0="orange") == "An orange bowl."
    assert replaced("An orange bowl.", "en", s0="dark red") == "A dark red bowl."
    assert replaced("Black dog", "en", s0="white") == "White dog"
    assert replaced("A BLACK CAT", "en", s0="orange") == "An ORANGE CAT"
    assert replaced("a red bowl with an orange rim", "en", s0="aluminium", s2="blue") == (
        "an aluminium bowl with a blue rim"
    )
    assert replaced("一把木质椅子", "zh", s0="金属", s1="雨伞") == "一把金属雨伞"


def test_lists_know_each_other_and_stuff_knows_its_place() -> None:
    phrase = parse("a red and white cup with a black rim, made of wood", "en")
    assert [slot.partners for slot in phrase.slots] == [(1,), (0,), (), (), ()]
    assert [slot.role for slot in phrase.slots if slot.type == "material"] == ["n"]
    assert parse("a wooden bench", "en").slots[0].role == "a"
    assert parse("一条小蓝色鱼", "zh").slots[-1].role == "条"
    assert [slot.head for slot in parse("a lamp with a blue shade", "en").slots] == ["", "shade"]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from("a an red light grey made of glass wooden , and with bowl trash can . - two".split())
    )
)
def test_slots_are_ordered_disjoint_spans_that_read_as_their_terms(words: list[str]) -> None:
    text = " ".join(words)
    phrase = parse(text, "en")
    check(phrase)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="一个红色的小大木质玻璃杯子树叶在左边条纹，。由制成两只", max_size=24))
def test_chinese_slots_are_ordered_disjoint_spans(text: str) -> None:
    check(parse(text, "zh"))


def check(phrase: Phrase) -> None:
    end = 0
    types = load_lexicon(phrase.language).types
    for slot in phrase.slots:
        assert end <= slot.start < slot.end
        assert phrase.text[slot.start : slot.end].lower() == types[slot.type].terms[slot.term].surface
        end = slot.end
    assert phrase.replaced({}) == phrase.text
