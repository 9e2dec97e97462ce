"""Stages to Ray Data operators. This file, `queues`, `ray_metrics`, `ray_start`, `sources` and `training.ray_train` are
the only ones that know Ray; `llm_batch` hands on Ray's own stage for language models.

Ray decides where a block runs and how often; what is done is decided by the ledger (`pipelines.ledger`).
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from ovsops.errors import ConfigError
from pipelines.counted import counted
from pipelines.queues import QueueWatch
from pipelines.ray_start import patient_start
from pipelines.readers import ReaderConfig, read_shard
from pipelines.shards import Shard
from pipelines.sources import shard_dataset
from pipelines.spans import timed_as
from pipelines.stage import Stage
from pipelines.storage import StorageOptions

logger = logging.getLogger(__name__)


_TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"
_PROGRESS_LOGGER = "ray.data._internal.progress"


def _is_no_token_notice(record: logging.LogRecord) -> bool:
    """False for the one warning that a private Ray asks its own processes for a token: that is as it should be.

    `RAY_AUTH_MODE=token` says the same to Ray, but only before `import ray`: set later, driver and nodes disagree and
    Ray does not start.
    """
    return not str(record.msg).startswith("Token authentication is enabled")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a step runs."""

    actors: int = 0
    """Workers that stay and keep their model; 0 runs the step as short tasks."""
    num_cpus: float = 0.25
    num_gpus: float = 0.0
    """May be a fraction: 0.5 puts two actors on one GPU."""
    blocks_at_once: int = 2
    """Blocks that one actor works on: while the tail of one is packed, the next one is decoded and fed to the
    model, whose calls stay one after another."""
    memory_gib: float = 0.0
    """Heap that Ray sets aside for each worker; 0 leaves it out of the scheduling."""

    def resources(self) -> dict[str, float]:
        """Keyword arguments of Ray."""
        asked = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        return asked | ({"memory": self.memory_gib * 2**30} if self.memory_gib else {})


@dataclass(frozen=True, kw_only=True)
class Step:
    """Stages that run one after another in the same worker."""

    stages: tuple[Stage, ...]
    placement: Placement

    @property
    def name(self) -> str:
        """What its queue is called."""
        return timed_as([stage.name for stage in self.stages])


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """The cluster a job runs on."""

    address: str = "local"
    """`local` starts a private Ray for this job; `auto` joins the cluster of this machine; or an address."""
    num_cpus: int | None = None
    """CPUs of a private Ray; all of the machine's by default."""
    object_store_mib: int = 512
    """Shared memory of a private Ray for blocks between steps."""
    block_mib: float = 32.0
    """Rows travel in blocks of about this many bytes."""
    read_cpus: float = 0.45
    """CPU share of one read task; never 0, which starts dozens of them at once."""
    start_timeout_s: float = 120.0
    """Seconds that a private Ray's processes may take to start; Ray itself waits 30 s, so less changes nothing."""

    def __post_init__(self) -> None:
        if self.num_cpus is not None and self.num_cpus < 1:
            raise ConfigError(f"ray.num_cpus is {self.num_cpus}; it must be 1 or more, or null for all")
        if self.object_store_mib < 80:
            raise ConfigError(f"ray.object_store_mib is {self.object_store_mib}; Ray needs 80 or more")
        for name in ("block_mib", "read_cpus", "start_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"ray.{name} is {getattr(self, name)}; it must be over 0")


def cpu_shortage(ray_config: RayConfig, placements: Sequence[Placement]) -> str:
    """Why a private Ray could never run these steps at once, or nothing: the workers of each step and one reader.

    Ray itself would wait for ever without an error. Of a cluster that is joined nothing is known here.
    """
    if ray_config.address != "local":
        return ""
    present = ray_config.num_cpus or os.cpu_count() or 1
    needed = ray_config.read_cpus + sum(max(1, p.actors) * p.num_cpus for p in placements)
    if needed <= present:
        return ""
    return (
        f"ray: the actors of all steps and one reader need {needed:g} CPU shares at once, there are {present}; lower "
        "segment_on.num_cpus or segment_on.actors, or raise ray.num_cpus (shares may be more than there are cores)"
    )


class Engine(Protocol):
    """Runs steps over shards, and small jobs beside them."""

    def tables(
        self, shards: Sequence[Shard], reader: ReaderConfig, steps: Sequence[Step]
    ) -> Iterator[pa.Table]:
        """Tables that the last step yields, as they come."""

    def units(self, tasks: Sequence[pa.Table], step: Step) -> Iterator[pa.Table]:
        """Tables that the step yields for small tables that say what is to be done, in any order."""

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], Any | None]:
        """Start a small job; the returned poll gives None until it is done, then the result."""

    def queued(self) -> Mapping[str, int]:
        """Blocks that wait before each step, by its name; nothing where there are no queues."""


