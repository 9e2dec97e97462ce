"""Words that say an attribute, in English and Chinese, and which may stand for each other. Axis: V terms.

The words come from `ovsops/negatives/data/*.yaml`, whose heads say where they are from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64

from ovsops.errors import VocabularyError
from ovsops.negatives.wording import Wording, wording_from_plain
from ovsops.text.yaml_file import parse_yaml

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
AttributeType = Literal[
    "colour",
    "material",
    "finish",
    "pattern",
    "transparency",
    "size",
    "count",
    "action",
    "relation",
    "object",
]
ATTRIBUTE_TYPES: tuple[AttributeType, ...] = (
    "colour",
    "material",
    "finish",
    "pattern",
    "transparency",
    "size",
    "count",
    "action",
    "relation",
    "object",
)
"""What can be changed in a caption; also the order in which the types of one negative are named."""

ANY = "*"
"""Role of a slot that every word of its type fits."""
FIXED = "="
"""Role of a slot that is read, but that no word fits: it stays as it is."""
READ_ONLY = "!"
"""In the roles of a word that is read and never written, because it says too little: a bicycle is a 车, too."""
PERSON, ANIMAL, THING, NO_PERSON = "PATN"
"""Roles of Chinese names of things; beside a measure word (只A) where something acts, or for persons always."""
_DEFAULT_ROLES: Mapping[tuple[str, str], str] = {
    ("en", "material"): "an",
    ("en", "pattern"): "ap",
    ("zh", "material"): "an",
    ("zh", "colour"): "c",
}
_UNUSUAL = 0.02
"""Expected frequency of a value that `usual` does not name, beside 1 / (2 + place) of those that it names."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One way to write a value."""

    surface: str
    """As it is written, in lower case."""
    value: str
    """What it means; several terms may mean the same."""
    roles: frozenset[str]
    """Where it fits. Objects: `s1`, `p2`: singular or plural, and how many words; in Chinese measure words."""
    is_main: bool
    """First of its value: written where no corpus says otherwise."""


