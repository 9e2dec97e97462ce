"""The train job: scenes or a training set in, checkpoint, curve and summary out. Started again, it goes on.

OUT/run.json        what it was made with           OUT/states/      the two newest states
OUT/data.json       which scenes it learned from    OUT/checkpoint/  what others load, after the last step
OUT/curve.csv,.png  terms over steps                OUT/summary.json how the newest start ended
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ovsops.errors import ConfigError, OutputError
from ovsops.images.decode import DecodeConfig
from ovsops.training.curve import draw_curve, read_curve
from ovsops.training.loop import LoopConfig, Progress
from ovsops.training.state import states
from pipelines.lock import OutputLock
from pipelines.manifest import claim_output
from pipelines.readers import ReaderConfig
from pipelines.runner import Engine, InlineEngine
from pipelines.shards import Shard, expand_inputs
from pipelines.storage import Storage, StorageOptions, open_storage
from pipelines.summary import SUMMARY, Limits, over_limits, write_summary
from pipelines.training.scenes import SceneRows, read_scenes
from pipelines.training.set_files import SetInput, find_set
from pipelines.training.set_images import SetImages
from pipelines.training.sets import SetRows, read_set
from pipelines.training.stopping import stop_gently
from pipelines.training.worker import (
    Outcome,
    ProgramFactory,
    SetProgramFactory,
    Team,
    WorkersConfig,
    WorkerTask,
    peak_memory_mib,
    run_worker,
)
from pipelines.training.world import WorldConfig, draw_world

logger = logging.getLogger(__name__)

DATA = "data.json"
OUTPUT_VERSION = 2
"""Of a training's output, told in `run.json`; it moves when an older output could not be continued. The tables of
labels have a version of their own: a new column there refuses no training."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Everything a training needs, resolved."""

    output: Path
    shards: tuple[str, ...] = ()
    """Patterns of archives; empty where a world is drawn or a training set is read."""
    world: WorldConfig | None = None
    training_set: SetInput | None = None
    """Images with captions, regions and negatives, in place of scenes."""
    cache: Path
    """Folder that keeps drawn scenes."""
    program: ProgramFactory | SetProgramFactory
    loop: LoopConfig
    seed: int = 0
    """Of the program, for the summary."""
    checkpoint: Path
    """Folder that gets the exported checkpoint."""
    manifest: Mapping[str, Any]
    """Content of `run.json`; `manifest["recipe"]` decides whether an output may be continued."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """By dotted field of the recipe: why it may not change, and what to do instead."""
    device: str = "cpu"
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    limits: Limits = field(default_factory=Limits)
    storage: StorageOptions = field(default_factory=StorageOptions)

    def task(self, set_images: SetImages | None = None) -> WorkerTask:
        """What every worker does."""
        return WorkerTask(
            set_images=set_images,
            program=self.program,
            loop=self.loop,
            folder=self.output,
            checkpoint=self.checkpoint,
            device=self.device,
            seed=self.seed,
            num_threads=self.workers.threads(),
        )


class TrainObserver(Protocol):
    """Somebody who watches a training."""

    def scenes(self, *, used: int, failed: int) -> None:
        """The scenes are read."""

    def progress(self, row: Progress) -> None:
        """A row of the curve."""


def run_train(
    job: TrainJob,
    engine: AbstractContextManager[Engine],
    *,
    observer: TrainObserver | None = None,
) -> dict[str, Any]:
    """Train to the last step; the summary, which is also written to OUT.

    Raises OutputError if the output is locked, or was made with another recipe or other scenes. KeyboardInterrupt
    after a signal: the state is saved. Whatever ends the run, a summary is written once the lock is held.
    """
    if job.workers.num_workers > 1 and isinstance(engine, InlineEngine):
        raise ConfigError("workers.num_workers is over 1, which needs Ray; take engine ray, or one worker")
    if job.training_set is not None and not isinstance(job.program, SetProgramFactory):
        raise ConfigError(
            f"{type(job.program).__name__} learns from scenes; give shards or a world, not a set"
        )
    storage = open_storage(str(job.output))
    with OutputLock(storage) as lock:
        claim_output(storage, job.manifest, reasons=job.reasons)
        return _Run(job, engine, storage, lock, observer).run()


class _Run:
    """One start of the job."""

    def __init__(
        self,
        job: TrainJob,
        engine: AbstractContextManager[Engine],
        storage: Storage,
        lock: OutputLock,
        observer: TrainObserver | None,
    ) -> None:
        self.job, self.engine, self.storage, self.lock, self.observer = job, engine, storage, lock, observer
        self.started = time.time()
        self.scenes: dict[str, Any] | None = None
        self.outcome: Outcome | None = None
        self.over: list[str] = []

    def run(self) -> dict[str, Any]:
        state, error = "interrupted", ""
        try:
            state = self._train()
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            state, error = "error", f"{type(problem).__name__}: {problem}"[:4000]
            raise
        finally:
            summary = self._summary(state, error)
            write_summary(self.storage, summary)
        if state == "interrupted":
            raise KeyboardInterrupt
        return summary

    def _train(self) -> str:
        job = self.job
        if self._is_done():
            logger.info("%s is done: %d steps, nothing is read", self.storage.url, job.loop.num_steps)
            return "done"
        many = job.workers.num_workers > 1
        with self.engine as engine:
            rows, identity = self._read(engine)
            if not self._take(rows, identity):
                return "over limits"
            task = job.task(rows.images if isinstance(rows, SetRows) else None)
            with stop_gently() as is_stopped:
                if many:
                    from pipelines.training.ray_train import train_on_ray  # Ray Train takes seconds to load

                    self.outcome = train_on_ray(
                        task, rows.table, job.workers, on_progress=self._note, should_stop=is_stopped
                    )
        if not many:
            with stop_gently() as is_stopped:
                self.outcome = run_worker(
                    task, rows.table, Team(), on_progress=self._note, should_stop=is_stopped
                )
        assert self.outcome is not None
        if (job.output / "curve.csv").stat().st_size:
            draw_curve(job.output / "curve.csv", job.output / "curve.png")
        return "done" if self.outcome.done >= job.loop.num_steps else "interrupted"

    def _read(self, engine: Engine) -> tuple[SceneRows | SetRows, str | None]:
        """What is learned from, and the identity of its files; a drawn world needs none."""
        job = self.job
        if job.training_set is not None:
            files = find_set(job.training_set, job.storage)
            return read_set(files, job.training_set, job.storage, job.decode), files.identity
        shards = (str(draw_world(job.world, job.cache)),) if job.world else job.shards
        found = expand_inputs(shards, job.storage)
        return read_scenes(engine, found, job.reader, job.decode), None if job.world else _identity(found)

    def _is_done(self) -> bool:
        """Whether an earlier start did all that is asked for, of the scenes that the input still holds.

        A world is part of the recipe. Of shards names, sizes and content tags are compared: where these differ the
        scenes are read, and compared themselves.
        """
        job = self.job
        try:
            earlier = json.loads(self.storage.read(SUMMARY))
            learned_from = json.loads(self.storage.read(DATA))
        except FileNotFoundError:
            return False
        steps = {"done": job.loop.num_steps, "asked": job.loop.num_steps}
        is_whole = _steps_done(job.output) == job.loop.num_steps and job.checkpoint.is_dir()
        told = (earlier["state"], earlier["steps"], earlier.get("checkpoint"))
        if not is_whole or told != ("done", steps, str(job.checkpoint)):
            return False
        if job.training_set is not None:
            identity = find_set(job.training_set, job.storage).identity
        else:
            identity = "" if job.world else _identity(expand_inputs(job.shards, job.storage))
        if identity and learned_from.get("shards") != identity:
            return False
        self.scenes = earlier["scenes"]
        return True

    def _take(self, rows: SceneRows | SetRows, shards: str | None) -> bool:
        """Note what was read; whether it may be learned from."""
        self.scenes = rows.told()
        totals = rows.totals()
        logger.info("%d shards, %d scenes, %d left out", rows.num_shards, totals["used"], totals["failed"])
        if self.observer:
            self.observer.scenes(used=totals["used"], failed=totals["failed"])
        self.over = over_limits(totals, rows.damaged, rows.failed_shards, self.job.limits)
        if isinstance(rows, SetRows):
            self.over += rows.over_limits(self.job.limits)
        if self.over:
            return False
        told = {"scenes": totals["used"], "sha256": rows.identity} | ({"shards": shards} if shards else {})
        if not self.storage.create(DATA, (json.dumps(told) + "\n").encode()):
            earlier = json.loads(self.storage.read(DATA))
            if any(earlier[name] != told[name] for name in ("scenes", "sha256")):
                raise OutputError(
                    f"{self.storage.url} has learned from other scenes ({earlier['scenes']}, sha256 "
                    f"{earlier['sha256'][:12]}) than the input holds now ({told['scenes']}, {rows.identity[:12]}): "
                    "restore the shards, or choose another output"
                )
        return True

    def _note(self, row: Progress) -> None:
        self.lock.check()
        if self.observer:
            self.observer.progress(row)

    def _summary(self, state: str, error: str) -> dict[str, Any]:
        job, outcome = self.job, self.outcome
        curve = job.output / "curve.csv"
        rows = read_curve(curve) if curve.is_file() else []
        return {
            "state": state,
            "error": error,
            "over_limits": self.over,
            "steps": {"done": _steps_done(job.output), "asked": job.loop.num_steps},
            "last_terms": rows[-1] if rows else {},
            "seed": job.seed,
            "device": job.device,
            "workers": job.workers.num_workers,
            "scenes": self.scenes,
            "checkpoint": str(job.checkpoint) if state == "done" else None,
            "this_run": {
                "started_unix": self.started,
                "seconds": round(time.time() - self.started, 3),
                "driver_peak_memory_mib": round(peak_memory_mib(), 1),
                "worker": outcome.told() if outcome else None,
            },
        }


def _identity(shards: Sequence[Shard]) -> str:
    """SHA-256 over names, sizes and content tags."""
    return hashlib.sha256(json.dumps([shard.id for shard in shards]).encode()).hexdigest()


def _steps_done(output: Path) -> int:
    """Steps that the newest state on disk holds."""
    found = states(output / "states")
    return int(found[-1].name.rpartition("-")[2]) if found else 0


def record_failed_start(output: Path, error: Exception) -> None:
    """Write `summary.json` for a start that ended before anything was read: what stood in the way."""
    storage = open_storage(str(output))
    try:
        with OutputLock(storage):
            told = {
                "state": "not started",
                "error": f"{type(error).__name__}: {error}"[:4000],
                "over_limits": [],
                "steps": {"done": _steps_done(output), "asked": None},
            }
            write_summary(storage, told)
    except OutputError as obstacle:
        logger.warning("no %s was written: %s", SUMMARY, obstacle)
