"""What a detector is asked for in a step: names in random order, some of them absent, in one of the languages.

Axes: L names, C classes, N pictures, T things.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ovsops.miniature.attributes import (
    COLOURS,
    LANGUAGES,
    MATERIALS,
    NOUNS,
    PATTERNS,
    SIZES,
    STUFF,
    Language,
)
from ovsops.miniature.captions import ATTRIBUTES, region_phrase

_FEWEST_NOUNS, _MOST_STUFF = 3, 4
_SAID_SHARE = 0.4
"""How often a name that may have attributes says each of them."""


@dataclass(frozen=True, kw_only=True)
class AskedNames:
    """The names of a prompt, no phrase twice."""

    phrases: tuple[str, ...]
    classes: Int[Tensor, " L"]
    """Of each, from 0: the nouns, then the stuff. What else a phrase says is not looked at."""

    def true_of(self, nouns: Int[Tensor, "N T"]) -> Bool[Tensor, "N T L"]:
        """Which names are true of things of these classes."""
        return nouns[:, :, None] == self.classes


@dataclass(frozen=True)
class _Imagined:
    """A thing that is nowhere: what a phrase about a noun says besides the noun."""

    noun: str
    colour: str
    pattern: str
    material: str
    size: str


def draw_names(*, partial_share: float, attribute_share: float, generator: torch.Generator) -> AskedNames:
    """All nouns, or with a chance of `partial_share` some nouns and some stuff, which no box ever shows.

    With a chance of `attribute_share` nouns come with attributes that were drawn without a look at any picture, some
    twice: a detector that learns from it finds nouns in longer phrases and is blind to the rest of them.
    """
    language = LANGUAGES[_below(len(LANGUAGES), generator)]
    classes = torch.randperm(len(NOUNS), generator=generator).tolist()
    if _chance(partial_share, generator):
        classes = classes[: _FEWEST_NOUNS + _below(len(NOUNS) - _FEWEST_NOUNS + 1, generator)]
        stuff = torch.randperm(len(STUFF), generator=generator)[: _below(_MOST_STUFF + 1, generator)]
        classes += (len(NOUNS) + stuff).tolist()
    words = (*NOUNS, *STUFF)
    if _chance(attribute_share, generator):
        classes += [c for c in classes if _chance(0.5, generator)]
        said = [(_with_attributes(c, language, generator), c) for c in classes]
    else:
        said = [(words[c].in_language(language), c) for c in classes]
    order = torch.randperm(len(said), generator=generator).tolist()
    names = dict(said[place] for place in order)
    return AskedNames(phrases=tuple(names), classes=torch.tensor(list(names.values())))


def _with_attributes(place: int, language: Language, generator: torch.Generator) -> str:
    if place >= len(NOUNS):
        return STUFF[place - len(NOUNS)].in_language(language)
    size, colour, pattern, material = (
        family[_below(len(family), generator)].name for family in (SIZES, COLOURS, PATTERNS, MATERIALS)
    )
    said = [attribute for attribute in ATTRIBUTES if _chance(_SAID_SHARE, generator)]
    thing = _Imagined(noun=NOUNS[place].name, colour=colour, pattern=pattern, material=material, size=size)
    return region_phrase(thing, language, said)


def _below(end: int, generator: torch.Generator) -> int:
    return int(torch.randint(end, (1,), generator=generator))


def _chance(share: float, generator: torch.Generator) -> bool:
    return bool(torch.rand(1, generator=generator) < share)
