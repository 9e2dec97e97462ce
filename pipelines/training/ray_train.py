"""Many workers by Ray Train: one process each, joined by torch.distributed (gloo on CPUs, NCCL on GPUs).

Ray Train starts, joins and ends the workers; states, curve and checkpoint are written by the loop itself, into the
output, so that one worker and many leave the same files. Ray's own records go to a temporary folder.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer
from torch import distributed as dist
from torch import nn

from ovsops.errors import OvsopsError, TrainingError, WorkerError
from ovsops.losses.gather import all_gather_with_gradient
from ovsops.training.loop import Progress
from ovsops.training.state import states
from pipelines.training.worker import Outcome, Team, WorkersConfig, WorkerTask, run_worker

ASK_EVERY_S = 0.5
"""Seconds between looks of the main worker, and of the driver, at what the other one wants."""


class _Desk:
    """An actor between driver and main worker: progress one way, the wish to stop the other."""

    def __init__(self) -> None:
        self.rows: list[Progress] = []
        self.outcome: Outcome | None = None
        self.is_stopped = False

    def add(self, row: Progress) -> None:
        self.rows.append(row)

    def take(self) -> list[Progress]:
        rows, self.rows = self.rows, []
        return rows

    def stop(self) -> None:
        self.is_stopped = True

    def should_stop(self) -> bool:
        return self.is_stopped

    def finish(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def result(self) -> Outcome | None:
        return self.outcome


def train_on_ray(
    task: WorkerTask,
    scenes: pa.Table,
    config: WorkersConfig,
    *,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Outcome:
    """Run `task` on `config.num_workers` workers of the Ray that is up; what the main one tells.

    Raises the error of ours that ended a worker, or WorkerError when a worker died.
    """
    desk: Any = ray.remote(_Desk).options(num_cpus=0).remote()
    held = ray.put(scenes)

    def work() -> None:
        _work(task, ray.get(held), desk)

    use_gpu = task.device == "cuda"
    with tempfile.TemporaryDirectory(prefix="ovs-train", ignore_cleanup_errors=True) as folder:
        trainer = TorchTrainer(
            work,
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=int(config.timeout_s)),
            scaling_config=ray.train.ScalingConfig(
                num_workers=config.num_workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": config.num_cpus, "GPU": 1.0 if use_gpu else 0.0},
            ),
            run_config=ray.train.RunConfig(
                name="train", storage_path=folder, failure_config=ray.train.FailureConfig(max_failures=0)
            ),
        )
        fitting = _Fitting(trainer)
        fitting.start()
        has_asked = False
        while fitting.is_alive():
            fitting.join(ASK_EVERY_S)
            for row in ray.get(desk.take.remote()):
                on_progress(row)
            if not has_asked and should_stop():
                desk.stop.remote()
                has_asked = True
    if fitting.error is not None:
        raise _meaning(fitting.error) from fitting.error
    outcome: Outcome | None = ray.get(desk.result.remote())
    if outcome is None:
        raise WorkerError("the workers ended without a result; run the same recipe again to go on")
    return outcome


class _Fitting(threading.Thread):
    """`fit` in a thread of its own: in the main thread Ray Train would take SIGINT and drop the step's work."""

    def __init__(self, trainer: TorchTrainer) -> None:
        super().__init__(name="ray-train", daemon=True)
        self.trainer = trainer
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.trainer.fit()
        except Exception as error:  # noqa: BLE001  raised again by the thread that waits
            self.error = error


def _meaning(error: Exception) -> Exception:
    """The error of ours that a worker raised, out of Ray Train's wrapping."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    for rank in sorted(failures):
        inner = getattr(failures[rank], "_base_exc", failures[rank])
        if isinstance(inner, OvsopsError):
            return inner
    return WorkerError(
        f"a worker failed; the last state is kept, run the same recipe again to go on.\n{error}"[:4000]
    )


def _work(task: WorkerTask, scenes: pa.Table, desk: Any) -> None:
    """The body of one worker."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    device = (
        torch.device(task.device, torch.cuda.current_device())
        if task.device == "cuda"
        else torch.device("cpu")
    )
    exchange = Exchange(device)
    exchange.check_equal_starts(task)
    team = Team(
        rank=rank,
        world_size=world_size,
        gather=all_gather_with_gradient(),
        average_gradients=exchange.average_gradients,
        average_terms=exchange.average_terms,
        agree_to_stop=exchange.agree_to_stop,
    )
    outcome = run_worker(
        task,
        scenes,
        team,
        on_progress=lambda row: desk.add.remote(row),
        should_stop=_Asking(desk).should_stop,
    )
    if rank == 0:
        ray.get(desk.finish.remote(outcome))
    dist.barrier()


@dataclass
class _Asking:
    """Asks the desk now and then, not at each step."""

    desk: Any
    asked: float = field(default_factory=time.monotonic)
    answer: bool = False

    def should_stop(self) -> bool:
        if time.monotonic() - self.asked >= ASK_EVERY_S:
            self.asked = time.monotonic()
            self.answer = ray.get(self.desk.should_stop.remote())
        return self.answer


class Exchange:
    """What workers tell each other beside what losses gather."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def average_gradients(self, module: nn.Module) -> None:
        """Mean over workers of every gradient, by one reduction; a gradient that a worker lacks counts as 0."""
        trained = [p for p in module.parameters() if p.requires_grad]
        whole = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained])
        dist.all_reduce(whole)
        whole /= dist.get_world_size()
        place = 0
        for p in trained:
            p.grad = whole[place : place + p.numel()].view_as(p)
            place += p.numel()

    def average_terms(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Mean over workers of each term."""
        values = torch.tensor(list(terms.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(values)
        return dict(zip(terms, (values / dist.get_world_size()).tolist(), strict=True))

    def agree_to_stop(self, wanted: bool) -> bool:
        """Whether any worker wants to stop."""
        votes = torch.tensor(float(wanted), device=self.device)
        dist.all_reduce(votes)
        return bool(votes.item())

    def check_equal_starts(self, task: WorkerTask) -> None:
        """All workers must go on from one state. Raises TrainingError where they see different ones."""
        found = states(task.folder / "states")
        newest = int(found[-1].name.rpartition("-")[2]) if found else 0
        mine = torch.tensor([newest, -newest], device=self.device)
        dist.all_reduce(mine, op=dist.ReduceOp.MAX)
        if int(mine[0]) != -int(mine[1]):
            raise TrainingError(
                f"{task.folder}: workers see states of step {-int(mine[1])} to {int(mine[0])}; "
                "write to a folder that all machines share"
            )
