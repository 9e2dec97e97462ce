"""What the world is made of: nouns, colours, patterns, materials, sizes and stuff, in English and Chinese.

`树` (tree) is a part of `树叶` (leaf) on purpose: whoever matches Chinese names by substring is found out.
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


@dataclass(frozen=True, kw_only=True)
class Word:
    """One value of an attribute. An empty word is not said."""

    name: str
    """Key, and the English word where one is said."""
    en: str
    zh: str

    def in_language(self, language: Language) -> str:
        """The word as it is said; empty when it goes without saying."""
        return self.en if language == "en" else self.zh


@dataclass(frozen=True, kw_only=True)
class Colour(Word):
    """A body colour."""

    rgb: tuple[int, int, int]
    second_rgb: tuple[int, int, int]
    """The other tone of a pattern."""
    is_dark: bool
    """Its marks are cream, not brown."""


def _said(name: str, zh: str) -> Word:
    return Word(name=name, en=name, zh=zh)


def _colour(
    name: str, zh: str, rgb: tuple[int, int, int], second: tuple[int, int, int], *, is_dark: bool
) -> Colour:
    return Colour(name=name, en=name, zh=zh, rgb=rgb, second_rgb=second, is_dark=is_dark)


NOUNS: tuple[Word, ...] = (
    _said("ball", "球"),
    _said("box", "盒子"),
    _said("star", "星星"),
    _said("ring", "圆环"),
    _said("cross", "十字"),
    _said("moon", "月亮"),
    _said("heart", "爱心"),
    _said("arrow", "箭头"),
    _said("leaf", "树叶"),
    _said("key", "钥匙"),
    _said("tree", "树"),
    _said("fish", "鱼"),
)
COLOURS: tuple[Colour, ...] = (
    _colour("red", "红色", (214, 38, 40), (140, 14, 20), is_dark=True),
    _colour("orange", "橙色", (250, 140, 30), (205, 94, 6), is_dark=False),
    _colour("yellow", "黄色", (250, 218, 50), (206, 166, 10), is_dark=False),
    _colour("green", "绿色", (44, 160, 60), (18, 98, 32), is_dark=True),
    _colour("blue", "蓝色", (38, 92, 214), (14, 48, 136), is_dark=True),
    _colour("purple", "紫色", (138, 58, 178), (84, 22, 116), is_dark=True),
    _colour("pink", "粉色", (250, 152, 190), (222, 98, 148), is_dark=False),
    _colour("white", "白色", (246, 246, 242), (192, 194, 198), is_dark=False),
    _colour("black", "黑色", (30, 30, 36), (82, 82, 90), is_dark=True),
)
PATTERNS: tuple[Word, ...] = (
    Word(name="plain", en="", zh=""),
    _said("striped", "条纹"),
    _said("dotted", "圆点"),
    _said("checkered", "格子"),
)
MATERIALS: tuple[Word, ...] = (
    Word(name="matte", en="", zh=""),
    _said("shiny", "闪亮"),
    _said("rough", "粗糙"),
)
SIZES: tuple[Word, ...] = (
    _said("small", "小"),
    Word(name="medium", en="", zh=""),
    _said("big", "大"),
)
STUFF: tuple[Word, ...] = (
    _said("grass", "草地"),
    _said("sand", "沙地"),
    _said("water", "水面"),
    _said("brick", "砖墙"),
    _said("sky", "天空"),
    _said("wood", "木板"),
    _said("snow", "雪地"),
    _said("stone", "石头"),
)

CLASS_NAMES: tuple[str, ...] = tuple(word.name for word in (*NOUNS, *STUFF))
"""Names of the classes 1 to 20: the nouns, then the stuff. 0 is nothing."""
CLASS_IDS: dict[str, int] = {name: i for i, name in enumerate(CLASS_NAMES, 1)}
"""Class id by name."""

NOUN_WORDS: dict[str, Word] = {word.name: word for word in NOUNS}
COLOUR_WORDS: dict[str, Colour] = {word.name: word for word in COLOURS}
PATTERN_WORDS: dict[str, Word] = {word.name: word for word in PATTERNS}
MATERIAL_WORDS: dict[str, Word] = {word.name: word for word in MATERIALS}
SIZE_WORDS: dict[str, Word] = {word.name: word for word in SIZES}
STUFF_WORDS: dict[str, Word] = {word.name: word for word in STUFF}


def class_of_thing(colour: str, noun: str, names: Container[str]) -> str | None:
    """Which of the class `names` a thing is: "red ball" before "ball"; None where it is neither."""
    return next((name for name in (f"{colour} {noun}", noun) if name in names), None)
