"""Markdown of counts and of text that others wrote: nothing of it breaks a table or becomes markup."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; whole numbers with thousands apart. Without rows: `None.`"""
    cells = [[f"{cell:,}" if isinstance(cell, int) else _cell(str(cell)) for cell in row] for row in rows]
    if not cells:
        return "None.\n"
    lines = [f"| {' | '.join(line)} |" for line in ([*head], ["---"] * len(head), *cells)]
    return "\n".join(lines) + "\n"


def most(counts: Mapping[str, int], at_most: int = 50) -> list[tuple[str, int]]:
    """By falling count, the rest as one row."""
    rows = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    rest = rows[at_most:]
    return rows[:at_most] + ([(f"({len(rest)} others)", sum(n for _, n in rest))] if rest else [])


def one_line(text: str) -> str:
    """The text with every run of blanks and line breaks as one blank."""
    return " ".join(text.split())


def plain(text: str) -> str:
    """Text of others as text: no tag, no link, no break."""
    return one_line(text).replace("<", "&lt;").replace("[", "\\[")


def _cell(text: str) -> str:
    return plain(text).replace("|", "\\|")[:200]
