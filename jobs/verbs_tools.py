"""Verbs that need no run: `negate`, `validate-set`, `fit`, `doctor`, `schema`, `convert-mapper`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.exits import ExitCode
from jobs.options import OutFolder, Overrides, RecipePath, load_label


def negate(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN.jsonl", help="One object a line: `text`, if wanted `language` (en, zh)."),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.jsonl",
            help="The same with `positive` (the text with spaces and marks set straight: train on it, not on `text`),"
            " `negatives` and `types`.",
        ),
    ],
    level: Annotated[
        Literal["hard", "medium", "easy", "trivial"],
        typer.Option("--level", help="Attributes changed: 1, 2, 3; trivial: captions of other things."),
    ] = "hard",
    seed: Annotated[int, typer.Option("--seed", help="Others draw others.")] = 0,
    max_margin: Annotated[
        float | None,
        typer.Option(
            "--max-margin",
            help="Refuse captions that a model of texts alone prefers by more nats; inf refuses none.",
            show_default="0.5 at medium and easy, inf at hard",
        ),
    ] = None,
) -> int:
    """Ten negatives for each caption, or null and a reason. Ends in .gz: compressed. Needs no images."""
    from jobs.ending import tell
    from jobs.negate import negate_file
    from ovsops.negatives.config import NegativeConfig

    summary = negate_file(source, target, NegativeConfig(level=level, seed=seed, max_margin=max_margin))
    tell(summary.line())
    return 0


def validate_training_set(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Folder of a training set, or of several, or one file.")
    ],
    format_name: Annotated[
        Literal["auto", "finehard-json", "finehard-parquet", "webdataset", "coco", "hf"],
        typer.Option("--format", help="auto looks at the files."),
    ] = "auto",
    images: Annotated[
        Literal["none", "there", "whole"],
        typer.Option(
            "--images",
            help="Look at no picture, at headers alone, or decode every one and compare its SHA-256."
            " Only whole notices damage inside a picture.",
        ),
    ] = "there",
    root: Annotated[
        Path | None, typer.Option("--root", help="Image paths are below it. Default: the set's folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> int:
    """Prove that a training set, of anybody, keeps its contract; exit 3 and say what is wrong where it does not.

    A folder above several sets (a dataset job's output) has every one of them looked at.
    """
    import json

    from rich.console import Console

    from jobs.validate_set import print_reports
    from pipelines.validation.rules import plain_reports
    from pipelines.validation.sets import validate_sets

    reports = validate_sets(path, None if format_name == "auto" else format_name, images=images, root=root)
    if as_json:
        sys.stdout.write(json.dumps(plain_reports(path, reports), indent=1, ensure_ascii=True) + "\n")
    else:
        print_reports(reports, Console())
    return ExitCode.DONE if all(report.is_valid for report in reports) else ExitCode.OVER_LIMITS


def fit(
    recipe: RecipePath,
    out: OutFolder,
    images: Annotated[int, typer.Option(min=2, help="Images at most.")] = 500,
    gate: Annotated[
        bool, typer.Option("--gate", help="A presence gate, too: is a class in an image at all?")
    ] = False,
    overrides: Overrides = [],  # noqa: B006
) -> int:
    """Fit the numbers of a label recipe's expert and of its scores on images whose boxes are known."""
    from rich.console import Console

    from jobs.fitting import fit_recipe, print_fit

    found = fit_recipe(load_label(recipe, overrides), out, num_images=images, with_gate=gate)
    print_fit(found, out, Console())
    return 0


def doctor(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="Checks what it names, too.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006
) -> int:
    """Check this machine: versions, devices, memory, checkpoints, storage."""
    from rich.console import Console

    from jobs.doctor import examine, print_checks

    checks = examine(load_label(recipe, overrides) if recipe else None)
    print_checks(checks, Console())
    return ExitCode.DONE if all(check.ok for check in checks) else ExitCode.PREFLIGHT


def schema(job: Annotated[str, typer.Argument(help="Which job's recipe.")] = "label") -> int:
    """JSON schema of a recipe, for editors."""
    import json

    from jobs.recipe import JOBS, recipe_schema
    from ovsops.errors import ConfigError

    if job not in JOBS:
        raise ConfigError(f"job {job!r} is not known; this version has {', '.join(JOBS)}")
    sys.stdout.write(json.dumps(recipe_schema(job), indent=1, ensure_ascii=False) + "\n")
    return 0


def convert_mapper(
    source: Annotated[Path, typer.Argument(metavar="FILE.pth", help="Talk2DINO projection as published.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="File to write.")],
) -> int:
    """Convert a published Talk2DINO projection to safetensors, once. Runs no code of the file."""
    from ovsops.mapper.convert import convert_talk2dino

    convert_talk2dino(source, target)
    sys.stdout.write(f"{target}\n")
    return 0
