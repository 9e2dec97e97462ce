"""How captions say what must not be changed: denials, alternatives, and names of several words.

Where a caption says what is not so ("not a red car") or leaves something open ("red or blue"), another value is often
true as well. Such captions get no negatives. The words are in the `wording` of a lexicon's file, in every language in
the same way; `Wording.refusal` is asked by `captions.accept`, `Wording.denied` by the parsers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovsops.errors import VocabularyError
from ovsops.negatives.config import Reason

_FIELDS = ("except", "denying", "ends", "names")
_REASONS: tuple[Reason, ...] = ("R_NEGATION", "R_ALTERNATIVE")


_WORD = re.compile(r"[a-z0-9]+")
_GAPS = {code: " " for code in (*range(128), 0x2018, 0x2019) if not chr(code).isalnum()}
"""For `str.translate`, which is several times as fast as a search for words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Entries:
    """Writings to be found, and what tells quickly that none of them is there."""

    pattern: re.Pattern[str]
    words: frozenset[str]
    """One word of each entry that has one."""
    parts: tuple[str, ...]
    """The other entries."""
    is_worded: bool
    """Whether entries are of whole words."""

    def may_be_in(self, lowered: str) -> bool:
        """False only where no entry is in the text."""
        return (
            not self.is_worded
            or not self.words.isdisjoint(lowered.translate(_GAPS).split())
            or any(part in lowered for part in self.parts)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Wording:
    """What a language's captions are searched for before anything is changed in them."""

    names: tuple[str, ...] = ()
    """Words that name a thing together ("hot dog"): nothing in them is a slot."""
    _refused: _Entries | None = field(default=None, repr=False)
    _denying: _Entries | None = field(default=None, repr=False)
    _ends: re.Pattern[str] | None = field(default=None, repr=False)

    def refusal(self, text: str) -> Reason | None:
        """Why a caption gets no negatives for how it is worded; None for a plain statement."""
        lowered = text.lower()
        if self._refused is None or not self._refused.may_be_in(lowered):
            return None
        for match in self._refused.pattern.finditer(lowered):
            if match.lastgroup != "except":
                return next(reason for reason in _REASONS if reason == match.lastgroup)
        return None

    def denied(self, lowered: str) -> list[tuple[int, int]]:
        """Characters [start, end) that a caption in small letters denies: nothing there may be changed.

        From a word such as "without" to the next end of what it rules, or to the end of the caption.
        """
        spans: list[tuple[int, int]] = []
        if self._denying is None or not self._denying.may_be_in(lowered):
            return spans
        place = 0
        while (match := self._denying.pattern.search(lowered, place)) is not None:
            end = self._ends.search(lowered, match.end()) if self._ends is not None else None
            place = len(lowered) if end is None else end.start()
            spans.append((match.start(), place))
        return spans


def wording_from_plain(data: Mapping[str, Any], *, language: str, where: str) -> Wording:
    """The wording of a lexicon's file; `VocabularyError` names what cannot be used.

    Fields, all lists and none of them needed: `R_NEGATION` and `R_ALTERNATIVE` (what refuses a caption), `except`
    (longer writings that hold one of those and mean none of it), `denying` (what follows is left alone), `ends` (up to
    one of these), `names`. In English an entry is whole words, and `*` at its start or end stands for the rest of a
    word (`*n't`); in Chinese it is found anywhere.
    """
    known = (*_REASONS, *_FIELDS)
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise VocabularyError(f"{where}: {', '.join(unknown)}: expected fields among {', '.join(known)}")
    for name, entries in data.items():
        if not isinstance(entries, list) or not all(
            isinstance(entry, str) and entry.strip("* ") and entry == entry.lower() for entry in entries
        ):
            raise VocabularyError(f"{where}: {name}: expected a list of texts in small letters")
    groups = [
        f"(?P<{name}>{_pattern(data[name], language)})" for name in ("except", *_REASONS) if data.get(name)
    ]
    refused = [entry for name in _REASONS for entry in data.get(name, ())]
    denying = data.get("denying", [])
    ends = data.get("ends", [])
    return Wording(
        names=tuple(data.get("names", ())),
        _refused=_entries(refused, "|".join(groups), language) if refused else None,
        _denying=_entries(denying, _pattern(denying, language), language) if denying else None,
        _ends=re.compile(_pattern(ends, language)) if ends else None,
    )


def _entries(entries: Sequence[str], pattern: str, language: str) -> _Entries:
    words = {entry: _rarest_word(entry) for entry in entries}
    return _Entries(
        pattern=re.compile(pattern),
        words=frozenset(word for word in words.values() if word),
        parts=tuple(entry.strip("*") for entry, word in words.items() if not word),
        is_worded=language == "en",
    )


def _rarest_word(entry: str) -> str:
    """The longest whole word of an entry; empty where it has none."""
    whole = re.sub(r"^\*[a-z0-9]+|[a-z0-9]+\*$", "", entry)
    return max(_WORD.findall(whole), key=len, default="")


def _pattern(entries: Sequence[str], language: str) -> str:
    """Any of the entries, the longest first; those with equal edges share them, which is much faster."""
    by_edges: dict[tuple[str, str], list[str]] = {}
    for entry in sorted(entries, key=lambda entry: (-len(entry), entry)):
        body = re.escape(entry.strip("*"))
        edges = ("", "")
        if language == "en":
            body = body.replace("'", "['’]").replace(r"\ ", r"\s+")
            edges = (r"(?<!\w)" if entry[0].isalnum() else "", r"(?!\w)" if entry[-1].isalnum() else "")
        by_edges.setdefault(edges, []).append(body)
    return "|".join(f"{before}(?:{'|'.join(bodies)}){after}" for (before, after), bodies in by_edges.items())
