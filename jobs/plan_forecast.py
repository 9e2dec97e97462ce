"""From a timed sample and a recipe to what the whole run will take: stages and workers, time, hours, disk, labels.

With the ray engine the stages work side by side, each with the workers that the recipe gives it, and a private Ray
cannot give more than the cores there are. With the inline engine one process does all in turn.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.engines import EngineName
from jobs.label_recipe import LabelRecipe
from pipelines.ask_config import choose_regions
from pipelines.forecast import (
    Estimate,
    Needs,
    Prices,
    StageTime,
    bill,
    bottleneck,
    gpu_workers,
    one_after_another,
    per_image,
    run_seconds,
    throughput,
)
from pipelines.label import MAX_SEALING
from pipelines.parts import table_to_parquet
from pipelines.sample_run import SampleRun
from pipelines.schemas import IMAGES, INSTANCES
from pipelines.timed_parts import Lap

RAY_START_S = Estimate(value=16.0, low=5.0, high=40.0)
"""Seconds until a private Ray and its workers are up. Not measured by a plan: 5 on an idle machine and 16 on two busy
cores (benchmarks/README.md), more where 30 s of waiting were needed."""
COMMIT_BYTES = 4096
"""Of the record of a shard in commits/; it has about this size whatever the shard holds."""


@dataclass(frozen=True, kw_only=True)
class SampleTimes:
    """Seconds of one worker for an image, by stage."""

    read: Estimate
    decode: Estimate
    """Of the decoders of one actor together, with nothing beside them."""
    models: Estimate
    annotate: Estimate
    """Of the stage that decodes ahead and runs the models, as whoever waits for it sees it."""
    masks: Estimate
    write: Estimate
    seal: Estimate
    cpu: Estimate
    """CPU seconds of all of these."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Of `models`, by part of the annotator."""

    @classmethod
    def of(cls, run: SampleRun) -> "SampleTimes":
        """Intervals over model batches; over shards for reading."""
        annotate, encode, write = (run.laps[name] for name in ("annotate", "encode", "write"))
        sizes = [lap.images for lap in annotate]
        batches = zip(annotate, encode, write, strict=True)
        beside = run.read_cpu_seconds + run.decode_cpu_seconds + run.seal_cpu_seconds
        return cls(
            read=per_image([head.seconds for head in run.heads], [head.rows.num_rows for head in run.heads]),
            decode=_of_laps(run.decode) if run.decode else Estimate.exactly(0.0),
            models=per_image(run.model_seconds, sizes),
            annotate=_of_laps(annotate),
            masks=_of_laps(encode),
            write=_of_laps(write),
            seal=Estimate.exactly(run.seal_seconds / run.num_images),
            cpu=per_image([sum(lap.cpu_seconds for lap in batch) for batch in batches], sizes)
            + Estimate.exactly(beside),
            parts={name: seconds / run.num_images for name, seconds in run.part_seconds.items()},
        )


def _of_laps(laps: Sequence[Lap]) -> Estimate:
    return per_image([lap.seconds for lap in laps], [lap.images for lap in laps])


def ray_stages(times: SampleTimes, recipe: LabelRecipe, *, cores: int) -> list[StageTime]:
    """Stages that work side by side. `cores` are those of this machine."""
    is_local = recipe.ray.address == "local"
    actors = recipe.segment_on.actors
    stages = [
        StageTime(name="read", seconds=times.read, workers=_readers(recipe, cores) if is_local else None),
        StageTime(name="decode", seconds=times.decode, workers=float(actors)),
        StageTime(
            name="models", seconds=times.models, workers=gpu_workers(actors, recipe.segment_on.num_gpus)
        ),
    ]
    encoders = float(recipe.encode_on.actors) or None
    if recipe.ask is None:
        stages.append(StageTime(name="masks and write", seconds=times.masks + times.write, workers=encoders))
    else:
        stages.append(StageTime(name="masks", seconds=times.masks, workers=encoders))
        stages.append(StageTime(name="write", seconds=times.write, workers=float(recipe.ask_on.actors)))
    stages.append(StageTime(name="seal", seconds=times.seal, workers=float(MAX_SEALING)))
    if is_local:
        stages.append(StageTime(name="cores of this machine", seconds=times.cpu, workers=float(cores)))
    return stages


def _readers(recipe: LabelRecipe, cores: int) -> float:
    """Read tasks that a private Ray has room for beside the workers of all steps."""
    shares = sum(max(1, step.actors) * step.num_cpus for step in recipe.placements)
    return float(max(1, math.floor(((recipe.ray.num_cpus or cores) - shares) / recipe.ray.read_cpus)))


def inline_stages(times: SampleTimes) -> list[StageTime]:
    """Stages of one process; decoding and models are one, because the decoders work beside the models."""
    return [
        StageTime(name="read", seconds=times.read),
        StageTime(name="decode and models", seconds=times.annotate),
        StageTime(name="masks", seconds=times.masks),
        StageTime(name="write", seconds=times.write),
        StageTime(name="seal", seconds=times.seal),
    ]


