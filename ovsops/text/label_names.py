"""Names that a detector is asked for, and the phrases that stand for them in its prompts. A label is a name's place."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from ovsops.errors import VocabularyError

_PARENTHESES = re.compile(r"\([^()]*\)|（[^（）]*）")
_BREAKS = re.compile(r"[_.?()（）\[\]{}<>]")
"""What would end a phrase inside a prompt (`.` and `?`), look like a special token, or is no word."""


@dataclass(frozen=True)
class LabelNames:
    """A fixed vocabulary of a detector. Labels are places in `names`, never strings, so names may repeat or collide.

    Names that clean to the same phrase ("bow (weapon)", "bow_(decorative_ribbons)") are one phrase of the prompt, as
    the detector cannot tell them apart; what is found for it is labelled with the first of them, and
    `names_of_phrase` lists all.
    """

    names: tuple[str, ...]
    """As given; nothing is dropped and the order is kept."""

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            raise VocabularyError(
                f"detector vocabulary: {self.names!r} is one string, whose letters would be the names; give a tuple,"
                f" ({self.names!r},)"
            )
        wrong = [name for name in self.names if not isinstance(name, str)]
        if wrong:
            raise VocabularyError(
                f"detector vocabulary: {wrong[0]!r} is of type {type(wrong[0]).__name__}; every name is a text (str)"
            )
        if not self.names:
            raise VocabularyError("detector vocabulary: it is empty; give one name or more")
        wordless = [name for name in self.names if not detector_phrase(name)]
        if wordless:
            raise VocabularyError(
                f"detector vocabulary: {', '.join(map(repr, wordless[:5]))} has no word left without brackets and "
                "full stops; give a noun phrase"
            )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def phrases(self) -> tuple[str, ...]:
        """The distinct cleaned names, in the order of their first name."""
        return tuple(self._labels_by_phrase)

    @cached_property
    def names_of_phrase(self) -> tuple[tuple[int, ...], ...]:
        """Labels of each phrase, ascending; more than one where names collide."""
        return tuple(self._labels_by_phrase.values())

    @property
    def collisions(self) -> tuple[tuple[str, ...], ...]:
        """Groups of names, as given, that no detector prompt can tell apart."""
        return tuple(
            tuple(self.names[label] for label in labels) for labels in self.names_of_phrase if len(labels) > 1
        )

    @cached_property
    def _labels_by_phrase(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for label, name in enumerate(self.names):
            phrase = detector_phrase(name)
            found[phrase] = (*found.get(phrase, ()), label)
        return found


def detector_phrase(name: str) -> str:
    """A name as it stands in a prompt: lower case, without what is in parentheses, full stops, brackets, underscores.

    The rule of LLMDet (iSEE-Laboratory/LLMDet at 5426efb) for LVIS names, and further: a full stop or question mark
    would split the name into two phrases. A name that is all in parentheses keeps their words. Empty where no word
    is left.
    """
    outside = unicodedata.normalize("NFC", name)
    while (shorter := _PARENTHESES.sub(" ", outside)) != outside:
        outside = shorter
    return _words(outside) or _words(unicodedata.normalize("NFC", name))


def _words(text: str) -> str:
    return " ".join(_BREAKS.sub(" ", text).lower().split())
