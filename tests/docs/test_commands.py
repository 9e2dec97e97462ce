"""Every `ovsops` line on a page or in infra/ is one that the command line takes, and names recipes that exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from jobs.cli import _common_options, app
from tests.infra.objects import ROOT

SKIPPED = {".venv", ".git", "node_modules", ".pytest_cache", ".hypothesis"}
FENCE = re.compile(r"^\s*```(?:bash|sh|shell|console)\s*$(.*?)^\s*```\s*$", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"^(?:\.venv/bin/)?ovsops\s+(.+)$")
RECIPE = re.compile(r"\b(?:jobs/recipes|infra)/[\w./-]+\.(?:yaml|sh|sbatch)\b|\binfra/docker/Dockerfile\.\w+")


def pages() -> list[Path]:
    found = [path for path in ROOT.rglob("*.md") if not SKIPPED & set(path.relative_to(ROOT).parts)]
    return sorted(found)


def scripts() -> list[Path]:
    found = [
        path for path in (ROOT / "infra").rglob("*") if path.is_file() and path.suffix not in (".md", ".py")
    ]
    return sorted(found + list((ROOT / "jobs" / "recipes").rglob("*.yaml")))


def lines_of(path: Path) -> Iterator[str]:
    """Lines of shell: fenced blocks of a page; of other files, lines that begin with the command, in comments, too."""
    text = path.read_text(encoding="utf-8")
    blocks = FENCE.findall(text) if path.suffix == ".md" else [text]
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            stripped = line.strip().removeprefix("#").strip().removeprefix("entrypoint:").strip()
            yield (
                stripped.split(" -- ", 1)[1]
                if stripped.startswith("ray ") and " -- " in stripped
                else stripped
            )


def calls() -> list[tuple[str, str]]:
    return [
        # In a comment of a script or a recipe, what a line does follows after a gap.
        (str(path.relative_to(ROOT)), found[1] if path.suffix == ".md" else re.split(r"\s{4,}", found[1])[0])
        for path in (*pages(), *scripts())
        for line in lines_of(path)
        if (found := CALL.match(line))
    ]


def parse(text: str) -> None:
    """Raise what typer says of a line; run nothing."""
    text = re.split(r"\s>\s", text)[0]
    words = shlex.split(text, comments=True)
    if "-" in words[1:2] or words[0].startswith(("-", "[")):
        return
    options, _ = _common_options([word.strip("[]") for word in words])
    group = typer.main.get_command(app)
    with group.make_context("ovsops", [options[0], "--help"], resilient_parsing=True):
        command = group.get_command(group.make_context("ovsops", [], resilient_parsing=True), options[0])  # type: ignore[attr-defined]
    assert command is not None, f"no verb {options[0]!r}"
    command.make_context(options[0], options[1:])


# In comments a sentence may begin with the name; these are the lines that are commands.
CALLS = [
    (page, text) for page, text in calls() if re.match(r"[a-z-]+(\s|$)", text) and not text.endswith(".")
]


def test_there_are_commands_to_check() -> None:
    assert len(CALLS) > 20
    assert {"README.md", "infra/README.md", "docs/labels.md", "infra/k8s/rayjob.yaml"} <= {
        page for page, _ in CALLS
    }


@pytest.mark.parametrize(("page", "text"), CALLS, ids=[f"{page}-{text[:50]}" for page, text in CALLS])
def test_the_command_line_takes_it(page: str, text: str) -> None:
    parse(text)


@pytest.mark.parametrize(
    "text", ["run", "run a.yaml --sett x=1", "exportt runs/a --out b", "export runs/a --to png --out b"]
)
def test_a_wrong_line_is_refused(text: str) -> None:
    with pytest.raises((AssertionError, *_usage_errors())):
        parse(text)


def _usage_errors() -> tuple[type[BaseException], ...]:
    from jobs.cli import _USAGE_ERROR

    return (_USAGE_ERROR,)


def test_every_file_that_is_named_exists() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (*pages(), *scripts())
        if path.name != "CHANGELOG.md"
        for name in RECIPE.findall(path.read_text(encoding="utf-8"))
        if not (ROOT / name).is_file()
    ]
    assert not missing


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target
