"""How long stages, and the parts of an annotator, work: clocks around the objects that a job uses."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch

from pipelines.stage import Stage
from pipelines.stages.annotate import Annotator, AnnotatorFactory

PARTS = (
    ("segmenter", "segmenter", ("segment",)),
    ("detector", "finder", ("find", "segment_and_find")),
    ("masks of boxes", "prompter", ("masks",)),
    ("expert", "expert", ("see", "regions", "judge", "describe", "verify")),
    ("captioner", "captioner", ("describe",)),
    ("second segmenter", "other", ("segment",)),
)
"""What a part is called, its attribute of `ovsops.annotators.annotator.Annotator`, and the methods that work."""


@dataclass(frozen=True)
class Lap:
    """One table that a stage gave."""

    images: int
    seconds: float
    """Of the thread that asked for it; stages that come after are not in it."""
    cpu_seconds: float
    """Of this process, all its threads."""


@dataclass
class TimedStage(Stage):
    """A stage with a clock: the same rows."""

    name = "timed"
    stage: Stage
    laps: list[Lap] = field(default_factory=list)

    def setup(self) -> None:
        """That of the stage."""
        self.stage.setup()

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        """That of the stage, a lap a table."""
        tables = self.stage.process(batch)
        while True:
            clock, cpu = time.perf_counter(), time.process_time()
            table = next(tables, None)
            images = 0 if table is None else num_images(table)
            self.laps.append(Lap(images, time.perf_counter() - clock, time.process_time() - cpu))
            if table is None:
                return
            yield table


def num_images(table: pa.Table) -> int:
    """Images in rows on their way, or in rows of `PART_ROW`."""
    if "first" not in table.column_names:
        return int(table.column("closing").null_count)
    return sum(row["end"] - row["first"] - bool(row["closing"]) for row in table.to_pylist())


@dataclass
class PartClock:
    """Seconds by part of an annotator, added over calls. Calls inside calls count for the outer one."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _depth: int = 0

    def around(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method with a clock around it. Models work in one thread, so that depth needs no lock."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._depth:
                return method(*args, **kwargs)
            self._depth += 1
            _wait_for_gpu()
            clock = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                _wait_for_gpu()
                self.seconds[name] += time.perf_counter() - clock
                self._depth -= 1

        return timed


def _wait_for_gpu() -> None:
    """Work that was only queued would be counted for whoever waits for it."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class TimedFactory:
    """Builds an annotator whose parts are timed. Stays in its process: clocks do not travel."""

    factory: AnnotatorFactory
    clock: PartClock

    def build(self) -> Annotator:
        """Load the weights, put clocks around the parts."""
        annotator = self.factory.build()
        for name, attribute, methods in PARTS:
            part = getattr(annotator, attribute, None)
            for method in methods:
                if (found := getattr(part, method, None)) is not None:
                    setattr(part, method, self.clock.around(name, found))
        return annotator
