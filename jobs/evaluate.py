"""From a recipe to an evaluation that can run, and what is shown of it."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.evaluate_recipe import EvaluateRecipe, is_evaluate_setting
from jobs.label import installed_versions, recipe_of_output
from jobs.logs import escape_controls
from jobs.places import absolute_url, check_place
from jobs.recipe import LoadedEvaluate, to_plain
from jobs.recipe_text import recipe_hash, split_recipe
from jobs.truth import find_object_truth
from jobs.truth_recipe import CocoInstancesTruthConfig, WorldTruthConfig
from ovsops.errors import ConfigError, OutputError, StorageError
from pipelines.evaluate import METRICS, PAGE, EvaluatedRun, EvaluateJob, run_evaluate
from pipelines.evaluation.classes import check_same_classes
from pipelines.evaluation.figures import MEANINGS
from pipelines.evaluation.object_figures import HEADLINES, OBJECT_MEANINGS
from pipelines.evaluation.pictures import ImageSource
from pipelines.evaluation.truths import BenchmarkTruth, TruthSource
from pipelines.export import vocabulary_of
from pipelines.ledger import Ledger, tables_sha256
from pipelines.manifest import read_manifest
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.storage import StorageOptions, open_storage
from pipelines.truth.benchmarks import find_benchmark

logger = logging.getLogger(__name__)


def prepare(loaded: LoadedEvaluate, *, command: str | None = None) -> EvaluateJob:
    """A job that can run. `command` is what documents say it was made by.

    Raises `ConfigError` (no such labels, vocabulary that is not the truth's), `StorageError` (no such data set).
    """
    recipe = loaded.recipe
    truth = find_truth(recipe)
    runs = {name: _run(name, url, truth, recipe) for name, url in recipe.labels.items()}
    absolute = replace(
        recipe,
        labels={name: absolute_url(url) for name, url in recipe.labels.items()},
        output=absolute_url(recipe.output),
    )
    decided, settings = split_recipe(to_plain(absolute), is_setting=is_evaluate_setting)
    decided["labelled"] = {name: run.provenance["recipe_hash"] for name, run in runs.items()}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "versions": installed_versions(),
        "recipe": decided,
        "recipe_hash": recipe_hash(decided),
        "settings": settings,
        "command": command or f"ovsops run {loaded.where.removeprefix('recipe ')}",
    }
    return EvaluateJob(
        output=absolute.output,
        runs=runs,
        truth=truth,
        manifest=manifest,
        counts=recipe.counts,
        objects=recipe.objects,
        bootstrap=recipe.bootstrap,
        pictures=recipe.pictures,
        limits=recipe.limits,
        storage=recipe.storage,
        title=recipe.title,
        notice=recipe.notice,
    )


def find_truth(recipe: EvaluateRecipe) -> TruthSource:
    """The truth that a recipe names, its folders listed."""
    config = recipe.truth
    if isinstance(config, WorldTruthConfig | CocoInstancesTruthConfig):
        return find_object_truth(config, recipe.storage)
    root = Path(config.root).expanduser()
    return BenchmarkTruth.open(find_benchmark(config.benchmark), root, config.split, recipe.decode)


def _run(name: str, url: str, truth: TruthSource, recipe: EvaluateRecipe) -> EvaluatedRun:
    """A labelled run that the truth fits."""
    storage = open_storage(url, recipe.storage)
    try:
        vocabulary, manifest = vocabulary_of(storage), read_manifest(storage)
    except OutputError as error:
        raise ConfigError(f"labels.{name}: {error}; name a finished output of the label job") from error
    check_same_classes(truth.classes, vocabulary, run=f"labels.{name} ({url})", truth=truth.name)
    wants_pictures = recipe.pictures.first > 0 or recipe.pictures.worst > 0
    return EvaluatedRun(
        storage=storage,
        source=_source(url, recipe.storage) if wants_pictures else None,
        provenance={
            "labels": storage.url,
            "recipe_hash": manifest.get("recipe_hash", ""),
            "checkpoints": manifest.get("checkpoints", {}),
            "tables_sha256": tables_sha256(Ledger(storage).read_all()),
        },
    )


def _source(url: str, options: StorageOptions) -> ImageSource | None:
    """Where a run's images are; None, with a line in the log, where they are no longer there."""
    recipe = recipe_of_output(url, options).recipe
    try:
        shards = expand_inputs(recipe.input.shards, recipe.storage)
    except (ConfigError, StorageError) as error:
        logger.warning("%s: no pictures are drawn, because its images are gone: %s", url, error)
        return None
    return ImageSource(
        shards=tuple(shards), reader=recipe.input.reader, decode=recipe.decode, options=recipe.storage
    )


def run_evaluation(loaded: LoadedEvaluate, *, command: str | None = None) -> dict[str, Any]:
    """Evaluate what a recipe says; the summary."""
    check_place(loaded.recipe.output)
    job = prepare(loaded, command=command)
    logger.info("recipe %s, output %s", str(job.manifest["recipe_hash"])[:12], job.output)
    return run_evaluate(job)


def evaluate_table(summary: Mapping[str, Any]) -> Table:
    """Figures of every run, a row each."""
    runs: Mapping[str, Any] = summary["figures"]
    table = Table(box=None, pad_edge=False)
    table.add_column("", style="bold")
    for name in runs:
        table.add_column(escape_controls(name), justify="right")
    for figure in next(iter(runs.values())):
        cells = [shown_figure(figures[figure]) for figures in runs.values()]
        table.add_row(MEANINGS[figure], *cells)
    instances: Mapping[str, Any] = summary["instances"]["figures"]
    for figure in next(iter(instances.values()), ()):
        if figure in HEADLINES:
            cells = [shown_figure(figures[figure]) for figures in instances.values()]
            table.add_row(OBJECT_MEANINGS[figure], *cells)
    images = summary["images"]
    table.add_row("images counted", str(images["counted"]))
    if images["without_truth"]:
        table.add_row("images without truth", str(images["without_truth"]))
    for name in runs:
        lost = {status: n for status, n in images[name].items() if status != "labelled"}
        if lost:
            what = ", ".join(f"{n} {status}" for status, n in lost.items())
            table.add_row("counted as wrong", escape_controls(f"{name}: {what}"))
    return table


def shown_figure(estimate: Mapping[str, float | None]) -> str:
    """`0.512 [0.480, 0.541]` without markup of rich; a dash where it is not defined."""
    if estimate["value"] is None:
        return "–"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def evaluate_next_steps(summary: Mapping[str, Any], output: str) -> list[str]:
    """What a user does now."""
    steps = [f"page: {output}/{PAGE}; numbers: {output}/{METRICS}"]
    return steps + [f"over the limits: {reason}" for reason in summary["over_limits"]]
