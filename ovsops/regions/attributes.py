"""Words for what a region looks like: values of colour, material, ..., in several languages, and phrases made of them.

A vocabulary is read from `ovsops/regions/data/attributes.yaml` or made from one's own words. Its types compete only
within themselves: a ball is red or blue, and it is striped or plain.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from ovsops.errors import VocabularyError
from ovsops.text.fields import Fields
from ovsops.text.names import nearest
from ovsops.text.yaml_file import parse_yaml

Words = Literal["photos", "world"]
"""Vocabularies that come with the package."""

_UNSPACED = frozenset({"zh"})
"""Languages that write words without spaces."""


@dataclass(frozen=True, kw_only=True)
class AttributeValue:
    """One value of a type."""

    name: str
    """As it is stored."""
    words: Mapping[str, str]
    """As it stands before the noun, by language. An empty word: the noun alone stands for this value."""
    base: str = ""
    """The value that is said where only the shade is in doubt; itself where empty."""
    is_said: bool = True
    """Whether captions write it; otherwise it competes only (plain, opaque)."""

    @property
    def family(self) -> str:
        """Name of the base: values of one family differ in shade."""
        return self.base or self.name

    def phrase(self, noun: str, language: str) -> str:
        """The noun with this attribute: `red ball`, `红色球`."""
        return joined([self.words[language], noun], language)


@dataclass(frozen=True, kw_only=True)
class AttributeType:
    """Values of which one holds at most."""

    name: str
    values: tuple[AttributeValue, ...]

    def __post_init__(self) -> None:
        where = f"attribute type {self.name}"
        names = [value.name for value in self.values]
        if len(names) < 2 or len(set(names)) < len(names):
            raise VocabularyError(f"{where}: values {names}: two or more are wanted, none twice")
        for value in self.values:
            base = next((other for other in self.values if other.name == value.family), None)
            if base is None or base.base:
                raise VocabularyError(
                    f"{where}: {value.name} has the base {value.base!r}{nearest(value.base, names)}: it must be a value"
                    " of this type that has no base itself"
                )
        languages = {frozenset(value.words) for value in self.values}
        if len(languages) > 1:
            raise VocabularyError(
                f"{where}: not every value has a word in the same languages; add the missing ones"
            )
        for language in next(iter(languages)):
            words = [value.words[language] for value in self.values]
            if len(set(words)) < len(words):
                raise VocabularyError(
                    f"{where}: two values share a word in {language}; no phrase tells them apart"
                )


@dataclass(frozen=True, kw_only=True)
class AttributeVocabulary:
    """All types, and in which order a caption says them."""

    types: tuple[AttributeType, ...]
    order: Mapping[str, tuple[str, ...]]
    """By language: every type once, first to last before the noun."""

    def __post_init__(self) -> None:
        names = [kind.name for kind in self.types]
        if not names or len(set(names)) < len(names):
            raise VocabularyError(f"attribute types {names}: one or more are wanted, none twice")
        for language, order in self.order.items():
            if sorted(order) != sorted(names):
                raise VocabularyError(
                    f"attribute order of {language} is {list(order)}: it names each of {', '.join(names)} once"
                )
            for kind in self.types:
                if language not in kind.values[0].words:
                    raise VocabularyError(f"attribute type {kind.name} has no words in {language}; add them")

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that captions can be made in."""
        return tuple(self.order)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the types."""
        return tuple(kind.name for kind in self.types)

    def type(self, name: str) -> AttributeType:
        """The type of that name; `VocabularyError` where there is none."""
        for kind in self.types:
            if kind.name == name:
                return kind
        raise VocabularyError(
            f"there is no attribute type {name!r}{nearest(name, self.names)}; there are {', '.join(self.names)}"
        )

    def check_language(self, language: str) -> None:
        """`VocabularyError` for a language without words."""
        if language not in self.order:
            raise VocabularyError(
                f"attributes have no words in {language!r}; they have {', '.join(self.order)}"
            )

    def caption(self, noun: str, values: Mapping[str, AttributeValue], language: str) -> str:
        """The noun with the values of several types, in the language's order."""
        said = [values[name].words[language] for name in self.order[language] if name in values]
        return joined([*said, noun], language)

    def mentions(self, text: str, language: str) -> frozenset[str]:
        """Types of which the text says a value already."""
        return frozenset(
            kind.name
            for kind in self.types
            if any(find_word(value.words[language], text, language) for value in kind.values)
        )


@cache
def load_attributes(words: Words = "photos") -> AttributeVocabulary:
    """A vocabulary that comes with the package: for photographs, or for the miniature world."""
    name = {"photos": "attributes.yaml", "world": "attributes_world.yaml"}[words]
    file = resources.files("ovsops.regions").joinpath("data", name)
    return read_attributes(file.read_text(encoding="utf-8"), where=name)


def read_attributes(text: str, *, where: str) -> AttributeVocabulary:
    """A vocabulary from YAML; `VocabularyError` says what is wrong and where."""
    fields = Fields(parse_yaml(text, where=where), where=where, known=("order", "types"))
    order = fields.texts_by_language("order")
    types = []
    for name, values in fields.mapping("types").items():
        if not isinstance(values, list):
            raise VocabularyError(f"{where}: types.{name} must be a list of values")
        types.append(
            AttributeType(
                name=str(name),
                values=tuple(
                    _value(item, where=f"{where}: types.{name}[{place}]", languages=tuple(order))
                    for place, item in enumerate(values)
                ),
            )
        )
    return AttributeVocabulary(types=tuple(types), order=order)


def joined(words: Sequence[str], language: str) -> str:
    """Words as the language writes them beside each other; empty ones are left out."""
    return ("" if language in _UNSPACED else " ").join(word for word in words if word)


def find_word(word: str, text: str, language: str) -> re.Match[str] | None:
    """Where the text says the word: a whole word in languages with spaces, any place in the others."""
    if not word:
        return None
    pattern = re.escape(word)
    if language not in _UNSPACED:
        pattern = rf"(?<![\w-]){pattern}(?![\w-])"
    return re.search(pattern, text, re.IGNORECASE)


def check_types(names: Collection[str], vocabulary: AttributeVocabulary) -> None:
    """`VocabularyError` for a name that is no type."""
    for name in names:
        vocabulary.type(name)


def _value(item: Any, *, where: str, languages: tuple[str, ...]) -> AttributeValue:
    fields = Fields(item, where=where, known=("name", "base", "said", *languages))
    is_said = fields.data.get("said", True)
    if not isinstance(is_said, bool):
        raise VocabularyError(f"{where}: said is {is_said!r}; true or false is wanted")
    return AttributeValue(
        name=fields.text("name"),
        words={language: fields.text(language) for language in languages},
        base=fields.text("base", ""),
        is_said=is_said,
    )
