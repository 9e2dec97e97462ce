"""How many blocks wait before each step, as Ray Data's executor knows it.

Ray's own metrics look at the executor in the same way (`ResourceAllocatorPrometheusCallback`, Ray 2.60); there is no
public call. Of one execution at a time: that of this process.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ray.data._internal.execution.execution_callback import ExecutionCallback


class QueueWatch(ExecutionCallback):
    """Ray Data makes one an execution, and calls it on the driver after each of its scheduling steps."""

    names: ClassVar[tuple[str, ...]] = ()
    """Of the steps, in order: each is one `map_batches`."""
    blocks: ClassVar[Mapping[str, int]] = {}
    """The latest count by step. Replaced as a whole, so that other threads may read it."""

    @classmethod
    def watch(cls, names: Sequence[str]) -> None:
        """The next execution has these steps."""
        QueueWatch.names, QueueWatch.blocks = tuple(names), {}

    def on_execution_step(self, executor: Any) -> None:
        """Count."""
        topology = executor._topology.items()
        waiting = [(operator.name, state.total_enqueued_input_blocks()) for operator, state in topology]
        QueueWatch.blocks = by_step(waiting, self.names)

    def after_execution_succeeds(self, executor: Any) -> None:
        """Nothing waits any longer."""
        QueueWatch.blocks = {}


def by_step(waiting: Sequence[tuple[str, int]], names: Sequence[str]) -> dict[str, int]:
    """Counts of operators, in order, as counts of steps. Operators of two steps may have the same name.

    An operator that Ray fused (`MapBatches(a)->MapBatches(b)`) has one queue: that of the first step in it.
    """
    counts: dict[str, int] = {}
    left = list(names)
    for operator, count in waiting:
        own = operator.count("MapBatches(")
        if own and left:
            counts[left[0]] = count
            del left[:own]
    return counts
