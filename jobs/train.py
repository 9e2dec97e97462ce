"""From a recipe to a training that can run, and what is shown of it."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from jobs.engines import EngineName, still_starting
from jobs.exits import PreflightError, stop_on_sigterm
from jobs.label import installed_versions
from jobs.logs import escape_controls, facts, format_ray_records, is_json
from jobs.places import absolute_url, check_place
from jobs.progress import LINE_EVERY_S, duration
from jobs.recipe import LoadedTrain, to_plain
from jobs.recipe_text import recipe_hash, split_recipe
from jobs.train_recipe import REASONS, TrainRecipe, is_train_setting
from ovsops.backbones.checkpoint import SHIPPED, checkpoints_of, pin_checkpoints, read_config
from ovsops.backbones.checkpoint import resolve as resolve_checkpoint
from ovsops.backbones.presets import PRESETS
from ovsops.errors import CheckpointError, ConfigError, OvsopsError
from ovsops.training.loop import Progress
from pipelines.runner import InlineEngine, RayEngine
from pipelines.storage import local_path, scheme_of
from pipelines.training.job import OUTPUT_VERSION, TrainJob, TrainObserver, record_failed_start, run_train
from pipelines.training.programs import ProgramRecipe

logger = logging.getLogger(__name__)


def resolve(recipe: TrainRecipe) -> TrainRecipe:
    """Absolute paths, no `auto`, checkpoints with their SHA-256; writes nothing.

    Raises ConfigError for the recipe itself, CheckpointError for checkpoints that are not there.
    """
    if scheme_of(recipe.output) != "file" or scheme_of(recipe.export or ".") != "file":
        raise ConfigError("output and export of a training are folders: states are loaded from there")
    device = recipe.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = recipe.loop.precision
    if precision == "auto":
        precision = "bfloat16" if device == "cuda" else "float32"
    output = local_path(recipe.output)
    check_towers(recipe.program)
    return replace(
        recipe,
        input=replace(
            recipe.input,
            shards=tuple(absolute_url(p) for p in recipe.input.shards),
            set=None if recipe.input.set is None else absolute_url(recipe.input.set),
            images=None if recipe.input.images is None else absolute_url(recipe.input.images),
        ),
        output=str(output),
        export=str(local_path(recipe.export) if recipe.export else output / "checkpoint"),
        program=pin_checkpoints(recipe.program),
        device=device,
        loop=replace(recipe.loop, precision=precision),
        cache=str(recipe.cache_dir),
    )


_TOWERS = {"siglip": ("siglip", "siglip2"), "dino": ("dinov2_with_registers",)}
"""Field of a mapper's recipe, and the `model_type`s that its checkpoint's config.json may name."""
_SHIPPED = {"siglip": "miniature:siglip2", "dino": "miniature:dinov2"}
_RECIPES = {"siglip": "train_siglip2_miniature", "dino": "train_dinov2_miniature"}


def check_towers(program: ProgramRecipe) -> None:
    """The towers that a mapper stands between must be there, each in its place: before any scene is drawn.

    Raises CheckpointError.
    """
    for role, checkpoint in checkpoints_of(program).items():
        if role not in _TOWERS:
            continue
        source = checkpoint.source
        is_named = checkpoint.revision is not None or source.startswith(SHIPPED) or source in PRESETS
        if not is_named and not Path(source).expanduser().exists():
            raise CheckpointError(
                f"program.{role}.source is {source}, and there is no such folder: train the towers first (ovsops run "
                f"jobs/recipes/{_RECIPES[role]}.yaml writes this one where it says), take the one that comes with the "
                f"package (--set program.{role}.source={_SHIPPED[role]}), or give `revision` for a hub repository"
            )
        found = resolve_checkpoint(checkpoint)
        model_type = read_config(found).get("model_type")
        if model_type not in _TOWERS[role]:
            swapped = [other for other, types in _TOWERS.items() if model_type in types]
            hint = f"; it is one for program.{swapped[0]}: are the two swapped?" if swapped else ""
            raise CheckpointError(
                f"program.{role}.source is {source}, whose config.json says model_type {model_type!r}; expected "
                f"{' or '.join(_TOWERS[role])}{hint}"
            )


def check_devices(recipe: TrainRecipe) -> None:
    """The GPUs that a resolved recipe asks for must be there, where that can be told from here."""
    if recipe.device != "cuda" or recipe.ray.address != "local":
        return
    here = torch.cuda.device_count()
    if recipe.workers.num_workers > here:
        raise PreflightError(
            f"{recipe.workers.num_workers} workers on cuda need a GPU each, this machine has {here} that torch can "
            "use: --set device=cpu trains on the CPU, --set ray.address=auto on a cluster"
        )


def make_job(resolved: TrainRecipe) -> TrainJob:
    """The job of a resolved recipe."""
    learned, settings = split_recipe(
        to_plain(resolved), is_setting=partial(is_train_setting, loop=resolved.loop)
    )
    manifest = {
        "schema_version": OUTPUT_VERSION,
        "versions": installed_versions(),
        "recipe": learned,
        "recipe_hash": recipe_hash(learned),
        "settings": settings,
    }
    return TrainJob(
        output=Path(resolved.output),
        shards=resolved.input.shards,
        world=resolved.input.world,
        training_set=resolved.input.training_set,
        cache=resolved.cache_dir,
        program=resolved.program,
        loop=resolved.loop,
        seed=resolved.program.seed,
        checkpoint=Path(resolved.export or Path(resolved.output) / "checkpoint"),
        manifest=manifest,
        reasons=REASONS,
        device=resolved.device,
        workers=resolved.workers,
        reader=resolved.input.reader,
        decode=resolved.decode,
        limits=resolved.limits,
        storage=resolved.storage,
    )


def run_training(
    loaded: LoadedTrain, *, engine: EngineName | None, observer: TrainObserver | None
) -> dict[str, Any]:
    """Train what a recipe says; the summary. `engine` takes the place of the recipe's."""
    recipe = loaded.recipe if engine is None else replace(loaded.recipe, engine=engine)
    check_place(recipe.output)
    try:
        resolved = resolve(recipe)
        check_devices(resolved)
    except ConfigError:
        raise
    except OvsopsError as error:
        record_failed_start(local_path(recipe.output), error)
        raise
    job = make_job(resolved)
    logger.info("recipe %s, output %s", job.manifest["recipe_hash"][:12], job.output)
    inline = resolved.engine == "inline"
    opened = InlineEngine(resolved.storage) if inline else _Engine(resolved)
    return run_train(job, opened, observer=observer)


