"""Commands of the pages: lines of shell blocks, of indented examples, and code within sentences."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.infra.objects import ROOT

SKIPPED = {".venv", ".git", "node_modules", ".pytest_cache", ".hypothesis"}
FENCE = re.compile(r"^\s*```(\w*)\s*$(.*?)^\s*```\s*$", re.MULTILINE | re.DOTALL)
SHELLS = {"bash", "sh", "shell", "console"}
INDENTED = re.compile(r"^ {4,}((?:\.venv/bin/)?(?:ovsops|python -m|make) .+)$", re.MULTILINE)
INLINE = re.compile(r"`((?:\.venv/bin/)?(?:ovsops|python -m|make|pytest|pip install) [^`]+)`")
PLACEHOLDER = re.compile(r"\s\[|\.\.\.|\s[A-Z][A-Z0-9]*(?:\.\w+)?(?:\s|$)")
"""What stands for something that the reader has: OUT, RECIPE, [--option], FILE.pth."""


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    page: str
    text: str
    is_example: bool
    """On a line of its own, to be typed as it stands; else part of a sentence."""

    @property
    def is_synopsis(self) -> bool:
        """It cannot be typed as it stands: it has placeholders, or is the name of a verb alone."""
        if self.text.startswith("pip "):
            return False
        is_name = self.text.startswith("ovsops ") and len(self.text.split()) < 3 and not self.is_example
        return is_name or bool(PLACEHOLDER.search(self.text))


def pages() -> list[Path]:
    """Every page of the tree."""
    found = [path for path in ROOT.rglob("*.md") if not SKIPPED & set(path.relative_to(ROOT).parts)]
    return sorted(found)


def plain(text: str) -> str:
    """A command without its comment, its environment's folder and its gaps."""
    text = re.split(r"\s+#\s", text.strip())[0].removeprefix(".venv/bin/")
    return " ".join(text.split())


def commands_of(path: Path) -> Iterator[Command]:
    """Commands of a page, in their order."""
    page = str(path.relative_to(ROOT))
    text = path.read_text(encoding="utf-8")
    for language, block in FENCE.findall(text):
        if language in SHELLS:
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split(" && ") if line.strip() and not line.strip().startswith("#") else ():
                    yield Command(page, plain(part), is_example=True)
    prose = FENCE.sub("", text)
    for line in INDENTED.findall(prose):
        yield Command(page, plain(line), is_example=True)
    for code in INLINE.findall(prose):
        yield Command(page, plain(code), is_example=False)


def commands() -> list[Command]:
    """Of all pages but the changelog, which tells of versions that are gone."""
    return [each for path in pages() if path.name != "CHANGELOG.md" for each in commands_of(path)]
