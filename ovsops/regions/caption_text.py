"""Captions that somebody else wrote, as text that may be stored: cleaned, cut to length, and taken apart into clauses.

Nothing is trusted: a captioner may answer with markup, control characters or a megabyte.
"""

import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise

MAX_CHARS = 600
"""Longest caption that is kept; FG-CLIP 2's long texts end at 196 tokens."""

_MARKUP = re.compile(r"<[^<>]{0,200}>")
_SENTENCES_EN = r"[,;:.!?]+(?=\s|$)"
_JOINTS_EN = (
    r"\s(?=(?:with|without|which|that|who|whose|while|but|made|wearing|holding|standing|sitting|lying|on|in|next|near)\b)"
    r"|\sand\s(?=(?:a|an|the|its|his|her|their|some|two|three|several|is|has|with)\b)"
)
_EN = re.compile(f"{_SENTENCES_EN}|{_JOINTS_EN}", re.IGNORECASE)
_MARKS_ZH = r"[，。；：！？,;:!?]+"
_JOINTS_ZH = r"(?=(?:并且|而且|但是|同时|以及|上面有|带有|放在|位于))"
_ZH = re.compile(f"{_MARKS_ZH}|{_JOINTS_ZH}")
_LISTS_ZH = re.compile("[和与及、]")


@dataclass(frozen=True, kw_only=True)
class CleanText:
    """Text that may be stored, and what was done to it."""

    text: str
    num_removed: int
    """Characters that were taken out: controls, marks of direction, markup."""
    is_cut: bool
    """It was longer than allowed."""


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One statement of a caption."""

    lead: str
    """What stands between it and the clause before it: a mark, a conjunction, a space."""
    text: str


def clean_caption(text: str, *, max_chars: int = MAX_CHARS) -> CleanText:
    """One line of plain text, composed (NFC), at most `max_chars` long, cut between words where there are any.

    Controls, line breaks, private, unassigned and invisible characters and anything in angle brackets become
    spaces. What is far beyond the limit is not looked at.
    """
    start = text[: 8 * max_chars]
    plain = _MARKUP.sub(" ", start)
    kept = "".join(
        " " if unicodedata.category(char)[0] == "C" or char in "<>\u2028\u2029" else char for char in plain
    )
    line = " ".join(unicodedata.normalize("NFC", kept).split())
    num_removed = len(start) - len(plain) + sum(a != b for a, b in zip(plain, kept, strict=True))
    is_cut = len(line) > max_chars or len(start) < len(text)
    if len(line) > max_chars:
        space = line.rfind(" ", max_chars // 2, max_chars + 1)
        line = line[: space if space > 0 else max_chars].rstrip()
    return CleanText(text=line, num_removed=num_removed, is_cut=is_cut)


def split_clauses(text: str, language: str) -> list[Clause]:
    """Statements that can be checked one by one. Joined again they are the text, but for spaces.

    English parts at marks, before `with`, `which`, `on`, ... and at `and` before an article or verb, so that `black and
    white` stays whole. Chinese parts at marks and conjunctions, and at 和 or 、 between things that are described
    (红色的球和蓝色的盒子), not between words (红色和白色的球).
    """
    cuts = [(match.start(), match.end()) for match in (_ZH if language == "zh" else _EN).finditer(text)]
    if language == "zh":
        cuts = sorted(cuts + _list_cuts(text))
    edges = [(0, 0), *cuts, (len(text), len(text))]
    clauses: list[Clause] = []
    lead = ""
    for (start, end), (next_start, _) in pairwise(edges):
        lead += text[start:end]
        if body := text[end:next_start].strip():
            clauses.append(Clause(lead=lead, text=body))
            lead = ""
    return clauses


def join_clauses(clauses: list[Clause], language: str) -> str:
    """Text of clauses; marks and conjunctions in front of the first are gone."""
    text = ""
    for place, clause in enumerate(clauses):
        lead = clause.lead if place else ""
        if lead and not lead[-1].isspace() and language != "zh":
            lead += " "
        text += lead + clause.text
    return text


def _list_cuts(text: str) -> list[tuple[int, int]]:
    """Places of 和 and its like with 的 on both sides, up to the next marks."""
    found = []
    for match in _LISTS_ZH.finditer(text):
        before = re.split(r"[，。；：！？和与及、]", text[: match.start()])[-1]
        after = re.split(r"[，。；：！？和与及、]", text[match.end() :])[0]
        if "的" in before[1:] and "的" in after[1:]:
            found.append((match.start(), match.end()))
    return found
