"""What is wrong with a set of negatives, whoever made them: rules, a language model, or somebody else's files.

Nothing here knows how negatives were made. That a negative is false of its picture cannot be read off
texts; what can be read off is checked: ten distinct captions, none the positive, plain words, and no traces
of careless replacement.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from ovsops.negatives.config import NUM_NEGATIVES

Fault = Literal[
    "F_COUNT", "F_DUPLICATE", "F_POSITIVE", "F_EMPTY", "F_CONTROL", "F_MARKS", "F_ARTICLE", "F_DOUBLED"
]
FAULTS: dict[Fault, str] = {
    "F_COUNT": f"not exactly {NUM_NEGATIVES} negatives",
    "F_DUPLICATE": "two negatives with the same words",
    "F_POSITIVE": "a negative with the words of the positive",
    "F_EMPTY": "a negative without a letter",
    "F_CONTROL": "control or invisible characters",
    "F_MARKS": "marks doubled at the end, or a space before a mark",
    "F_ARTICLE": "`a` before a vowel or `an` before a consonant, where the positive has no such fault",
    "F_DOUBLED": "a word twice in a row, where the positive has it once",
}
"""What can be found, in the order in which it is reported."""

_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*|[\u3400-\u9fff]")
_MARKS = re.compile(r"\s[.,;:!?]|[.。]\s*[.。]\s*$")
_ARTICLE = re.compile(r"\b(?:a [aeio]|an [^aeiouh\s])", re.IGNORECASE)
_AN_EXCEPTION = re.compile(r"\ba (?:one|eu)", re.IGNORECASE)
_DOUBLED = re.compile(r"\b([a-z]+)[ -]\1\b", re.IGNORECASE)


def set_faults(positive: str, negatives: Sequence[str]) -> list[tuple[Fault, str]]:
    """Faults of the negatives of one positive, each with the text that shows it; an empty list for a good set."""
    found: list[tuple[Fault, str]] = []
    if len(negatives) != NUM_NEGATIVES:
        found.append(("F_COUNT", str(len(negatives))))
    seen: set[tuple[str, ...]] = set()
    own = words_of(positive)
    for text in negatives:
        words = words_of(text)
        if words in seen:
            found.append(("F_DUPLICATE", text))
        if words == own:
            found.append(("F_POSITIVE", text))
        seen.add(words)
        found.extend((fault, text) for fault in text_faults(positive, text))
    return found


def words_of(text: str) -> tuple[str, ...]:
    """Words without marks and capitals: what two captions must differ in."""
    return tuple(_WORD.findall(text.lower()))


def text_faults(positive: str, text: str) -> list[Fault]:
    """Faults of one negative."""
    found: list[Fault] = []
    if not any(char.isalpha() for char in text):
        return ["F_EMPTY"]
    if not text.isprintable() and any(unicodedata.category(char)[0] == "C" for char in text):
        found.append("F_CONTROL")
    if _MARKS.search(text):
        found.append("F_MARKS")
    if (articles := _wrong_articles(text)) and articles > _wrong_articles(positive):
        found.append("F_ARTICLE")
    if (doubled := len(_DOUBLED.findall(text))) and doubled > len(_DOUBLED.findall(positive)):
        found.append("F_DOUBLED")
    return found


def _wrong_articles(text: str) -> int:
    return len(_ARTICLE.findall(text)) - len(_AN_EXCEPTION.findall(text))
