"""A few images of the shards that are still to do, sent through a job's own stages in this process, with clocks.

read -> decode alone (the actor's own decoders) -> annotate -> encode -> write -> seal

Reader, stages, `chain` and `seal_shard` are those of the job. The images stand side by side as if they were one shard,
so that batches and parts have the sizes of a run. Nothing is written but below `job.output`, which is the caller's to
choose and to remove.
"""

import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import psutil
import pyarrow as pa
import pyarrow.compute as pc

from ovsops.errors import ConfigError
from pipelines.label import LabelJob
from pipelines.parts import SealedShard, read_part, seal_shard
from pipelines.readers import ReaderConfig, read_shard
from pipelines.rows import SKIP_PREFIX, SOURCE_ROW, Closing, status_of
from pipelines.runner import chain
from pipelines.shards import Shard
from pipelines.stages.annotate import AnnotateStage
from pipelines.storage import StorageOptions, open_storage
from pipelines.timed_parts import Lap, PartClock, TimedFactory, TimedStage

RUN = "plan"
_SHARD, _WARM_UP = "sample", "warm-up"


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Which images are tried."""

    images: int = 64
    """Images at most; fewer where the shards that are read hold fewer."""
    shards: int = 16
    """Shards that are opened at most, evenly spread over those that are still to do."""
    bytes_per_shard: int = 16 * 2**20
    """No more than about this is read of one shard, from its beginning; images are taken evenly from what was read."""

    def __post_init__(self) -> None:
        for name in ("images", "shards", "bytes_per_shard"):
            if getattr(self, name) < 1:
                raise ConfigError(f"sample.{name} is {getattr(self, name)}; it must be 1 or more")


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardHead:
    """What was read of one shard."""

    name: str
    rows: pa.Table
    """`SOURCE_ROW` without the closing row."""
    num_bytes: int
    """What they take of the archive, headers and padding included."""
    seconds: float
    cpu_seconds: float
    closing: Closing | None
    """None where the shard goes on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleRun:
    """What became of the images, and what it took."""

    heads: tuple[ShardHead, ...]
    """Of the shards that were opened and gave images."""
    source: pa.Table
    """The images as they were read, `index` 0..n-1."""
    encoded: pa.Table
    """`ENCODED_ROW` of the images, in the same order: what parts hold."""
    sealed: SealedShard
    faults: Mapping[str, str]
    """Shards that could not be read, or are damaged, with the reason."""
    load_seconds: float
    load_cpu_seconds: float
    """Of this process; what decoders need to come up is not in it."""
    decode: tuple[Lap, ...]
    """Of the decoders alone."""
    laps: Mapping[str, tuple[Lap, ...]]
    """By stage, one a model batch."""
    model_seconds: tuple[float, ...]
    """Inside the models, by batch."""
    part_seconds: Mapping[str, float]
    """By part of the annotator, over all batches; empty where it has no parts."""
    seal_seconds: float
    read_cpu_seconds: float
    """Of an image."""
    decode_cpu_seconds: float
    """Of the decoder processes, for an image."""
    seal_cpu_seconds: float
    """Of an image."""
    memory_bytes: int
    """This process with its decoders after the sample."""

    @property
    def num_images(self) -> int:
        """Images tried."""
        return int(self.source.num_rows)

    @property
    def failures(self) -> Counter[str]:
        """Failed images by code."""
        codes = self.encoded.column("error_code").to_pylist()
        return Counter(code for code in codes if code and not code.startswith(SKIP_PREFIX))


