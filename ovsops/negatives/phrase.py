"""A caption cut into its attribute slots, and put together again with other words in them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ovsops.negatives.lexicon import AttributeType, Language, Lexicon

EDGE = "|"
"""What stands before the first word and after the last one."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One span of a caption that says an attribute."""

    type: AttributeType
    term: int
    """Place of its term among those of its type."""
    role: str
    """What a word must be to fit here; `ANY` fits all."""
    start: int
    end: int
    """Characters `text[start:end]`."""
    article: int
    """Start of an `a` or `an` right before it; -1 where there is none."""
    around: tuple[str, str, str, str]
    """The second word before, the word before, the word after, the second word after. Slots show as `<type>`."""
    head: str
    """The word that it describes, as well as can be told; empty where it cannot."""
    partners: tuple[int, ...]
    """Slots of the same type that it is listed with ("white and red"): their values are not put here."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """A caption and its slots, from left to right."""

    text: str
    language: Language
    slots: tuple[Slot, ...]

    def value(self, lexicon: Lexicon, slot: int) -> str:
        """What slot `slot` says."""
        at = self.slots[slot]
        return lexicon.types[at.type].terms[at.term].value

    def replaced(self, surfaces: Mapping[int, str]) -> str:
        """The text with other words in some slots; articles and capitals follow them."""
        text = self.text
        for i in (
            sorted(surfaces, reverse=True) if len(surfaces) > 1 else surfaces
        ):  # from the right: places stay
            slot, surface = self.slots[i], surfaces[i]
            first = text[slot.start]
            start = slot.start
            is_vowel = surface[0] in "aeiou"
            if first.isupper():
                is_loud = text[slot.start : slot.end].isupper()
                surface = surface.upper() if is_loud else surface[0].upper() + surface[1:]
            if slot.article >= 0:
                start = slot.article
                surface = f"{text[start]}{'n' if is_vowel else ''} {surface}"
            text = f"{text[:start]}{surface}{text[slot.end :]}"
        return text


@dataclass(slots=True)
class Found:
    """A slot on its way: what the parsers of both languages hand to `finished`."""

    type: AttributeType
    term: int
    role: str
    start: int
    end: int
    first: int
    """Place of its first token."""
    last: int
    """Place of the token after it."""
    article: int = -1
    head: str = ""


def finished(
    text: str, language: Language, found: Sequence[Found], tokens: Sequence[str], links: frozenset[str]
) -> Phrase:
    """Slots with what is around them. `links` are the tokens that join a list of values."""
    words, place_of, done = [EDGE, EDGE], [], 0  # slots of several words are one word here
    for slot in found:
        words += tokens[done : slot.first]
        place_of.append(len(words))
        words.append(f"<{slot.type}>")
        done = slot.last
    words += (*tokens[done:], EDGE, EDGE)
    lists = _lists(found, tokens, links)
    slots = []
    for i, slot in enumerate(found):
        k = place_of[i]
        before = "a" if words[k - 1] == "an" else words[k - 1]
        partners = lists[i]
        slots.append(
            Slot(
                slot.type,
                slot.term,
                slot.role,
                slot.start,
                slot.end,
                slot.article,
                (words[k - 2], before, words[k + 1], words[k + 2]),
                slot.head,
                () if len(partners) == 1 else tuple(other for other in partners if other != i),
            )
        )
    return Phrase(text, language, tuple(slots))


def _lists(found: Sequence[Found], tokens: Sequence[str], links: frozenset[str]) -> list[list[int]]:
    """For each slot the slots of its type that are listed with it, itself included."""
    lists: list[list[int]] = []
    for i in range(len(found)):
        before = _listed_before(found, i, tokens, links)
        if before is None:
            lists.append([i])
        else:
            lists[before].append(i)
            lists.append(lists[before])
    return lists


def _listed_before(
    found: Sequence[Found], i: int, tokens: Sequence[str], links: frozenset[str]
) -> int | None:
    """The nearest earlier slot of the same type with nothing but links and other slots between."""
    place = found[i].first
    for j in range(i - 1, -1, -1):
        if any(token not in links for token in tokens[found[j].last : place]):
            return None
        if found[j].type == found[i].type:
            return j
        place = found[j].first
    return None


def iter_surfaces(lexicon: Lexicon) -> Iterator[tuple[str, tuple[tuple[AttributeType, int], ...]]]:
    """Every written form and what it may be, longest first."""
    yield from sorted(lexicon.by_surface.items(), key=lambda item: (-len(item[0]), item[0]))
