"""`ovsops audit`: draw labels for people to judge, and read what they answered."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.diff import load_settings, say
from pipelines.counted import counted

if TYPE_CHECKING:
    from pipelines.audit.config import AuditConfig, SampleConfig
    from pipelines.audit.form import Answer
    from pipelines.audit.record import SampleRecord
    from pipelines.audit.sample import Sample
    from pipelines.storage import Storage, StorageOptions

CSV, JSON_LINES, RESULT = "audit.csv", "audit.jsonl", "result.json"


def audit(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder or s3:// of a run.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Draw a sample into this new folder.")
    ] = None,
    filled: Annotated[
        Path | None,
        typer.Option("--filled", metavar="FILE", help="Read answers: the CSV or JSON Lines, filled."),
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Labels to draw. Default: 200.")] = None,
    seed: Annotated[int | None, typer.Option(help="Others draw others. Default: 0.")] = None,
    quality: Annotated[
        float | None, typer.Option(help="Least share of right labels. Default: 0.95.", show_default=False)
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Chance of a wrong decision. Default: 0.05.", show_default=False)
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option("--sample", metavar="FILE", help="sample.json of the draw. Default: beside --filled."),
    ] = None,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Draw the labels.")] = True,
    calibrator: Annotated[
        Path | None,
        typer.Option("--calibrator", metavar="OUT.json", help="Fit scores to chances on the answers, too."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.yaml", help="Fields `sample` and `acceptance`.")
    ] = None,
    overrides: Annotated[
        list[str],
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field: --set sample.least=5."),
    ] = [],  # noqa: B006  typer copies it
    endpoint_url: Annotated[
        str | None, typer.Option("--endpoint-url", help="S3 server, where the run is not on AWS.")
    ] = None,
) -> int:
    """Judge a run by a sample: --out DIR draws, --filled FILE reads. Exit 6 where a run is not shown good enough."""
    from dataclasses import replace

    from ovsops.errors import ConfigError
    from pipelines.audit.config import AuditConfig
    from pipelines.storage import StorageOptions, open_storage

    if (out is None) == (filled is None):
        raise ConfigError(
            "audit: give --out DIR to draw a sample, or --filled FILE to read answers; one of the two"
        )
    settings: AuditConfig = load_settings(AuditConfig, config, overrides)
    draw, limit = settings.sample, settings.acceptance
    settings = replace(
        settings,
        sample=replace(
            draw, rows=draw.rows if rows is None else rows, seed=draw.seed if seed is None else seed
        ),
        acceptance=replace(
            limit,
            quality=limit.quality if quality is None else quality,
            alpha=limit.alpha if alpha is None else alpha,
        ),
    )
    options = StorageOptions(s3_endpoint=endpoint_url)
    storage = open_storage(run, options)
    if out is not None:
        if calibrator is not None:
            raise ConfigError("--calibrator is fitted on answers: give it with --filled")
        return _draw(storage, out, settings, options, has_pictures=pictures)
    assert filled is not None, "checked above"
    return _read(storage, filled, sample or filled.parent / "sample.json", settings, calibrator, as_json)


def _draw(
    storage: "Storage", out: Path, settings: "AuditConfig", options: "StorageOptions", *, has_pictures: bool
) -> int:
    from pipelines.audit.pictures import PAGE
    from pipelines.audit.text import drawn_lines

    record, num_pictures = draw(storage, out, settings.sample, options, has_pictures=has_pictures)
    say(drawn_lines(record, str(out), num_pictures=num_pictures, page=str(out / PAGE)))
    return 0


def draw(
    storage: "Storage",
    out: Path,
    settings: "SampleConfig",
    options: "StorageOptions",
    *,
    has_pictures: bool,
) -> "tuple[SampleRecord, int]":
    """Draw a sample of a run into a new folder: its record, and how many pictures there are.

    Raises `OutputError` for a folder that holds something.
    """
    from ovsops.errors import OutputError
    from pipelines.audit.form import form_rows, to_csv, to_json_lines
    from pipelines.audit.pictures import PAGE, page
    from pipelines.audit.record import RECORD, record_of, tables_sha256
    from pipelines.audit.sample import draw_sample
    from pipelines.export import vocabulary_of
    from pipelines.ledger import Ledger
    from pipelines.manifest import read_manifest
    from pipelines.writers.whole_files import write_whole

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            f"{out} holds something already, answers perhaps: choose a new folder for the sample"
        )
    names = {spec.id: spec.name for spec in vocabulary_of(storage).classes}
    commits = Ledger(storage).read_all()
    drawn = draw_sample(storage, commits, names, settings)
    record = record_of(
        drawn,
        settings,
        run=storage.url,
        recipe_hash=str(read_manifest(storage).get("recipe_hash", "")),
        tables_sha256=tables_sha256(commits),
    )
    paths = _pictures(storage.url, drawn, out, options) if has_pictures else {}
    rows = list(form_rows(drawn.rows, paths))
    write_whole(out / CSV, to_csv(rows))
    write_whole(out / JSON_LINES, to_json_lines(rows))
    if paths:
        write_whole(
            out / PAGE,
            page(rows, f"{counted(len(rows), 'labels')} to judge").encode("utf-8", "backslashreplace"),
        )
    write_whole(out / RECORD, record.to_bytes())  # last: a folder with it is whole
    return record, len(paths)


def _pictures(url: str, drawn: "Sample", out: Path, options: "StorageOptions") -> dict[str, str]:
    """Pictures of the drawn labels; none, with a line in the log, where the run's inputs are gone."""
    import logging

    from jobs.label import recipe_of_output
    from ovsops.errors import ConfigError, StorageError
    from pipelines.audit.pictures import write_pictures
    from pipelines.evaluation.pictures import ImageSource
    from pipelines.shards import expand_inputs

    recipe = recipe_of_output(url, options).recipe
    try:
        shards = expand_inputs(recipe.input.shards, recipe.storage)
    except (ConfigError, StorageError) as error:
        logging.getLogger(__name__).warning("no pictures, because the run's images are gone: %s", error)
        return {}
    source = ImageSource(
        shards=tuple(shards), reader=recipe.input.reader, decode=recipe.decode, options=recipe.storage
    )
    return write_pictures(drawn.rows, source, out)