@dataclass(frozen=True, kw_only=True)
class TermType:
    """The terms of one attribute type and what they exclude."""

    name: AttributeType
    terms: tuple[Term, ...]
    may_replace: Bool[np.ndarray, "V V"]
    """[old, new]: what the new term says is false wherever the old one is true."""
    expected: Float64[np.ndarray, " V"]
    """Frequency to be expected where no corpus is known; 0 for terms that are only read."""
    roles: dict[str, Bool[np.ndarray, " V"]]
    """By role, which terms fit."""
    is_narrow: Bool[np.ndarray, " V"]
    """Never put where no caption of the corpus has the term of the same thing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lexicon:
    """All attribute words of a language."""

    language: Language
    types: dict[AttributeType, TermType]
    by_surface: dict[str, tuple[tuple[AttributeType, int], ...]] = field(repr=False)
    """Type and place of each written form."""
    wording: Wording = field(default_factory=Wording, repr=False)
    """What refuses a caption, and what is never changed in one."""


@cache
def load_lexicon(language: Language) -> Lexicon:
    """The lexicon that comes with the package."""
    file = resources.files("ovsops.negatives").joinpath("data", f"{language}.yaml")
    return lexicon_from_plain(
        parse_yaml(file.read_text(encoding="utf-8"), where=f"lexicon {language}"),
        where=f"lexicon {language}",
    )


def lexicon_from_plain(data: Mapping[str, Any], *, where: str) -> Lexicon:
    """A lexicon of the mapping that its YAML holds; `VocabularyError` names what cannot be used."""
    language = data.get("language")
    if language not in LANGUAGES:
        raise VocabularyError(f"{where}: language is {language!r}, expected one of {', '.join(LANGUAGES)}")
    unknown = sorted(set(data) - {"language", "wording", *ATTRIBUTE_TYPES})
    if unknown:
        raise VocabularyError(
            f"{where}: {', '.join(unknown)}: no type of attribute; known: {', '.join(ATTRIBUTE_TYPES)}"
        )
    types = {
        name: _term_type(language, name, data[name], where=f"{where}: {name}")
        for name in ATTRIBUTE_TYPES
        if name in data
    }
    by_surface: dict[str, list[tuple[AttributeType, int]]] = {}
    for name, kind in types.items():
        for place, term in enumerate(kind.terms):
            by_surface.setdefault(term.surface, []).append((name, place))
    return Lexicon(
        language=language,
        types=types,
        by_surface={surface: tuple(places) for surface, places in by_surface.items()},
        wording=wording_from_plain(data.get("wording", {}), language=language, where=f"{where}: wording"),
    )


def _term_type(language: str, name: AttributeType, data: Mapping[str, Any], *, where: str) -> TermType:
    values = {**_shades(language, data)}
    for value, words in data["values"].items():
        values[value] = [
            *values.get(value, []),
            *(word for word in words if word not in values.get(value, [])),
        ]
    terms = tuple(
        term
        for value, words in values.items()
        for place, word in enumerate(words)
        for term in _terms(
            language, name, value, word, is_main=_is_main(words, place, by_role=data.get("by_role", False))
        )
    )
    if data.get("people") or data.get("animals"):
        terms = tuple(_with_kind(term, data) for term in terms)
    named = [value for group in (*data.get("families", ()), *data.get("ambiguous", ())) for value in group]
    for group in ("usual", "narrow", "people", "animals"):
        named += data.get(group, ())
    lost = sorted({value for value in named if value not in values})
    if lost:
        raise VocabularyError(f"{where}: {', '.join(lost)} in a group, but not among the values")
    roles = {role for term in terms for role in term.roles} | {ANY, FIXED}
    may_replace = _exclusions(
        list(values), terms, data.get("families"), [*data.get("ambiguous", ()), *_same_base(data)]
    )
    return TermType(
        name=name,
        terms=terms,
        may_replace=may_replace,
        expected=_expected(terms, data.get("usual", ())),
        roles={
            role: np.array([role in term.roles and READ_ONLY not in term.roles for term in terms], bool)
            for role in sorted(roles)
        },
        is_narrow=np.array([term.value in data.get("narrow", ()) for term in terms], bool),
    )


def _shades(language: str, data: Mapping[str, Any]) -> dict[str, list[str]]:
    """`light`, plain and `dark` of each base colour, in every spelling."""
    made: dict[str, list[str]] = {}
    suffix, gap = data.get("suffix", ""), " " if language == "en" else ""
    for base in data.get("shaded", ()):
        spellings = [base, *([data["spellings"][base]] if base in data.get("spellings", {}) else [])]
        for shade in ("plain", "light", "dark"):
            words = [
                f"{prefix}{joint}{spelling}{suffix}"
                for prefix in data[shade]
                for joint in ([""] if not prefix else [gap, "-"] if gap else [""])
                for spelling in spellings
            ]
            made[words[0]] = words
    return made


def _same_base(data: Mapping[str, Any]) -> Iterator[list[str]]:
    """Shades of one base colour are never exchanged."""
    gap = "" if data.get("suffix") else " "
    for base in data.get("shaded", ()):
        yield [
            f"{prefix}{gap if prefix else ''}{base}{data.get('suffix', '')}"
            for prefix in ("", data["light"][0], data["dark"][0])
        ]


def _terms(language: str, kind: str, value: str, word: str, *, is_main: bool) -> Iterator[Term]:
    surface, _, note = str(word).partition("|")
    if kind == "object" and language == "en":
        for role, text in (("s", surface), ("p", note or plural(surface))):
            if text != "-":
                roles = frozenset({f"{role}{len(text.split())}"})
                yield Term(surface=text, value=value, roles=roles, is_main=is_main)
        return
    roles = frozenset(note or _DEFAULT_ROLES.get((language, kind), "")) | {ANY}
    yield Term(surface=surface, value=value, roles=roles, is_main=is_main)


def _is_main(words: Sequence[str], place: int, *, by_role: bool) -> bool:
    """Whether a word is the first of its value, or, if asked, the first of its value with these roles."""
    notes = [frozenset(str(word).partition("|")[2]) for word in words[: place + 1]]
    if READ_ONLY in notes[-1]:
        return False
    return notes[-1] not in notes[:-1] if by_role else place == 0


def _with_kind(term: Term, data: Mapping[str, Any]) -> Term:
    """Roles by kind, alone and with each measure word. Persons stand for persons only, so that they have no others."""
    kind = (
        PERSON
        if term.value in data.get("people", ())
        else ANIMAL
        if term.value in data.get("animals", ())
        else THING
    )
    measures = term.roles - {ANY, READ_ONLY}
    roles = {*(term.roles - measures), kind, *(f"{measure}{kind}" for measure in measures)}
    if kind != PERSON:
        roles |= {NO_PERSON, *measures}
    return replace(term, roles=frozenset(roles))


def plural(noun: str) -> str:
    """The regular plural of an English noun."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _exclusions(
    values: Sequence[str],
    terms: Sequence[Term],
    families: Sequence[Sequence[str]] | None,
    ambiguous: Sequence[Sequence[str]],
) -> Bool[np.ndarray, "V V"]:
    place = {value: i for i, value in enumerate(values)}
    allowed = np.full((len(values), len(values)), families is None)
    for group in families or ():
        members = [place[value] for value in group]
        allowed[np.ix_(members, members)] = True
    for group in ambiguous:
        members = [place[value] for value in group if value in place]
        allowed[np.ix_(members, members)] = False
    np.fill_diagonal(allowed, False)
    of_term = [place[term.value] for term in terms]
    return allowed[np.ix_(of_term, of_term)]


def _expected(terms: Sequence[Term], usual: Sequence[str]) -> Float64[np.ndarray, " V"]:
    rank = {value: i for i, value in enumerate(usual)}
    return np.array(
        [
            0.0 if not term.is_main else 1 / (2 + rank[term.value]) if term.value in rank else _UNUSUAL
            for term in terms
        ]
    )
