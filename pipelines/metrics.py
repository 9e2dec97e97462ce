"""Numbers about a run for Prometheus: their names, and the observer that counts them on the driver.

Where they go is a sink's business: to Ray's own metrics (`ray_metrics`), where each name begins with `ray_`, or to a
text file (`metrics_file`). Workers count nothing: what they did arrives with the summary of each part.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pipelines.ledger import Commit, ShardRecord
from pipelines.redact import redact
from pipelines.units import UnitCommit
from pipelines.watch import Queued, nothing_queued

RUN_TAGS = ("work", "output")
"""Of every metric: the job (`label`, `retry`, `negatives`, ...), and where it writes."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A name that is published."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    tags: tuple[str, ...] = ()
    """Beside those of the run."""
    boundaries: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets."""


IMAGES = Metric(
    name="ovsops_images_total",
    kind="counter",
    help="Images of committed shards; outcome is labelled, skipped, failed, kept or left_out.",
    tags=("outcome",),
)
REGIONS = Metric(
    name="ovsops_regions_total",
    kind="counter",
    help="Regions that jobs over labels have read; outcome is kept or left_out.",
    tags=("outcome",),
)
LEFT_OUT = Metric(
    name="ovsops_left_out_total",
    kind="counter",
    help="Rows of committed shards that were skipped (S_), failed (E_) or left out, by code.",
    tags=("code",),
)
INSTANCES = Metric(name="ovsops_instances_total", kind="counter", help="Instances in committed shards.")
SHARDS = Metric(
    name="ovsops_shards_total",
    kind="counter",
    help="Shards that this start has settled; outcome is committed or failed.",
    tags=("outcome",),
)
SHARDS_LEFT = Metric(name="ovsops_shards_left", kind="gauge", help="Shards that are not settled yet.")
STAGE_ROWS = Metric(
    name="ovsops_stage_rows_total",
    kind="counter",
    help="Rows that a stage has worked on and that are written; parts of retried tasks count again.",
    tags=("stage",),
)
STAGE_BUSY = Metric(
    name="ovsops_stage_busy_seconds_total",
    kind="counter",
    help="Seconds that a stage worked, added over its workers.",
    tags=("stage",),
)
PART_SECONDS = Metric(
    name="ovsops_part_seconds",
    kind="histogram",
    help="Seconds from the begin of a part's first stage to the end of its last one.",
    boundaries=(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0),
)
QUEUED = Metric(
    name="ovsops_queued_blocks",
    kind="gauge",
    help="Blocks that wait before a step. Absent without Ray.",
    tags=("stage",),
)
STARTED = Metric(name="ovsops_started_timestamp_seconds", kind="gauge", help="When this start began.")
LAST_PART = Metric(
    name="ovsops_last_part_timestamp_seconds", kind="gauge", help="When rows were written for the last time."
)
EXIT_CODE = Metric(
    name="ovsops_exit_code",
    kind="gauge",
    help="How the command ended; absent while it runs. In text files alone.",
)
FINISHED = Metric(
    name="ovsops_finished_timestamp_seconds",
    kind="gauge",
    help="When the command ended; absent while it runs. In text files alone.",
)

METRICS = (
    IMAGES, REGIONS, LEFT_OUT, INSTANCES, SHARDS, SHARDS_LEFT, STAGE_ROWS, STAGE_BUSY, PART_SECONDS, QUEUED, STARTED,
    LAST_PART, EXIT_CODE, FINISHED,
)  # fmt: skip
"""Every name there is."""

OF_THE_COMMAND = (EXIT_CODE, FINISHED)
"""Without the tags of a run."""


def tag_names(metric: Metric) -> tuple[str, ...]:
    """All tags of a metric, in order."""
    return metric.tags if metric in OF_THE_COMMAND else (*RUN_TAGS, *metric.tags)


class Sink(Protocol):
    """Where numbers go. `tags` has a value for each of `tag_names(metric)`."""

    def add(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        """Raise a counter."""

    def set(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        """Put a gauge."""

    def observe(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        """Add to a histogram."""


class MetricsObserver:
    """Counts a run into sinks."""

    def __init__(self, sinks: Sequence[Sink], *, work: str, output: str, rows: Metric = IMAGES) -> None:
        self.sinks, self.rows = sinks, rows
        self.tags = {"work": work, "output": redact(output)}
        self.queued: Queued = nothing_queued
        self.waited: set[str] = set()
        self.left, self.began = 0, 0.0

    def started(self, *, shards: int, done: int, queued: Queued = nothing_queued) -> None:
        """Work begins."""
        self.left, self.queued, self.began = shards - done, queued, time.time()
        self._set(STARTED, self.began)
        self._set(SHARDS_LEFT, self.left)

    def part(self, *, images: int, spans: Mapping[str, Sequence[float]]) -> None:
        """Rows written. Gauges are put again: Ray forgets those that it is not reminded of."""
        self._set(LAST_PART, time.time())
        self._set(STARTED, self.began)
        self._set(SHARDS_LEFT, self.left)
        for stage, (_, _, busy, rows) in spans.items():
            self._add(STAGE_ROWS, rows, stage=stage)
            self._add(STAGE_BUSY, busy, stage=stage)
        if spans:
            seconds = max(span[1] for span in spans.values()) - min(span[0] for span in spans.values())
            for sink in self.sinks:
                sink.observe(PART_SECONDS, max(0.0, seconds), self.tags)
        waiting = self.queued()
        for stage in self.waited | waiting.keys():
            self._set(QUEUED, waiting.get(stage, 0), stage=stage)
        self.waited |= waiting.keys()

    def committed(self, commit: ShardRecord) -> None:
        """A shard is done."""
        if isinstance(commit, Commit):
            for outcome in ("labelled", "skipped", "failed"):
                self._add(self.rows, getattr(commit, outcome), outcome=outcome)
            self._add(INSTANCES, commit.instances)
            self._codes(commit.codes)
        elif isinstance(commit, UnitCommit):
            self._add(self.rows, commit.kept, outcome="kept")
            self._add(self.rows, commit.read - commit.kept, outcome="left_out")
            self._codes(commit.left_out)
        self._settled("committed")

    def shard_failed(self, code: str) -> None:
        """A shard failed."""
        self._settled("failed")

    def _codes(self, codes: Mapping[str, int]) -> None:
        for code, count in codes.items():
            self._add(LEFT_OUT, count, code=code)

    def _settled(self, outcome: str) -> None:
        self.left -= 1
        self._add(SHARDS, 1, outcome=outcome)
        self._set(SHARDS_LEFT, self.left)

    def _add(self, metric: Metric, value: float, **tags: str) -> None:
        for sink in self.sinks:
            sink.add(metric, value, self.tags | tags)

    def _set(self, metric: Metric, value: float, **tags: str) -> None:
        for sink in self.sinks:
            sink.set(metric, value, self.tags | tags)
