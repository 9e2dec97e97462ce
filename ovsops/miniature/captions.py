"""What is said of scenes and things, in English and Chinese, and every word of it.

Captions fit into 64 text tokens: a long caption leaves out materials, then relations, then patterns, until it has at
most 60 English words and marks, or 62 Chinese characters. Nothing here is random.
"""

from collections.abc import Collection, Sequence
from typing import Literal, Protocol, runtime_checkable

from ovsops.miniature.attributes import (
    COLOUR_WORDS,
    MATERIAL_WORDS,
    NOUN_WORDS,
    PATTERN_WORDS,
    SIZE_WORDS,
    STUFF_WORDS,
    Language,
)
from ovsops.miniature.relations import RELATION_NAMES, Relation
from ovsops.miniature.scene import Scene

Length = Literal["short", "long"]
ATTRIBUTES: tuple[str, ...] = ("size", "colour", "pattern", "material")
"""What a region phrase may say besides the noun."""
MAX_TOKENS: dict[Language, int] = {"en": 60, "zh": 62}
"""Most words and marks (English) or characters (Chinese) of a scene's caption."""

_RELATIONS_ZH = {
    "left of": "在{}左边",
    "right of": "在{}右边",
    "above": "在{}上方",
    "below": "在{}下方",
    "in front of": "在{}前面",
}
GLUE: tuple[str, ...] = (
    *("a an and with on above the is ,", ";", ".", "，", "、", "。", "的", "和", "背景是", "上方是"),
    *RELATION_NAMES,
    *(sentence.replace("{}", " ") for sentence in _RELATIONS_ZH.values()),
)
"""What captions hold besides the attributes' own words."""


@runtime_checkable
class Described(Protocol):
    """What a phrase is about: a thing of a scene, or of a truth that was read back."""

    @property
    def noun(self) -> str:
        """Its name in English."""

    @property
    def colour(self) -> str:
        """Name of the colour."""

    @property
    def pattern(self) -> str:
        """plain, striped, dotted or checkered."""

    @property
    def material(self) -> str:
        """matte, shiny or rough."""

    @property
    def size(self) -> str:
        """small, medium or big."""


def region_phrase(thing: Described, language: Language, attributes: Collection[str] = ATTRIBUTES) -> str:
    """`big red striped shiny fish`, `大红色条纹闪亮的鱼`: the noun and those of the attributes that are said."""
    values = {
        "size": SIZE_WORDS[thing.size],
        "colour": COLOUR_WORDS[thing.colour],
        "pattern": PATTERN_WORDS[thing.pattern],
        "material": MATERIAL_WORDS[thing.material],
    }
    said = [values[name].in_language(language) if name in attributes else "" for name in ATTRIBUTES]
    noun = NOUN_WORDS[thing.noun].in_language(language)
    if language == "en":
        return " ".join([*filter(None, said), noun])
    return "".join([*said, "的" if said[3] else "", noun])


def region_long(scene: Scene, i: int, language: Language) -> str:
    """All that is known of `things[i]`: its attributes, the first relation it takes part in, and where it is."""
    phrase = region_phrase(scene.things[i], language)
    told = next((r for r in scene.relations if r.subject == i), None)
    other = None if told is None else _short(scene.things[told.object], language)
    if language == "en":
        where = f" {told.name} {_with_article(other)}" if told and other else ""
        return f"{_with_article(phrase)}{where} {_stuff(scene, language)}."
    where = _RELATIONS_ZH[told.name].format(other) if told else ""
    return f"{phrase}{where}，{_stuff(scene, language)}。"


def scene_caption(scene: Scene, language: Language, length: Length) -> str:
    """One sentence about the scene. short: two things by colour (and size) and the stuff; long: all of it."""
    if length == "short":
        first = sorted(range(len(scene.things)), key=lambda i: (-scene.things[i].area, i))[:2]
        phrases = [region_phrase(scene.things[i], language, ("size", "colour")) for i in sorted(first)]
        return _joined(phrases, [], scene, language)
    relations = chosen_relations(scene)
    caption = ""
    for attributes, count in (
        (ATTRIBUTES, 2),
        (("size", "colour", "pattern"), 2),
        (("size", "colour", "pattern"), 1),
        (("size", "colour", "pattern"), 0),
        (("colour", "pattern"), 0),
        (("colour",), 0),
        ((), 0),
    ):
        phrases = [region_phrase(thing, language, attributes) for thing in scene.things]
        caption = _joined(phrases, relations[:count], scene, language)
        if count_tokens(caption, language) <= MAX_TOKENS[language]:
            break
    return caption


def chosen_relations(scene: Scene) -> tuple[Relation, ...]:
    """Up to two relations for the caption: of different pairs with different subjects where there are any."""
    chosen: list[Relation] = []
    for relation in scene.relations:
        if all(relation.subject != other.subject for other in chosen):
            chosen.append(relation)
    return tuple(chosen[:2])


def count_tokens(text: str, language: Language) -> int:
    """Words and marks of an English text, characters of a Chinese one."""
    return len(split_words(text)) if language == "en" else len(text.replace(" ", ""))


def split_words(text: str) -> list[str]:
    """Words, marks and Chinese characters, one by one and in lower case."""
    words: list[str] = []
    is_open = False
    for char in text.lower():
        is_letter = char.isascii() and (char.isalnum() or char == "_")
        if is_letter and is_open:
            words[-1] += char
        elif not char.isspace():
            words.append(char)
        is_open = is_letter
    return words


def _short(thing: Described, language: Language) -> str:
    return region_phrase(thing, language, ("colour",))


def _with_article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def _stuff(scene: Scene, language: Language) -> str:
    names = [STUFF_WORDS[name].in_language(language) for name in scene.stuffs]
    if language == "en":
        return f"on {names[0]}" if len(names) == 1 else f"with {names[0]} above {names[1]}"
    return f"背景是{names[0]}" if len(names) == 1 else f"{names[1]}上方是{names[0]}"


def _joined(phrases: Sequence[str], relations: Sequence[Relation], scene: Scene, language: Language) -> str:
    if language == "zh":
        told = [
            _short(scene.things[r.subject], language)
            + _RELATIONS_ZH[r.name].format(_short(scene.things[r.object], language))
            for r in relations
        ]
        listed = phrases[0] if len(phrases) == 1 else "、".join(phrases[:-1]) + "和" + phrases[-1]
        return "，".join([listed, *told, _stuff(scene, language)]) + "。"
    named = [_with_article(phrase) for phrase in phrases]
    listed = named[0] if len(named) == 1 else ", ".join(named[:-1]) + " and " + named[-1]
    told = [
        f"the {_short(scene.things[r.subject], language)} is {r.name} the {_short(scene.things[r.object], language)}"
        for r in relations
    ]
    return "; ".join([f"{listed} {_stuff(scene, language)}", *told]) + "."
