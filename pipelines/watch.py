"""What a driver tells of a run while it works: to a progress view, to metrics, to a test."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from pipelines.ledger import ShardRecord

Queued: TypeAlias = Callable[[], Mapping[str, int]]
"""Blocks that wait before each step, by the step's name, at the time of the call."""


def nothing_queued() -> Mapping[str, int]:
    """Of an engine without queues."""
    return {}


@runtime_checkable
class Observer(Protocol):
    """Somebody who watches a run. Called on the driver's own thread: an observer that is slow slows the run."""

    def started(self, *, shards: int, done: int, queued: Queued = nothing_queued) -> None:
        """Work begins: shards in the input, and how many were done before."""

    def part(self, *, images: int, spans: Mapping[str, Sequence[float]]) -> None:
        """Rows written, and the span of each stage that worked on them (`pipelines.spans`)."""

    def committed(self, commit: ShardRecord) -> None:
        """A shard is done."""

    def shard_failed(self, code: str) -> None:
        """A shard could not be read or worked on."""


class Observers:
    """One observer that tells several."""

    def __init__(self, *others: Observer) -> None:
        self.others = others

    def started(self, *, shards: int, done: int, queued: Queued = nothing_queued) -> None:
        """Work begins."""
        for other in self.others:
            other.started(shards=shards, done=done, queued=queued)

    def part(self, *, images: int, spans: Mapping[str, Sequence[float]]) -> None:
        """Rows written."""
        for other in self.others:
            other.part(images=images, spans=spans)

    def committed(self, commit: ShardRecord) -> None:
        """A shard is done."""
        for other in self.others:
            other.committed(commit)

    def shard_failed(self, code: str) -> None:
        """A shard failed."""
        for other in self.others:
            other.shard_failed(code)
