"""Captions as they come: which are plain words of one language, and which are refused, with the reason."""

import re
import unicodedata
from typing import Any

from ovsops.negatives.config import Reason
from ovsops.negatives.lexicon import Language, load_lexicon

_SPACES = re.compile(r"\s+")
_BEFORE_MARK = re.compile(r"\s+([.,;:!?])")
_MARKS_AT_END = re.compile(r"([.!?。！？])(?:\s*[.!?。！？])+$")
_MARKUP = re.compile(r"[<>{}\[\]\\`|*#_~^]|://|\bwww\.|&(?:[a-zA-Z]+|#\d+);")
_PLAIN_ENGLISH = re.compile(r"[A-Za-z][A-Za-z0-9 ,.'-]*\Z")
_MOST_LATIN = 8
"""Latin letters that a Chinese caption may hold (T恤, LED, USB)."""


def accept(text: Any, language: Any, *, max_chars: int) -> tuple[str, Language] | tuple[None, Reason]:
    """The caption with plain spaces and marks, and its language; or None and the reason for refusing it.

    `language` is what the row says, or None: then it is the one whose letters are used. Tabs and line breaks count as
    spaces. Marks are set straight ("wood. ." ends with one full stop), nothing else is changed. A caption that denies
    something or leaves it open is refused (`wording.Wording`).
    """
    if not isinstance(text, str):
        return None, "R_NO_TEXT"
    if len(text) > max_chars:
        return None, "R_TOO_LONG"
    named: Language | None = None
    if language is not None:
        named = _named_language(language)
        if named is None:
            return None, "R_LANGUAGE"
    text = _SPACES.sub(" ", text).strip()
    if not _PLAIN_ENGLISH.match(text):
        reason = _refusal(text)
        if reason is not None:
            return None, reason
        found = _language_of(text)
    else:
        found = "en"
    if found is None:
        return None, "R_LANGUAGE"
    if named is not None and found != named:
        return None, "R_LANGUAGE_MISMATCH"
    reason = load_lexicon(found).wording.refusal(text)
    if reason is not None:
        return None, reason
    return _MARKS_AT_END.sub(r"\1", _BEFORE_MARK.sub(r"\1", text)), found


def _named_language(language: Any) -> Language | None:
    word = language.lower() if isinstance(language, str) else ""
    if word in ("en", "english") or word.startswith(("en-", "en_")):
        return "en"
    if word in ("zh", "chinese", "中文") or word.startswith(("zh-", "zh_")):
        return "zh"
    return None


def _refusal(text: str) -> Reason | None:
    if any(unicodedata.category(char)[0] == "C" for char in text):
        return "R_CONTROL"
    if _MARKUP.search(text):
        return "R_MARKUP"
    if not any(char.isalpha() for char in text):
        return "R_EMPTY"
    return None


def _language_of(text: str) -> Language | None:
    latin = chinese = 0
    for char in text:
        if "\u3400" <= char <= "\u9fff":
            chinese += 1
        elif char.isalpha():
            if ord(char) > 0x24F:
                return None
            latin += 1
    if not chinese:
        return "en"
    return "zh" if latin <= min(chinese, _MOST_LATIN) else None
