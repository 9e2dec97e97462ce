"""What is true of a region, and what is nearly true: a phrase, and negatives that are wrong in one attribute.

Phrases here say every attribute, also those that go without saying elsewhere (`medium red plain ball`). So a phrase is
true of a thing or false of it: no negative is merely less exact, and none is known by its length.

Negatives are all values of a few attributes but the true one, of which some are drawn, each as likely as the others:
what a phrase says is no evidence that it is wrong, which `ovsops.metrics.blind` can check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from ovsops.errors import ConfigError
from ovsops.miniature.attributes import (
    COLOURS,
    LANGUAGES,
    MATERIALS,
    NOUN_WORDS,
    PATTERNS,
    SIZES,
    Language,
    Word,
)
from ovsops.miniature.captions import ATTRIBUTES, Described, split_words

Attribute = Literal["size", "colour", "pattern", "material"]
"""One of `captions.ATTRIBUTES`."""
CHANGED: tuple[Attribute, ...] = ("size", "colour", "pattern")
"""Attributes that negatives are wrong in where nothing else is asked for."""
NUM_NEGATIVES = 10

_SAID_OUTRIGHT = {"medium": ("medium", "中"), "plain": ("plain", "素面"), "matte": ("matte", "哑光")}
"""Words for values that captions leave unsaid."""
_VALUES: Mapping[str, Sequence[Word]] = {
    "size": SIZES,
    "colour": COLOURS,
    "pattern": PATTERNS,
    "material": MATERIALS,
}
_OUTRIGHT: Mapping[Language, Mapping[tuple[str, str], str]] = {
    language: {
        (attribute, value.name): value.in_language(language) or _SAID_OUTRIGHT[value.name][place]
        for attribute, values in _VALUES.items()
        for value in values
    }
    for place, language in enumerate(LANGUAGES)
}
_AS_CAPTIONS: Mapping[Language, Mapping[tuple[str, str], str]] = {
    language: {
        (attribute, value.name): value.in_language(language)
        for attribute, values in _VALUES.items()
        for value in values
    }
    for language in LANGUAGES
}
EXPLICIT_WORDS: tuple[str, ...] = tuple(
    sorted({word for pair in _SAID_OUTRIGHT.values() for text in pair for word in split_words(text)})
)
"""Words and characters of explicit phrases; captions do not have all of them."""


@runtime_checkable
class Located(Described, Protocol):
    """A thing with its place: of a scene, or of a truth that was read back."""

    @property
    def box_xywh(self) -> tuple[int, int, int, int]:
        """Tight box of the visible pixels: left, top, width, height."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Where a negative is wrong."""

    attribute: Attribute
    value: str
    """What it says instead."""


@dataclass(frozen=True, kw_only=True)
class RegionTruth:
    """A thing as an evaluation or a training of regions takes it."""

    box_xyxy: tuple[float, float, float, float]
    """Pixels, half-open."""
    noun: str
    values: Mapping[str, str]
    """Value of each attribute, by the attribute's name."""
    phrases: Mapping[Language, str]
    negatives: Mapping[Language, tuple[str, ...]]
    """Each differs from the phrase in one attribute; both languages in the same order."""
    changes: tuple[Change, ...]
    """Where each negative is wrong."""


def region_truth(
    thing: Located,
    generator: np.random.Generator,
    *,
    said: Sequence[Attribute] = CHANGED,
    changed: Sequence[Attribute] = CHANGED,
    num_negatives: int = NUM_NEGATIVES,
    outright: bool = True,
) -> RegionTruth:
    """The phrase that says `said`, and negatives drawn from all values of `changed`, none twice.

    Without `outright` phrases leave unsaid what captions leave unsaid: for a model that has read captions alone. Raises
    ConfigError where there are too few values, or a changed attribute is not said.
    """
    changes = draw_changes(thing, generator, changed=changed, num_negatives=num_negatives)
    if missing := [attribute for attribute in changed if attribute not in said]:
        raise ConfigError(
            f"negatives in {', '.join(missing)}, which the phrase does not say: add it to `said`"
        )
    x, y, width, height = thing.box_xywh
    return RegionTruth(
        box_xyxy=(float(x), float(y), float(x + width), float(y + height)),
        noun=thing.noun,
        values=values_of(thing),
        phrases={
            language: explicit_phrase(thing, language, said, outright=outright) for language in LANGUAGES
        },
        negatives={
            language: tuple(
                explicit_phrase(thing, language, said, change=change, outright=outright) for change in changes
            )
            for language in LANGUAGES
        },
        changes=changes,
    )


def draw_changes(
    thing: Described,
    generator: np.random.Generator,
    *,
    changed: Sequence[Attribute] = CHANGED,
    num_negatives: int = NUM_NEGATIVES,
) -> tuple[Change, ...]:
    """Wrong values in a random order, each as likely as the others. Raises ConfigError where there are too few."""
    pool = wrong_values(thing, changed)
    if num_negatives > len(pool):
        raise ConfigError(
            f"{num_negatives} negatives, but {', '.join(changed) or 'no attributes'} have only {len(pool)} wrong "
            "values: change more attributes, or ask for fewer"
        )
    return tuple(pool[place] for place in generator.permutation(len(pool))[:num_negatives])


def wrong_values(thing: Described, changed: Sequence[Attribute] = CHANGED) -> tuple[Change, ...]:
    """Every value of these attributes that the thing has not."""
    values = values_of(thing)
    return tuple(
        Change(attribute=attribute, value=value.name)
        for attribute in changed
        for value in _VALUES[attribute]
        if value.name != values[attribute]
    )


def values_of(thing: Described) -> dict[str, str]:
    """Value of each attribute, in the order of `captions.ATTRIBUTES`."""
    return {attribute: getattr(thing, attribute) for attribute in ATTRIBUTES}


def explicit_phrase(
    thing: Described,
    language: Language,
    said: Sequence[str] = CHANGED,
    *,
    change: Change | None = None,
    outright: bool = True,
) -> str:
    """`medium red plain ball`, `中红色素面球`: the noun, and every attribute in `said`, one of them changed.

    Without `outright` it is the phrase of `captions.region_phrase`. The order of words is always that one.
    """
    values = values_of(thing)
    if change is not None:
        values[change.attribute] = change.value
    vocabulary = (_OUTRIGHT if outright else _AS_CAPTIONS)[language]
    words = [
        vocabulary[attribute, values[attribute]] if attribute in said else "" for attribute in ATTRIBUTES
    ]
    noun = NOUN_WORDS[thing.noun].in_language(language)
    if language == "en":
        return " ".join([*filter(None, words), noun])
    return "".join([*words, "的" if words[-1] else "", noun])
