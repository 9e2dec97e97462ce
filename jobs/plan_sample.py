"""A plan with a timed sample: a few images through the job's own stages, and what the whole run will take.

What it writes lies below a folder of its own: parts of the sample while it runs (removed afterwards), then `plan.json`
and overlays. Without such a folder the parts go into a temporary one, and nothing stays.
"""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from jobs.engines import EngineName
from jobs.exits import ExitCode, PreflightError
from jobs.label import prepare_resolved
from jobs.label_resolve import ResolvedLabel
from jobs.logs import escape_controls
from jobs.own_folder import claim_folder
from jobs.plan import ImageCount, Look, Plan, look_at, readable
from jobs.plan_forecast import Forecast, StartUp, Work, make_forecast
from jobs.plan_text import forecast_facts, money_facts, stage_rows
from jobs.recipe import LoadedRecipe
from ovsops.errors import ConfigError, ImageDecodeError, OutputError
from ovsops.images.decode_pool import DecodePool
from ovsops.metrics.audit import clopper_pearson
from pipelines.counted import counted
from pipelines.forecast import CONFIDENCE, Prices
from pipelines.label import LabelJob
from pipelines.redact import redact
from pipelines.report.overlay import draw_overlay, file_stem
from pipelines.rows import status_of
from pipelines.sample_run import (
    SampleConfig,
    SampleRun,
    estimated_images,
    run_sample,
    spread,
    statuses,
)
from pipelines.shards import Shard
from pipelines.storage import local_path, scheme_of
from pipelines.summary import Limits
from pipelines.writers.whole_files import write_whole

logger = logging.getLogger(__name__)

PLAN, OVERLAYS = "plan.json", "overlays"
NUM_OVERLAYS = 20
PLAN_VERSION = 1
_MARKER, _SCRATCH = ".ovsops-plan", "_scratch"


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """What a plan is asked for beyond a look."""

    images: int = 0
    """Images to try; 0 tries none."""
    out: Path | None = None
    """Folder of the plan's own; None writes nothing."""
    engine: EngineName = "ray"
    """Which the forecast is for."""
    prices: Prices = field(default_factory=Prices)
    review_seconds: float | None = None
    """Seconds that a person looks at a label."""

    def __post_init__(self) -> None:
        if self.images < 0:
            raise ConfigError(f"--sample {self.images}: give the number of images to try, for example 64")
        if self.review_seconds is not None and not self.review_seconds >= 0:
            raise ConfigError(f"--review-seconds is {self.review_seconds}; it must be 0 or more")
        if not self.images and (self.prices != Prices() or self.review_seconds is not None):
            raise ConfigError(
                "prices and --review-seconds need a sample that says how much of each: add --sample 64"
            )
        if self.prices.review_minute is not None and self.review_seconds is None:
            raise ConfigError("--price-review-minute needs --review-seconds, what a person needs for a label")


@dataclass(frozen=True, kw_only=True)
class _Tried:
    """What a sample adds to a plan."""

    facts: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    stages: tuple[tuple[str, ...], ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)


def make_sampled_plan(loaded: LoadedRecipe, options: SampleOptions) -> Plan:
    """`make_plan`, the sample where one is wanted and nothing stands in its way, and the files in `options.out`.

    Raises OutputError where `options.out` is no place for a plan.
    """
    out = options.out
    if out is not None:
        check_place(out, loaded.recipe.output, loaded.recipe.input.shards)
        claim_folder(out, (PLAN, OVERLAYS, _SCRATCH), marker=_MARKER, command="ovsops plan")
    look = look_at(loaded)
    plan = look.plan
    if not options.images:
        plan = replace(
            plan, hint="--sample 64 tries 64 images: throughput, time, hours, disk, and overlays with --out"
        )
    elif look.resolved is None or plan.problems:
        plan = replace(plan, hint="no sample was tried: what is above comes first")
    elif look.resolved.recipe.model.device == "cuda" and not torch.cuda.is_available():
        hint = (
            "no sample was tried: it needs a GPU that torch can use, as the actors do; plan on such a machine"
        )
        plan = replace(plan, hint=hint)
    elif not look.pending:
        plan = replace(plan, hint="no sample was tried: nothing is left to label")
    else:
        tried = _try(look, look.resolved, options)
        problems = plan.problems + tuple(escape_controls(redact(problem)) for problem in tried.problems)
        plan = replace(
            plan,
            facts=plan.facts + tried.facts,
            problems=problems,
            exit_code=ExitCode.PREFLIGHT if problems else plan.exit_code,
            stages=tried.stages,
            figures=tried.figures,
        )
    if out is not None:
        write_whole(out / PLAN, _plan_json(plan, loaded.where))
        plan = replace(plan, hint="; ".join(filter(None, (plan.hint, f"written to {out}"))))
    return plan