class _Engine(RayEngine):
    """Ray, with our way to end on SIGTERM put back in place of Ray's."""

    def __init__(self, recipe: TrainRecipe) -> None:
        super().__init__(recipe.ray, recipe.storage)

    def __enter__(self) -> "_Engine":
        format_ray_records()
        with still_starting():
            super().__enter__()
        stop_on_sigterm()
        return self


@dataclass
class LineTrainObserver:
    """One log line per 30 seconds: for files, CI and schedulers."""

    last_line: float = 0.0

    def __enter__(self) -> "LineTrainObserver":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""

    def scenes(self, *, used: int, failed: int) -> None:
        """The scenes are read."""
        self.last_line = time.monotonic()

    def progress(self, row: Progress) -> None:
        """A row of the curve."""
        if time.monotonic() - self.last_line >= LINE_EVERY_S:
            self.last_line = time.monotonic()
            logger.info("%s", progress_line(row), extra=facts("progress", **progress_facts(row)))


class BarTrainObserver(LineTrainObserver):
    """A live bar over steps, with terms, pace and time left."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.bar = RichProgress(
            SpinnerColumn(),
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("reading scenes", total=None)

    def __enter__(self) -> "BarTrainObserver":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def scenes(self, *, used: int, failed: int) -> None:
        """The scenes are read."""
        left_out = f", {failed} left out" if failed else ""
        self.bar.update(self.task, description=f"{used} scenes{left_out}, first steps")

    def progress(self, row: Progress) -> None:
        """A row of the curve."""
        self.bar.update(self.task, total=row.num_steps, completed=row.step, description=progress_line(row))


def progress_line(row: Progress) -> str:
    """`step 400/3000, total 2.131, captions 1.4, 0.31 s a step, about 13 min 26 s left`."""
    terms = sorted(row.losses.items(), key=lambda term: term[0] != "total")
    told = ", ".join(f"{name} {value:.4g}" for name, value in terms)
    left = (row.num_steps - row.step) * row.seconds_per_step
    pace = f"{row.seconds_per_step:.3g} s a step, about {duration(left)} left"
    return f"step {row.step}/{row.num_steps}, {told}, {pace}"


def progress_facts(row: Progress) -> dict[str, Any]:
    """The same for machines."""
    return {
        "step": row.step,
        "num_steps": row.num_steps,
        "seconds_per_step": row.seconds_per_step,
        "losses": dict(row.losses),
    }


def make_train_observer(console: Console) -> LineTrainObserver:
    """A bar on a terminal, lines elsewhere."""
    return BarTrainObserver(console) if console.is_terminal and not is_json() else LineTrainObserver()


def train_table(summary: Mapping[str, Any]) -> Table:
    """What a training did."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    steps, scenes, worker = summary["steps"], summary["scenes"], summary["this_run"]["worker"]
    table.add_row("steps", f"{steps['done']} of {steps['asked']}")
    regions = scenes.get("regions")
    what, files = ("scenes", "shards") if regions is None else ("images", "files")
    table.add_row(what, f"{scenes['used']} of {scenes['read']} in {scenes['shards']} {files}")
    if regions is not None:
        told = f"{regions['used']} of {regions['read']}, {regions['with_negatives']} with negatives"
        table.add_row("regions", told)
        for failure in regions["failures"][:5]:
            message = "a region of {shard}: {key}: {code}: {message}".format(**failure)
            table.add_row("left out", escape_controls(message))
    for failure in scenes["failures"][:5]:
        table.add_row("left out", escape_controls("{shard}: {key}: {code}: {message}".format(**failure)))
    for name, message in {**scenes["damaged_shards"], **scenes["failed_shards"]}.items():
        table.add_row("shard", escape_controls(f"{name}: {message}"))
    for name, value in summary["last_terms"].items():
        if name not in ("step", "learning_rate"):
            table.add_row(name, f"{value:.4f}")
    if worker:
        table.add_row("trained for", f"{duration(worker['seconds'])} in this run")
        table.add_row("peak memory", f"{worker['peak_memory_mib']:.0f} MiB")
    return table


def train_next_steps(summary: Mapping[str, Any], output: str) -> list[str]:
    """What a user does now."""
    steps = [f"over the limits, nothing was learned: {reason}" for reason in summary["over_limits"]]
    if summary["checkpoint"]:
        steps.append(f"checkpoint: {summary['checkpoint']}")
        steps.append(f"curve: {output}/curve.png")
    else:
        steps.append(f"look: {output}/summary.json names the scenes that are broken")
    return steps
