"""What a caption claims, and whether two claims can both be true, as far as the lexicon knows.

A claim is a value of an attribute of a thing: `colour red of ball`. Words beyond the lexicon are kept apart: whoever
compares captions must not take what it cannot read for equal.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal, NamedTuple

import numpy as np

from ovsops.negatives.captions import accept
from ovsops.negatives.lexicon import AttributeType, Language, load_lexicon
from ovsops.negatives.phrase import Phrase, Slot
from ovsops.negatives.sampler import parse

Relation = Literal["same", "excluded", "confusable", "independent"]
"""Of two values of a type: equal; never both true; easily taken for each other, or both true; of different matters."""

_MAX_CHARS = 1000
_WORD = re.compile(r"[a-z0-9]+(?:['’-][a-z0-9]+)*|[\u3400-\u9fff]")
_FUNCTION_WORDS: dict[Language, frozenset[str]] = {
    "en": frozenset(
        "a an the and or of with in on at to from by for is are was were be been being it its that which who this these"
        " there has have having made out some as also very quite rather really colored coloured color colour pattern"
        " patterned material".split()
    ),
    "zh": frozenset("很较的了着和与及或是有在一个只条张把辆件块台本支双由用做制成色上"),
}
_MAIN = ""
"""Head of what is said of the caption's own thing."""
_OTHER = "*"
"""Head of what is said of some other thing: a second ball, or whatever a Chinese caption goes on about."""


class Claim(NamedTuple):
    """A value of a thing. A tuple, because validators compare and hash millions of them."""

    type: AttributeType
    value: str
    head: str
    """The word that it describes; empty for the caption's own thing."""


@dataclass(frozen=True, slots=True)
class Said:
    """A caption as claims."""

    language: Language
    listed: tuple[Claim, ...]
    """As often as they are made: a seat and legs made of wood make two."""
    words: frozenset[str]
    """Words that are neither claims nor grammar: what the lexicon does not know."""
    all_words: frozenset[str]
    """Words of claims, too."""

    @property
    def claims(self) -> frozenset[Claim]:
        """Each once."""
        return frozenset(self.listed)

    def beyond(self, other: "Said") -> list[Claim]:
        """Claims that the other caption does not make, or not as often."""
        own, others = self.listed, other.listed  # a handful: counting them is quicker than a table
        return [claim for claim in dict.fromkeys(own) if own.count(claim) > others.count(claim)]

    def is_said_in(self, other: "Said") -> bool:
        """Whether the other caption says all that this one says, as far as words tell."""
        if self.language != other.language or not self.words <= other.all_words:
            return False
        own, others = self.listed, other.listed
        return all(own.count(claim) <= others.count(claim) for claim in own)


@lru_cache(maxsize=65_536)
def said_by(text: str) -> Said | None:
    """The claims of a caption; None for one that is no plain caption in a known language (`captions.accept`)."""
    caption, found = accept(text, None, max_chars=_MAX_CHARS)
    if caption is None:
        return None
    language: Language = "zh" if found == "zh" else "en"
    phrase = parse(caption, language)
    lexicon = load_lexicon(language)
    listed = tuple(
        Claim(slot.type, lexicon.types[slot.type].terms[slot.term].value, head)
        for slot, head in zip(phrase.slots, _heads(phrase), strict=True)
    )
    lowered = caption.lower()
    rest = list(lowered)
    if len(lowered) == len(caption):  # a letter whose small form is longer: places would not fit
        for slot in phrase.slots:
            rest[slot.start : slot.end] = " " * (slot.end - slot.start)
    grammar = _FUNCTION_WORDS[language]
    return Said(
        language=language,
        listed=listed,
        words=frozenset(_WORD.findall("".join(rest))) - grammar,
        all_words=frozenset(_WORD.findall(lowered)) - grammar,
    )


def relation(language: Language, kind: AttributeType, one: str, other: str) -> Relation:
    """How two values of a type stand to each other.

    Values that do not exclude each other are confusable where some third value excludes both (striped excludes dotted
    and spotted), else of different matters (woven and striped).
    """
    if one == other:
        return "same"
    return _relations(language, kind).get((one, other), "independent")


def holds(claim: Claim, language: Language, known: Iterable[Claim]) -> Relation | None:
    """How a claim stands to what is known of the same thing: the relation that speaks most for it; None where nothing
    is known of that type."""
    found = {
        relation(language, claim.type, other.value, claim.value)
        for other in known
        if other.type == claim.type and other.head == claim.head
    }
    order: tuple[Relation, ...] = ("same", "confusable", "excluded", "independent")
    return next((each for each in order if each in found), None)


@cache
def _relations(language: Language, kind: AttributeType) -> dict[tuple[str, str], Relation]:
    found = load_lexicon(language).types.get(kind)
    if found is None:
        return {}
    values = list(dict.fromkeys(term.value for term in found.terms))
    first = {value: next(i for i, t in enumerate(found.terms) if t.value == value) for value in values}
    # A value that is never written is excluded by nobody in `may_replace`, but excludes others.
    allowed = found.may_replace | found.may_replace.T
    places = [first[value] for value in values]
    excludes = allowed[np.ix_(places, places)]
    shared = (excludes.astype(np.int64) @ excludes.astype(np.int64)) > 0
    return {
        (values[i], values[j]): "excluded"
        if excludes[i, j]
        else "confusable"
        if shared[i, j]
        else "independent"
        for i in range(len(values))
        for j in range(len(values))
    }


def _heads(phrase: Phrase) -> list[str]:
    """What each slot describes: empty for the caption's own thing, else a name that is the same in other captions."""
    thing = next((slot for slot in phrase.slots if slot.type == "object"), None)
    if thing is None:
        main = phrase.slots[0].head if phrase.slots else ""
        return [
            _MAIN if slot.head in ("", main) else _thing(slot.head, phrase.language) for slot in phrase.slots
        ]
    if phrase.language == "zh":  # attributes stand before their noun; behind the first noun nothing is sure
        return [_MAIN if slot.start <= thing.start else _OTHER for slot in phrase.slots]
    main = phrase.text[thing.start : thing.end].lower().split()[-1]
    is_named_again = re.search(rf"\b{re.escape(main)}\b", phrase.text[thing.end :].lower()) is not None
    return [_head(slot, thing, main, is_named_again) for slot in phrase.slots]


def _head(slot: Slot, thing: Slot, main: str, is_named_again: bool) -> str:
    if slot.type == "object" or not slot.head or slot.head in _FUNCTION_WORDS["en"]:
        return _MAIN
    if slot.head != main:
        return _thing(slot.head, "en")
    return _OTHER if is_named_again and slot.start > thing.start else _MAIN


def _thing(word: str, language: Language) -> str:
    """The lexicon's name of a thing, or the word."""
    lexicon = load_lexicon(language)
    for kind, place in lexicon.by_surface.get(word, ()):
        if kind == "object":
            return lexicon.types[kind].terms[place].value
    return word