class RayEngine:
    """Ray Data: streaming, backpressured, on one machine or many. A context manager."""

    def __init__(self, config: RayConfig, options: StorageOptions) -> None:
        self.config, self.options = config, options
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> "RayEngine":
        if not ray.is_initialized():
            if self.config.address == "local":
                logging.getLogger(_TOKEN_LOGGER).addFilter(_is_no_token_notice)
            try:
                with patient_start(self.config.start_timeout_s):
                    ray.init(**self._init_args())
            except BaseException:
                self._cleanup.close()  # the folder of a Ray that never came up
                raise
            self._cleanup.callback(ray.shutdown)
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger(_PROGRESS_LOGGER).setLevel(
            logging.ERROR
        )  # warns that there are no bars, as is meant
        context = DataContext.get_current()
        context.target_max_block_size = int(self.config.block_mib * 2**20)
        context.enable_progress_bars = False
        context.max_errored_blocks = 0
        context.execution_options.preserve_order = False
        context.execution_no_progress_timeout_s = -1  # a night may wait for capacity
        context.print_on_execution_start = False
        if QueueWatch not in context.custom_execution_callback_classes:
            context.custom_execution_callback_classes.append(QueueWatch)
        return self

    def __exit__(self, *error: object) -> None:
        self._cleanup.close()

    def _init_args(self) -> dict[str, Any]:
        common: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
        if self.config.address != "local":
            return common | {"address": self.config.address}
        folder = self._cleanup.enter_context(
            tempfile.TemporaryDirectory(prefix="ovs", ignore_cleanup_errors=True)
        )
        return common | {
            "address": "local",
            "num_cpus": self.config.num_cpus,
            "object_store_memory": self.config.object_store_mib * 2**20,
            "include_dashboard": False,
            "_temp_dir": folder,
        }

    def tables(
        self, shards: Sequence[Shard], reader: ReaderConfig, steps: Sequence[Step]
    ) -> Iterator[pa.Table]:
        """Tables that the last step yields, in any order."""
        actors = sum(step.placement.actors for step in steps)
        logger.info(
            "starting %s: what they need is loaded before the first image", counted(actors, "workers")
        )
        dataset = shard_dataset(shards, reader, self.options, num_cpus=self.config.read_cpus)
        QueueWatch.watch([step.name for step in steps])
        for step in steps:
            dataset = _map(dataset, step)
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)

    def units(self, tasks: Sequence[pa.Table], step: Step) -> Iterator[pa.Table]:
        """Tables that the step yields, a block a task, in any order."""
        return self.units_through(tasks, step, lambda dataset: dataset)

    def units_through(
        self, tasks: Sequence[pa.Table], step: Step, stage: Callable[[Dataset], Dataset]
    ) -> Iterator[pa.Table]:
        """Likewise, where what the step yields goes through a stage of Ray Data's own, in the same execution."""
        QueueWatch.watch([step.name])
        dataset = stage(_map(ray.data.from_arrow(list(tasks)), step))
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], Any | None]:
        """Run as a Ray task; retried when its worker dies."""
        task = ray.remote(function).options(num_cpus=0.1, max_retries=4, name=function.__name__)
        reference = task.remote(*args, **kwargs)

        def poll() -> Any | None:
            ready, _ = ray.wait([reference], timeout=0)
            return ray.get(ready[0]) if ready else None

        return poll

    def queued(self) -> Mapping[str, int]:
        """Blocks that wait before each step."""
        return QueueWatch.blocks


def _map(dataset: Any, step: Step) -> Any:
    placement = step.placement
    arguments: dict[str, Any] = {
        "batch_size": None,
        "batch_format": "pyarrow",
        "zero_copy_batch": True,
        **placement.resources(),
    }
    if not placement.actors:
        return dataset.map_batches(run_once, fn_args=(step.stages,), **arguments)
    pool = ActorPoolStrategy(
        size=placement.actors,
        max_concurrent_calls_per_actor=placement.blocks_at_once,
        enable_true_multi_threading=placement.blocks_at_once > 1,
    )
    return dataset.map_batches(StageWorker, fn_constructor_args=(step.stages,), compute=pool, **arguments)


class StageWorker:
    """The stages of one step, set up once, in one actor."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = stages
        for stage in stages:
            stage.setup()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Send a block through the stages."""
        return chain(self.stages, batch)


def run_once(batch: pa.Table, stages: Sequence[Stage]) -> Iterator[pa.Table]:
    """The stages of a step as one task: their setup is cheap."""
    return StageWorker(stages)(batch)


def chain(stages: Sequence[Stage], batch: pa.Table) -> Iterator[pa.Table]:
    """Tables that come out of the last stage."""
    if not stages:
        yield batch
        return
    for table in stages[0].process(batch):
        yield from chain(stages[1:], table)


class InlineEngine:
    """The same steps in this process, one shard after another: the reference that Ray is tested against."""

    def __init__(self, options: StorageOptions) -> None:
        self.options = options

    def __enter__(self) -> "InlineEngine":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close: workers end with the process."""

    def tables(
        self, shards: Sequence[Shard], reader: ReaderConfig, steps: Sequence[Step]
    ) -> Iterator[pa.Table]:
        """Tables that the last step yields, shard by shard."""
        stages = [stage for step in steps for stage in step.stages]
        for stage in stages:
            stage.setup()
        for shard in shards:
            for table in read_shard(shard, reader, self.options):
                yield from chain(stages, table)

    def units(self, tasks: Sequence[pa.Table], step: Step) -> Iterator[pa.Table]:
        """Tables that the step yields, in the order of the tasks."""
        for stage in step.stages:
            stage.setup()
        for task in tasks:
            yield from chain(step.stages, task)

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], Any | None]:
        """Run it now."""
        result = function(*args, **kwargs)
        return lambda: result

    def queued(self) -> Mapping[str, int]:
        """None: one table at a time."""
        return {}