def check_place(out: Path, output: str, inputs: Sequence[str]) -> None:
    """Raise OutputError where a plan in `out` would lie in the job's output or input, or hold the output."""
    place = out.expanduser().resolve()
    if scheme_of(output) == "file":
        job = local_path(output).resolve()
        if place == job or job in place.parents or place in job.parents:
            raise OutputError(
                f"--out {out}: a plan has a folder of its own; this one and the job's output {job} lie in each other:"
                " choose another"
            )
    for pattern in inputs:
        if scheme_of(pattern) != "file":
            continue
        source = local_path(pattern)
        if source.is_dir() and (place == source.resolve() or source.resolve() in place.parents):
            raise OutputError(
                f"--out {out}: this is inside the input {source}, where its pictures would be labelled, too: choose"
                " another"
            )


@contextmanager
def _scratch(out: Path | None) -> Iterator[Path]:
    """A folder for the sample's parts, removed afterwards."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="ovsops-plan-") as folder:
            yield Path(folder)
        return
    folder = str(out / _SCRATCH)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _try(look: Look, resolved: ResolvedLabel, options: SampleOptions) -> _Tried:
    """Run the sample and say what it says; a sample that fails is a problem, not an error."""
    with _scratch(options.out) as scratch:
        try:
            job, start, run = _sample(resolved, look.pending, scratch.resolve(), options)
        except PreflightError as error:
            return _Tried(problems=(str(error),))
        if run is None:
            return _Tried(
                problems=(
                    f"no image is in what is to label ({counted(len(look.pending), 'shards')}); check the input",
                )
            )
        if options.out is not None:
            names = {spec.id: spec.name for spec in resolved.vocabulary.classes}
            write_overlays(run, job, names, options.out / OVERLAYS)
    recipe = resolved.recipe
    images = look.to_label
    if images.number is None:
        number = estimated_images(run.heads, look.pending)
        images = ImageCount(number=number, archives=len(run.heads), are_heads=True)
    work = Work(images=images.number or 0.0, shards=len(look.pending))
    forecast = make_forecast(
        run,
        recipe,
        work,
        start,
        engine=options.engine,
        prices=options.prices,
        review_seconds=options.review_seconds,
    )
    problems = (*sample_problems(run, recipe.limits), *_disk_problem(recipe.output, forecast))
    return _Tried(
        facts=(*_sample_facts(run), *forecast_facts(forecast, recipe, images), *money_facts(forecast)),
        problems=problems,
        stages=tuple(stage_rows(forecast)),
        figures=_figures(run, forecast),
    )


def _sample(
    resolved: ResolvedLabel, pending: Sequence[Shard], scratch: Path, options: SampleOptions
) -> tuple[LabelJob, StartUp, SampleRun | None]:
    """Prepare the job with its output and cache in `scratch`, and try it. Raises PreflightError for whatever fails."""
    recipe = replace(resolved.recipe, output=str(scratch / "run"), cache=str(scratch / "cache"))
    logger.info("trying %d images: loading the models", options.images)
    try:
        began = time.perf_counter()
        job = prepare_resolved(replace(resolved, recipe=recipe))
        text = time.perf_counter() - began
        job = replace(job, ask=None)
        run = run_sample(job, pending, SampleConfig(images=options.images))
    except (
        Exception
    ) as error:  # models, devices and libraries raise what they like; a run would end here, too
        raise PreflightError(f"the sample failed: {type(error).__name__}: {error}"[:2000]) from error
    return job, StartUp(text=text, load=0.0 if run is None else run.load_seconds), run


def sample_problems(run: SampleRun, limits: Limits) -> Iterator[str]:
    """What in the sample says that the run would end badly."""
    failures, images = run.failures, run.num_images
    failed = failures.total()
    codes = ", ".join(f"{code} {count}" for code, count in sorted(failures.items()))
    if failed == images:
        yield f"every sampled image failed ({codes}): {_first_message(run)}"
    elif failed / images > limits.max_failed_share:
        low, high = clopper_pearson(failed, images)
        sure = "would" if low > limits.max_failed_share else "may"
        yield (
            f"{failed} of {images} sampled images failed ({failed / images:.1%}, 95 % interval {low:.1%} to {high:.1%};"
            f" limits.max_failed_share is {limits.max_failed_share:.2%}): the run {sure} end with 3 ({codes});"
            f" {_first_message(run)}"
        )
    unread = {
        name: says for name, says in run.faults.items() if says.startswith(("E_STORAGE", "E_SHARD_CHANGED"))
    }
    damaged = {name: says for name, says in run.faults.items() if name not in unread}
    for kind, faults, most in (
        ("unreadable", unread, limits.max_failed_shards),
        ("damaged", damaged, limits.max_damaged_shards),
    ):
        if len(faults) > most:
            name, says = next(iter(faults.items()))
            yield (
                f"{counted(len(faults), 'sampled shards are')} {kind}, limits.max_"
                f"{'failed' if kind == 'unreadable' else 'damaged'}_shards is {most}: {name}: {redact(says)}"
            )


def _first_message(run: SampleRun) -> str:
    rows = run.encoded.select(["key", "error_code", "error_message"]).to_pylist()
    row = next(row for row in rows if status_of(row["error_code"]) == "failed")
    return f"the first, {row['key']}: {row['error_message']}"


def _disk_problem(output: str, forecast: Forecast) -> Iterator[str]:
    if scheme_of(output) != "file":
        return
    place = local_path(output)
    free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
    needed = forecast.needs.stored_bytes.value
    if needed > free:
        yield f"output {place}: about {readable(needed)} are needed, {readable(free)} are free; choose another folder"


def _sample_facts(run: SampleRun) -> Iterator[tuple[str, str]]:
    became = statuses(run)
    counts = ", ".join(f"{became[name]} {name}" for name in ("labelled", "skipped", "failed") if became[name])
    yield "sample", f"{counted(run.num_images, 'images')} of {counted(len(run.heads), 'shards')}: {counts}"
    yield (
        "memory, measured",
        f"{readable(run.memory_bytes)} for this process with one actor's models and decoders",
    )


def _figures(run: SampleRun, forecast: Forecast) -> dict[str, Any]:
    """The sample and the forecast as numbers."""
    times = forecast.times
    needs = forecast.needs
    reviews = needs.review_minutes
    return {
        "sample": {
            "images": run.num_images,
            "shards": [head.name for head in run.heads],
            "statuses": dict(statuses(run)),
            "failures_by_code": dict(sorted(run.failures.items())),
            "shard_faults": {name: redact(says) for name, says in run.faults.items()},
            "memory_bytes": run.memory_bytes,
            "load_seconds": run.load_seconds,
            "load_cpu_seconds": run.load_cpu_seconds,
            "seconds_per_image": {
                name: getattr(times, name).to_plain()
                for name in ("read", "decode", "models", "annotate", "masks", "write", "seal")
            },
            "cpu_seconds_per_image": times.cpu.to_plain(),
            "models_seconds_per_image_by_part": dict(times.parts),
        },
        "forecast": {
            "engine": forecast.engine,
            "images": forecast.work.images,
            "shards": forecast.work.shards,
            "confidence": CONFIDENCE,
            "stages": [stage.to_plain() for stage in forecast.stages],
            "bottleneck": forecast.bottleneck.name,
            "images_per_second": forecast.rate.to_plain(),
            "start_up_seconds": forecast.start_up.to_plain(),
            "seconds": forecast.seconds.to_plain(),
            "gpu_hours": needs.gpu_hours.to_plain(),
            "cpu_hours": needs.cpu_hours.to_plain(),
            "stored_bytes": needs.stored_bytes.to_plain(),
            "labels": forecast.labels.to_plain(),
            "labels_to_review": forecast.reviews.to_plain(),
            "review_minutes": None if reviews is None else reviews.to_plain(),
            "endpoint_questions": None if forecast.questions is None else forecast.questions.to_plain(),
        },
        "cost": {name: money.to_plain() for name, money in forecast.money.items()},
    }


def _plan_json(plan: Plan, where: str) -> bytes:
    document = {
        "plan_version": PLAN_VERSION,
        "recipe": redact(where),
        "facts": {name: redact(says) for name, says in plan.facts},
        "problems": [redact(problem) for problem in plan.problems],
        "exit_code": int(plan.exit_code),
        **plan.figures,
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def write_overlays(
    run: SampleRun, job: LabelJob, names: Mapping[int, str], folder: Path, *, limit: int = NUM_OVERLAYS
) -> list[Path]:
    """Pictures of labelled images of the sample, evenly spread; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    records = run.encoded.select(["index", "key", "regions", "error_code"]).to_pylist()
    labelled = [record for record in records if status_of(record["error_code"]) == "labelled"]
    chosen = [labelled[place] for place in spread(len(labelled), limit)]
    data = run.source.column("image")
    images = (memoryview(data[record["index"]].as_buffer()) for record in chosen)
    paths: list[Path] = []
    with DecodePool(job.decode, num_workers=1, timeout_s=job.batch.decode_timeout_s) as decoders:
        for record, decoded in zip(chosen, decoders.map(images, ahead=1), strict=True):
            if isinstance(decoded, ImageDecodeError):
                logger.warning("%s: no overlay: %s", record["key"], decoded)
                continue
            sheet = draw_overlay(decoded.pixels, record["regions"] or [], names, title=record["key"])
            paths.append(folder / f"{record['index']:03d}-{file_stem(record['key'])}.png")
            sheet.save(paths[-1])
    return paths