def _read(
    storage: "Storage",
    filled: Path,
    sample: Path,
    settings: "AuditConfig",
    calibrator: Path | None,
    as_json: bool,
) -> int:
    import json

    from jobs.exits import ExitCode
    from pipelines.audit.form import read_answers
    from pipelines.audit.record import check_same_labels, read_record
    from pipelines.audit.result import judge_answers
    from pipelines.audit.text import result_lines
    from pipelines.diff.plain import finite
    from pipelines.ledger import Ledger
    from pipelines.writers.whole_files import write_whole

    record = read_record(sample)
    check_same_labels(record, Ledger(storage).read_all(), storage.url)
    answers = read_answers(filled, record.rows)
    result = judge_answers(record, answers, settings.acceptance)
    text = json.dumps(finite(result.to_plain()), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    write_whole(sample.parent / RESULT, text.encode())
    if as_json:
        sys.stdout.write(text)
    else:
        say(result_lines(result))
    if calibrator is not None:
        say([_fit(storage, record, answers, filled, calibrator)])
    return ExitCode.DONE if result.acceptance.decision == "accepted" else ExitCode.AUDIT


def _fit(
    storage: "Storage", record: "SampleRecord", answers: "list[Answer]", filled: Path, target: Path
) -> str:
    """Write a calibrator; a sentence about it. Raises `ConfigError` where the answers do not suffice."""
    import json
    from dataclasses import replace

    import numpy as np

    from jobs.label import recipe_of_output
    from ovsops.annotators.calibrated import class_groups
    from ovsops.annotators.checkpoints import pin_annotator
    from ovsops.annotators.fingerprint import score_fingerprint
    from ovsops.errors import ConfigError
    from ovsops.regions.calibration import fit_calibrator
    from pipelines.audit.result import outcomes_of
    from pipelines.export import vocabulary_of
    from pipelines.storage import StorageOptions
    from pipelines.writers.whole_files import write_whole

    outcomes = outcomes_of(record, answers)
    vocabulary = vocabulary_of(storage)
    recipe = recipe_of_output(storage.url, StorageOptions()).recipe
    if recipe.detector is None:
        raise ConfigError(
            f"{storage.url}: the run has no detector, and calibrators are about scores of boxes"
        )
    annotators = replace(pin_annotator(recipe.annotators), calibrator=None)
    places = {spec.id: place for place, spec in enumerate(vocabulary.classes)}
    labels = np.array([places[number] for number in outcomes.category_ids.tolist()], np.int64)
    found = fit_calibrator(
        outcomes.scores,
        outcomes.is_right,
        class_groups(vocabulary)[labels],
        fingerprint=score_fingerprint(annotators, vocabulary),
        source=f"audit {filled.name} of {record.tables_sha256[:12]}",
        weights=outcomes.weights,
    )
    write_whole(target, (json.dumps(found.to_json(), indent=1) + "\n").encode())
    return f"calibrator of {len(outcomes.scores)} judged boxes in {target}; in a label recipe: calibrator: {target}"