def spread(number: int, wanted: int) -> list[int]:
    """`wanted` of `number` places, in the middles of equal stretches; all where there are fewer."""
    if wanted >= number:
        return list(range(number))
    return [(2 * i + 1) * number // (2 * wanted) for i in range(wanted)]


def shares(available: Sequence[int], wanted: int) -> list[int]:
    """How many to take of each so that they are as equal as can be; earlier ones get the odd ones."""
    taken = [0] * len(available)
    left = min(wanted, sum(available))
    while left:
        open_ = [i for i, number in enumerate(available) if taken[i] < number]
        each, odd = divmod(left, len(open_))
        for rank, i in enumerate(open_):
            more = min(each + (rank < odd), available[i] - taken[i])
            taken[i] += more
            left -= more
    return taken


def read_head(shard: Shard, reader: ReaderConfig, options: StorageOptions, *, max_bytes: int) -> ShardHead:
    """The first rows of a shard, at least a table of them."""
    clock, cpu = time.perf_counter(), time.process_time()
    tables: list[pa.Table] = []
    num_bytes, closing = 0, None
    reading = cast(Generator[pa.Table, None, None], read_shard(shard, reader, options))
    for table in reading:
        tables.append(table)
        if last := table.column("closing")[-1].as_py():
            closing = Closing.from_json(last)
        num_bytes += pc.sum(pc.binary_length(table.column("image"))).as_py() or 0
        if num_bytes >= max_bytes:
            break
    reading.close()  # lets go of the archive
    rows = pa.concat_tables(tables)
    rows = rows.filter(pc.is_null(rows.column("closing")))
    return ShardHead(
        name=shard.name,
        rows=rows,
        num_bytes=sum(
            map(_bytes_in_tar, *(pc.binary_length(rows.column(n)).to_pylist() for n in ("image", "sidecar")))
        ),
        seconds=time.perf_counter() - clock,
        cpu_seconds=time.process_time() - cpu,
        closing=closing,
    )


def _bytes_in_tar(*members: int | None) -> int:
    """Bytes of members of these lengths: a header of 512 and padding to 512 each."""
    return sum(512 + -(-length // 512) * 512 for length in members if length is not None)


def estimated_images(heads: Sequence[ShardHead], shards: Sequence[Shard]) -> float:
    """Images of `shards` by their size and by what the beginnings of some of them hold for their bytes."""
    rows, num_bytes = sum(h.rows.num_rows for h in heads), sum(h.num_bytes for h in heads)
    return rows * sum(shard.size for shard in shards) / num_bytes


def run_sample(job: LabelJob, shards: Sequence[Shard], config: SampleConfig) -> SampleRun | None:
    """Try a sample of `shards`; None where they hold no image at all. Raises what stages raise.

    `job.ask` must be None: questions cost money.
    """
    assert job.ask is None, "a sample asks nobody"
    heads = [
        read_head(shards[place], job.reader, job.storage, max_bytes=config.bytes_per_shard)
        for place in spread(len(shards), config.shards)
    ]
    source = _drawn(heads, config.images)
    if not source.num_rows:
        return None
    clock = PartClock()
    timed = replace(job, annotator=TimedFactory(job.annotator, clock))
    stages = [TimedStage(stage) for step in timed.steps(RUN) for stage in step.stages]
    began, cpu = time.perf_counter(), time.process_time()
    for stage in stages:
        stage.setup()
    load = time.perf_counter() - began, time.process_time() - cpu
    annotate = stages[0].stage
    assert isinstance(annotate, AnnotateStage)
    try:
        return _tried(job, heads, source, stages, annotate, clock, load)
    finally:
        annotate.decoders.close()
        annotate.model_thread.shutdown()


def _drawn(heads: Sequence[ShardHead], wanted: int) -> pa.Table:
    """The images that are tried, numbered as one shard."""
    tables = [SOURCE_ROW.empty_table()]
    for head, share in zip(heads, shares([h.rows.num_rows for h in heads], wanted), strict=True):
        tables.append(head.rows.take(pa.array(spread(head.rows.num_rows, share), pa.int64())))
    return as_shard(pa.concat_tables(tables), _SHARD)


def as_shard(rows: pa.Table, shard: str) -> pa.Table:
    """The rows as those of one shard, from index 0 on."""
    names = pa.array([shard] * rows.num_rows, pa.string())
    numbers = pa.array(range(rows.num_rows), pa.int32())
    place = rows.schema.get_field_index
    rows = rows.set_column(place("shard"), SOURCE_ROW.field("shard"), names)
    return rows.set_column(place("index"), SOURCE_ROW.field("index"), numbers)


def blocks(rows: pa.Table, shard: str, reader: ReaderConfig) -> Iterator[pa.Table]:
    """The rows in tables as a reader would hand them on, the last one with the closing row."""
    closing = Closing(num_rows=rows.num_rows, complete=True).to_json()
    last = {"shard": shard, "index": rows.num_rows, "notes": [], "closing": closing}
    rows = pa.concat_tables([rows, pa.Table.from_pylist([last], schema=SOURCE_ROW)])
    sizes = pc.fill_null(pc.binary_length(rows.column("image")), 0).to_pylist()
    first = num_bytes = 0
    for i, size in enumerate(sizes):
        num_bytes += size
        is_full = i + 1 - first >= reader.rows_per_table or num_bytes >= reader.bytes_per_table
        if is_full and i + 1 < len(sizes) - 1:  # the closing row goes with the table before it
            yield rows.slice(first, i + 1 - first)
            first, num_bytes = i + 1, 0
    yield rows.slice(first)


def _tried(
    job: LabelJob,
    heads: Sequence[ShardHead],
    source: pa.Table,
    stages: Sequence[TimedStage],
    annotate: AnnotateStage,
    clock: PartClock,
    load: tuple[float, float],
) -> SampleRun:
    warm_up = as_shard(source.slice(0, job.batch.max_images), _WARM_UP)
    for block in blocks(warm_up, _WARM_UP, job.reader):
        for _ in chain(stages, block):
            pass
    for stage in stages:
        stage.laps.clear()
    clock.seconds.clear()
    decode, decode_cpu = _decode_alone(source, annotate, job.batch.max_images)
    parts: list[dict[str, Any]] = []
    for block in blocks(source, _SHARD, job.reader):
        for table in chain(stages, block):
            parts += table.to_pylist()
    storage = open_storage(job.output, job.storage)
    paths = [(part["path"], part["sha256"]) for part in parts]
    began, cpu = time.perf_counter(), time.process_time()
    sealed = seal_shard(storage, shard=_SHARD, name=_SHARD, parts=paths, unique=RUN)
    seal_seconds, seal_cpu = time.perf_counter() - began, time.process_time() - cpu
    encoded = pa.concat_tables([read_part(storage, *path) for path in paths])
    images = source.num_rows
    read = [head for head in heads if head.rows.num_rows]
    return SampleRun(
        heads=tuple(read),
        source=source,
        encoded=encoded.filter(pc.is_null(encoded.column("closing"))),
        sealed=sealed,
        faults=_faults(heads),
        load_seconds=load[0],
        load_cpu_seconds=load[1],
        decode=decode,
        laps={stage.stage.name: _by_batch(stage.laps) for stage in stages},
        model_seconds=_model_seconds(parts),
        part_seconds=dict(clock.seconds),
        seal_seconds=seal_seconds,
        read_cpu_seconds=sum(h.cpu_seconds for h in read) / sum(h.rows.num_rows for h in read),
        decode_cpu_seconds=decode_cpu / images,
        seal_cpu_seconds=seal_cpu / images,
        memory_bytes=_memory(annotate),
    )


def _decode_alone(source: pa.Table, annotate: AnnotateStage, group: int) -> tuple[tuple[Lap, ...], float]:
    """The actor's decoders with nothing beside them: laps of groups of images, and the decoders' CPU seconds."""
    images = [memoryview(image.as_buffer()) for image in source.column("image").drop_null()]
    before = _cpu_of(annotate)
    laps, clock, cpu = [], time.perf_counter(), time.process_time()
    count = 0
    for count, _ in enumerate(annotate.decoders.map(images), start=1):
        if count % group == 0 or count == len(images):
            now, cpu_now = time.perf_counter(), time.process_time()
            laps.append(Lap((count - 1) % group + 1, now - clock, cpu_now - cpu))
            clock, cpu = now, cpu_now
    return tuple(laps), max(0.0, _cpu_of(annotate) - before)


def _cpu_of(annotate: AnnotateStage) -> float:
    """CPU seconds of the decoder processes that run now; one that an image has killed is left out."""
    seconds = 0.0
    for pid in annotate.decoders.worker_pids:
        with suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            seconds += times.user + times.system
    return seconds


def _memory(annotate: AnnotateStage) -> int:
    """Bytes of this process and its decoders."""
    num_bytes = psutil.Process().memory_info().rss
    for pid in annotate.decoders.worker_pids:
        with suppress(psutil.NoSuchProcess):
            num_bytes += psutil.Process(pid).memory_info().rss
    return num_bytes


def _by_batch(laps: Sequence[Lap]) -> tuple[Lap, ...]:
    """Laps that gave images; what came after the last image of a block goes to it."""
    found: list[Lap] = []
    for lap in laps:
        if lap.images:
            found.append(lap)
        elif found:
            last = found[-1]
            found[-1] = Lap(last.images, last.seconds + lap.seconds, last.cpu_seconds + lap.cpu_seconds)
    return tuple(found)


def _model_seconds(parts: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    """By part that holds images: parts are written one a model batch."""
    return tuple(
        part["segment_seconds"] for part in parts if part["end"] - part["first"] > bool(part["closing"])
    )


def _faults(heads: Sequence[ShardHead]) -> dict[str, str]:
    faults = {}
    for head in heads:
        end = head.closing
        if end is not None and not end.complete:
            code, says = (end.failed_code, end.failed) if end.failed_code else (end.damage_code, end.damage)
            faults[head.name] = f"{code}: {says}"
    return faults


def statuses(run: SampleRun) -> Counter[str]:
    """Images by what became of them."""
    return Counter(status_of(code) for code in run.encoded.column("error_code").to_pylist())
