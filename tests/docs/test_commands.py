"""Every command on a page is executed by a test, or stands with a reason in `table`; all of them parse."""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from jobs.cli import _USAGE_ERROR, app
from jobs.common_options import take_common_options
from tests.docs.pages import Command, commands, pages
from tests.docs.table import BENCHMARKS, BY_ANOTHER_TEST, EXECUTED, NOT_HERE
from tests.infra.objects import ROOT

CALL = re.compile(r"^(?:\.venv/bin/)?ovsops\s+(.+)$")
RECIPE = re.compile(r"\b(?:jobs/recipes|infra)/[\w./-]+\.(?:yaml|sh|sbatch)\b|\binfra/docker/Dockerfile\.\w+")
BENCHMARK = re.compile(r"^python -m benchmarks\.(\w+)\s*(.*)$")
COMMANDS = commands()


def scripts() -> list[Path]:
    found = [
        path for path in (ROOT / "infra").rglob("*") if path.is_file() and path.suffix not in (".md", ".py")
    ]
    return sorted(found + list((ROOT / "jobs" / "recipes").rglob("*.yaml")))


def calls_of_scripts() -> Iterator[tuple[str, str]]:
    """Lines of recipes and of infra/ that begin with the command, in comments, too."""
    for path in scripts():
        for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            stripped = line.strip().removeprefix("#").strip().removeprefix("entrypoint:").strip()
            if stripped.startswith("ray ") and " -- " in stripped:
                stripped = stripped.split(" -- ", 1)[1]
            if found := CALL.match(stripped):
                # What a line does follows after a gap.
                yield str(path.relative_to(ROOT)), re.split(r"\s{4,}", found[1])[0]


def calls_of_pages() -> Iterator[tuple[str, str]]:
    """What follows an `ovsops`, behind whatever hands it on."""
    for each in COMMANDS:
        for part in each.text.split(" -- "):
            if found := CALL.match(part):
                yield each.page, found[1]


def parse(text: str) -> None:
    """Raise what typer says of a line; run nothing. Of one with placeholders its verb and options are looked at."""
    text = re.split(r"\s>\s", text)[0]
    words = [word.strip("[]") for word in shlex.split(text, comments=True)]
    if words[0].startswith("-"):
        return
    options, _ = take_common_options(words)
    group = typer.main.get_command(app)
    with group.make_context("ovsops", [options[0], "--help"], resilient_parsing=True) as context:
        command = group.get_command(context, options[0])  # type: ignore[attr-defined]
    assert command is not None, f"no verb {options[0]!r}"
    if Command("", f"ovsops {text}", is_example=False).is_synopsis:
        known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        assert {word for word in options if word.startswith("--")} <= known
    else:
        command.make_context(options[0], options[1:])


# In comments a sentence may begin with the name; these are the lines that are commands.
CALLS = sorted(
    {
        (page, text)
        for page, text in (*calls_of_pages(), *calls_of_scripts())
        if re.match(r"[a-z-]+(\s|$)", text) and not text.endswith(".")
    }
)


def test_there_are_commands_to_check() -> None:
    assert len(CALLS) > 20
    assert {"README.md", "infra/README.md", "docs/labels.md", "infra/k8s/rayjob.yaml"} <= {
        page for page, _ in CALLS
    }


@pytest.mark.parametrize(("page", "text"), CALLS, ids=[f"{page}-{text[:50]}" for page, text in CALLS])
def test_the_command_line_takes_it(page: str, text: str) -> None:
    parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "run a.yaml b.yaml",
        "run a.yaml --sett x=1",
        "exportt runs/a --out b",
        "export runs/a --to png --out b",
        "audit RUN [--sead N]",
    ],
)
def test_a_wrong_line_is_refused(text: str) -> None:
    with pytest.raises((AssertionError, _USAGE_ERROR)):
        parse(text)


def test_every_command_is_executed_or_has_its_reason() -> None:
    """A new command on a page wants a line in `table`: a step of a walk, or why it cannot be executed."""
    executed = {each.text for each in EXECUTED}
    unknown = [
        f"{each.page}: {each.text}"
        for each in COMMANDS
        if not each.is_synopsis
        and each.text not in executed
        and each.text not in BY_ANOTHER_TEST
        and not BENCHMARK.match(each.text)
        and not any(each.text.startswith(beginning) for beginning in NOT_HERE)
    ]
    assert not unknown


def test_the_table_names_nothing_that_is_gone() -> None:
    texts = {each.text for each in COMMANDS}
    gone = [text for text in (*(each.text for each in EXECUTED), *BY_ANOTHER_TEST) if text not in texts]
    gone += [start for start in NOT_HERE if not any(text.startswith(start) for text in texts)]
    gone += [
        where for where in BY_ANOTHER_TEST.values() if where.endswith(".py") and not (ROOT / where).is_file()
    ]
    assert not gone


def test_every_benchmark_has_its_words() -> None:
    assert set(BENCHMARKS) == {p.stem for p in (ROOT / "benchmarks").glob("*.py")} - {"__init__"}


class Parsed(BaseException):
    """The words were taken."""


@pytest.mark.parametrize(
    ("name", "words"),
    sorted({found.groups() for each in COMMANDS if (found := BENCHMARK.match(each.text))}),
)
def test_a_benchmark_takes_its_words(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import argparse

    known = argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser, *more: object) -> None:
        given = [word.strip("[]") for word in shlex.split(words)]
        known(parser, ["1" if word in ("N",) else word for word in given])
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    required = {"compare_runs": "", "world_negatives": " OUT", "negative_validators": ""}
    words += required.get(name, "") if not words else ""
    with pytest.raises(Parsed):
        importlib.import_module(f"benchmarks.{name}").main()


def test_extras_that_pages_install_are_there() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        extra
        for each in COMMANDS
        if "pip install" in each.text
        for extra in re.findall(r"\[([\w,]+)\]", each.text)
    }
    assert named
    assert {part for extra in named for part in extra.split(",")} <= set(extras)


def test_the_makefile_does_what_the_walk_does() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    assert {each.text.split()[1] for each in COMMANDS if each.text.startswith("make ")} <= targets
    step = next(each for each in EXECUTED if each.text == "make demo")
    assert f"\n\t.venv/bin/{step.instead}\n" in text


def test_the_images_that_a_page_renames_are_in_the_files_it_names() -> None:
    (command,) = {each.text for each in COMMANDS if each.text.startswith("sed -i.bak")}
    _, _, script, *files = shlex.split(command)
    before = script.split("#")[1]
    holders = {
        str(p.relative_to(ROOT)) for p in (ROOT / "infra/k8s").glob("*.yaml") if before in p.read_text()
    }
    assert set(files) == holders


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