@dataclass(frozen=True, kw_only=True)
class StartUp:
    """Seconds before the first image."""

    text: float
    """Text features; a later start finds them in its cache."""
    load: float
    """The weights and decoders of one actor."""

    def seconds(self, recipe: LabelRecipe, engine: EngineName, *, cores: int) -> Estimate:
        """With Ray's own start, and actors that wait for cores while they load."""
        waves = 1.0
        if engine == "ray" and recipe.ray.address == "local":
            waves = max(1.0, recipe.segment_on.actors / cores)
        load = self.load * waves
        own = Estimate(value=load + self.text, low=load, high=load + self.text)
        return own + RAY_START_S if engine == "ray" else own


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is left to do."""

    images: float
    shards: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the run will take."""

    engine: EngineName
    work: Work
    times: SampleTimes
    stages: tuple[StageTime, ...]
    rate: Estimate
    """Images a second, once it runs."""
    start_up: Estimate
    """Seconds."""
    seconds: Estimate
    """All of it."""
    needs: Needs
    labels: Estimate
    """Regions that will be written."""
    reviews: Estimate
    """Of these, regions whose decision is `review`."""
    questions: Estimate | None
    """To the endpoint; None where nobody is asked."""
    money: Mapping[str, Estimate]

    @property
    def bottleneck(self) -> StageTime:
        """The slowest stage."""
        return bottleneck(self.stages)

    @property
    def slowest(self) -> str:
        """The bottleneck by name, with the part of the models that takes most of it."""
        name = self.bottleneck.name
        parts, models = self.times.parts, self.times.models.value
        if name == "decode and models" and models < self.times.decode.value:
            return f"{name}: the decoders"
        if "models" not in name or not parts or not models:
            return name
        first = max(parts, key=lambda part: parts[part])
        return f"{name}: the {first}, {min(1.0, parts[first] / models):.0%} of the models' time"


def make_forecast(
    run: SampleRun,
    recipe: LabelRecipe,
    work: Work,
    start: StartUp,
    *,
    engine: EngineName,
    prices: Prices,
    review_seconds: float | None,
    cores: int | None = None,
) -> Forecast:
    """Put it all together. `cores`: those this process may use by default."""
    cores = cores or usable_cores()
    times = SampleTimes.of(run)
    stages = ray_stages(times, recipe, cores=cores) if engine == "ray" else inline_stages(times)
    rate = throughput(stages) if engine == "ray" else one_after_another(stages)
    start_up = start.seconds(recipe, engine, cores=cores)
    seconds = run_seconds(work.images, rate, start_up)
    regions = [row or [] for row in run.encoded.column("regions").to_pylist()]
    labels = _counted([len(each) for each in regions], work)
    reviews = _counted([sum(r["decision"] == "review" for r in each) for each in regions], work)
    hours = seconds * (1 / 3600)
    gpus, cpus = held(recipe, engine)
    needs = Needs(
        gpu_hours=hours * gpus,
        cpu_hours=hours * cpus,
        stored_bytes=stored_bytes(run, work),
        review_minutes=None if review_seconds is None else reviews * (review_seconds / 60),
    )
    return Forecast(
        engine=engine,
        work=work,
        times=times,
        stages=tuple(stages),
        rate=rate,
        start_up=start_up,
        seconds=seconds,
        needs=needs,
        labels=labels,
        reviews=reviews,
        questions=_questions(regions, recipe, work),
        money=bill(needs, prices),
    )


def usable_cores() -> int:
    """Cores that this process may use, where the system says."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def held(recipe: LabelRecipe, engine: EngineName) -> tuple[float, float]:
    """GPUs and cores that the run holds from its start to its end, busy or not.

    Those that the workers of all steps and one reader ask Ray for; of one process, one of each that it uses.
    """
    if engine == "inline":
        return (1.0 if recipe.model.device == "cuda" else 0.0), 1.0
    steps = recipe.placements
    gpus = sum(step.actors * step.num_gpus for step in steps)
    return gpus, recipe.ray.read_cpus + sum(max(1, step.actors) * step.num_cpus for step in steps)


def _counted(counts: Sequence[int], work: Work) -> Estimate:
    """How many of something in all, from how many in each image of the sample."""
    return per_image([float(count) for count in counts], [1] * len(counts)) * work.images


def stored_bytes(run: SampleRun, work: Work) -> Estimate:
    """Bytes of the tables and records, when the run is done.

    What the sealed tables of the sample have above empty ones goes with the images, the rest with the shards. The
    interval is over images, by what each takes of the rows in memory.
    """
    empty = sum(len(table_to_parquet(schema.empty_table())) for schema in (IMAGES, INSTANCES))
    measured = run.sealed.images.num_bytes + run.sealed.instances.num_bytes - empty
    sizes = [run.encoded.slice(i, 1).nbytes for i in range(run.num_images)]
    share = max(0, measured) / max(1, sum(sizes))
    each = per_image([size * share for size in sizes], [1] * len(sizes))
    return each * work.images + Estimate.exactly(float(work.shards * (empty + COMMIT_BYTES)))


def _questions(
    regions: Sequence[list[dict[str, object]]], recipe: LabelRecipe, work: Work
) -> Estimate | None:
    if recipe.ask is None:
        return None
    kinds = recipe.ask.captions + recipe.ask.verify
    return _counted([kinds * len(choose_regions(each, recipe.ask)[0]) for each in regions], work)
