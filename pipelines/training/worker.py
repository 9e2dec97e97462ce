"""One worker of a training: bank, program, loop, checkpoint. Knows the others only through its `Team`."""

import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import pyarrow as pa
import torch
from torch import nn

from ovsops.errors import ConfigError
from ovsops.losses.gather import Gather, no_gather
from ovsops.training.fgclip2_sets import SetBank
from ovsops.training.loop import LoopConfig, Program, Progress, train
from ovsops.training.scenes import SceneBank
from pipelines.training.scenes import bank_of_rows
from pipelines.training.set_images import SetImages
from pipelines.training.set_table import SetTable

_WORK = "_work"
"""Folder of an output for what programs need while they learn; a finished training leaves it empty."""


class ProgramFactory(Protocol):
    """Travels to the workers and builds the program there; pickles in bytes."""

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program over a bank, with its first weights."""


@runtime_checkable
class SetProgramFactory(Protocol):
    """The same for programs that learn from training sets."""

    def build_from_set(
        self, bank: SetBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program over a set, with its first weights."""


@dataclass(frozen=True, kw_only=True)
class WorkersConfig:
    """How many workers, and what each of them gets."""

    num_workers: int = 1
    """Above 1 they are processes of Ray Train; the batch of a step is batch_size scenes of each."""
    num_cpus: float = 1.0
    """CPUs that Ray sets aside for each of many workers; on a CPU also their threads of torch."""
    num_threads: int = 0
    """Threads of torch on the CPU in each worker; 0 is all cores for one worker, num_cpus for each of many."""
    timeout_s: float = 600.0
    """Seconds that a worker waits for the others in one exchange before it gives up."""

    def __post_init__(self) -> None:
        if self.num_workers < 1 or self.num_cpus <= 0 or self.num_threads < 0 or self.timeout_s <= 0:
            raise ConfigError(
                f"workers: num_workers {self.num_workers}, num_cpus {self.num_cpus}, num_threads {self.num_threads}, "
                f"timeout_s {self.timeout_s}; expected at least 1, over 0, 0 or more, over 0"
            )

    def threads(self) -> int:
        """Threads of torch in each worker; 0 leaves it to torch."""
        return self.num_threads or (max(1, int(self.num_cpus)) if self.num_workers > 1 else 0)


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """What every worker of a training does."""

    program: ProgramFactory | SetProgramFactory
    loop: LoopConfig
    folder: Path
    """The output: states, curve, checkpoint. All workers see it."""
    checkpoint: Path
    """Folder that gets the exported checkpoint."""
    device: str = "cpu"
    seed: int = 0
    """Of torch's own generator, for what draws from it; a state holds where it is."""
    num_threads: int = 0
    """Threads of torch; 0 leaves it to torch."""
    set_images: SetImages | None = None
    """Where the images of a training set are; None where scenes are learned from."""


@dataclass(frozen=True, kw_only=True)
class Team:
    """This worker among the others. The default is a worker alone."""

    rank: int = 0
    world_size: int = 1
    gather: Gather = no_gather
    average_gradients: Callable[[nn.Module], None] | None = None
    average_terms: Callable[[Mapping[str, float]], dict[str, float]] | None = None
    agree_to_stop: Callable[[bool], bool] | None = None
    """Whether the main worker wants to stop; all call it after each step."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the main worker tells of its training."""

    start: int
    """Steps that earlier starts had done."""
    done: int
    seconds: float
    """In the loop, without reading scenes."""
    peak_memory_mib: float
    """Most memory that the worker's process ever held."""
    peak_gpu_memory_mib: float

    def told(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def run_worker(
    task: WorkerTask,
    rows: pa.Table,
    team: Team,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train from the newest state; the main worker exports the checkpoint after the last step.

    `rows` are scenes (`SCENE_ROW`), or images of a training set (`SET_ROW`) where the task has `set_images`.
    """
    if task.num_threads:
        torch.set_num_threads(task.num_threads)
    torch.manual_seed(task.seed)
    is_main = team.rank == 0
    work = task.folder / _WORK / f"worker-{team.rank}"
    work.mkdir(parents=True, exist_ok=True)
    program = _built(task, rows, work, team)

    def stop() -> bool:
        wanted = is_main and should_stop()
        return wanted if team.agree_to_stop is None else team.agree_to_stop(wanted)

    started = time.perf_counter()
    trained = train(
        program,
        task.loop,
        task.folder,
        average_gradients=team.average_gradients,
        average_terms=team.average_terms,
        is_main=is_main,
        on_progress=on_progress if is_main else None,
        should_stop=stop,
    )
    seconds = time.perf_counter() - started
    if is_main and trained.done >= task.loop.num_steps:
        export(program, task.checkpoint)
    if trained.done >= task.loop.num_steps:
        shutil.rmtree(work, ignore_errors=True)
    return Outcome(
        start=trained.start,
        done=trained.done,
        seconds=round(seconds, 3),
        peak_memory_mib=round(peak_memory_mib(), 1),
        peak_gpu_memory_mib=round(torch.cuda.max_memory_allocated() / 2**20, 1)
        if task.device == "cuda"
        else 0.0,
    )


def _built(task: WorkerTask, rows: pa.Table, work: Path, team: Team) -> Program:
    told: dict[str, Any] = {"gather": team.gather, "world_size": team.world_size, "device": task.device}
    if task.set_images is None:
        return cast(ProgramFactory, task.program).build(bank_of_rows(rows), work, **told)
    assert isinstance(task.program, SetProgramFactory), "the job looked before it read the set"
    return task.program.build_from_set(SetTable(rows, task.set_images), work, **told)


def export(program: Program, folder: Path) -> None:
    """The program's checkpoint, whole or not at all."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    program.export(beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)


def peak_memory_mib() -> float:
    """Most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
