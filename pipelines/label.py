"""The label job: images in, COCO masks in Parquet out, exactly once.

read -> annotate (decodes ahead; segmenter, detector, expert) -> encode [-> ask] -> write -> seal -> commit -> publish
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ovsops.errors import OutputError, OvsopsError, StorageError
from ovsops.images.decode import DecodeConfig
from ovsops.masks.regions import RegionConfig
from pipelines.counted import counted
from pipelines.coverage import ShardCoverage
from pipelines.ledger import Commit, Ledger, Pending
from pipelines.lock import OutputLock
from pipelines.manifest import claim_output
from pipelines.parts import SealedShard, seal_shard
from pipelines.readers import ReaderConfig
from pipelines.records import RegionClass
from pipelines.runner import Engine, Placement, Step
from pipelines.shards import Shard
from pipelines.stages.annotate import AnnotateStage, AnnotatorFactory, BatchConfig
from pipelines.stages.encode import EncodeStage
from pipelines.stages.write import WriteStage
from pipelines.storage import Storage, StorageOptions, open_storage
from pipelines.summary import SUMMARY, EndpointBill, Limits, RunStats, summarise, write_summary
from pipelines.watch import Observer

if TYPE_CHECKING:
    from ovsops.annotators.regions import InstancesConfig
    from ovsops.regions.agreement import AgreementConfig
    from pipelines.ask_config import Asking

logger = logging.getLogger(__name__)

MAX_SEALING = 4
"""Seal tasks that run beside the stream at most."""


@dataclass(frozen=True, kw_only=True)
class LabelJob:
    """Everything a label run needs, resolved."""

    output: str
    shards: tuple[Shard, ...]
    annotator: AnnotatorFactory
    segmenter_name: str
    """What the `segmenter` column says: method, mode and checkpoint; empty where there is none."""
    classes: tuple[RegionClass, ...]
    manifest: Mapping[str, Any]
    """Content of `run.json`; `manifest["recipe"]` decides whether an output may be continued."""
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    regions: RegionConfig = field(default_factory=RegionConfig)
    detector_name: str = ""
    """What the `detector` column says: who found the boxes, and who judged them."""
    instances: "InstancesConfig | None" = None
    """None where nobody looks for boxes."""
    agreement: "AgreementConfig | None" = None
    """None where there is no second segmenter."""
    ask: "Asking | None" = None
    """What an endpoint is asked about the regions."""
    limits: Limits = field(default_factory=Limits)
    storage: StorageOptions = field(default_factory=StorageOptions)
    segment_on: Placement = field(default_factory=lambda: Placement(actors=1, num_cpus=1.0))
    encode_on: Placement = field(default_factory=lambda: Placement(actors=1, num_cpus=0.5, blocks_at_once=1))
    ask_on: Placement = field(default_factory=lambda: Placement(actors=1, num_cpus=0.25, blocks_at_once=2))

    def steps(self, run: str) -> list[Step]:
        """The job as a list of stages and where they run."""
        annotate = AnnotateStage(
            self.annotator, self.classes, self.decode, self.batch, keep_images=self.ask is not None
        )
        encode = EncodeStage(
            self.classes,
            self.regions,
            self.segmenter_name,
            detector=self.detector_name,
            instances=self.instances,
            agreement=self.agreement,
        )
        write = WriteStage(self.output, self.storage, run)
        first = Step(stages=(annotate,), placement=self.segment_on)
        if self.ask is None:
            return [first, Step(stages=(encode, write), placement=self.encode_on)]
        from pipelines.stages.ask import AskStage  # loads the models that check captions

        ask = AskStage(self.ask, self.decode, decode_timeout_s=self.batch.decode_timeout_s)
        return [
            first,
            Step(stages=(encode,), placement=self.encode_on),
            Step(stages=(ask, write), placement=self.ask_on),
        ]

    def new_stats(self) -> RunStats:
        """The counts of a start, which begins now."""
        bill = None if self.ask is None else EndpointBill(config=self.ask.config.endpoint)
        return RunStats(started=time.time(), actors=max(1, self.segment_on.actors), endpoint=bill)


def run_label(job: LabelJob, engine: Engine, *, run: str, observer: Observer | None = None) -> dict[str, Any]:
    """Label what is not yet labelled; the summary, which is also written to OUT.

    Raises OutputError if the output is locked or was made with another recipe. Whatever ends the run, a
    summary is written once the lock is held.
    """
    storage = open_storage(job.output, job.storage)
    with OutputLock(storage) as lock:
        claim_output(storage, job.manifest)
        driver = _Driver(job, engine, storage, run, lock, observer)
        return driver.run()


def record_failed_start(job_output: str, options: StorageOptions, limits: Limits, error: OvsopsError) -> None:
    """Write `summary.json` for a start that ended before its first image: what stood in the way, and what is done.

    An output that another run holds, or that cannot be written, is left as it is: the error itself says why.
    """
    storage = open_storage(job_output, options)
    try:
        with OutputLock(storage):
            stats = RunStats(started=time.time())
            commits = Ledger(storage).read_all()
            message = f"{type(error).__name__}: {error}"[:4000]
            summary = summarise(
                commits, stats, pending=None, limits=limits, state="not started", error=message
            )
            write_summary(storage, summary)
    except (OutputError, StorageError) as obstacle:
        logger.warning("no %s was written: %s", SUMMARY, obstacle)


class _Driver:
    """One start of the job: streams part summaries, seals, commits and publishes."""

    def __init__(
        self,
        job: LabelJob,
        engine: Engine,
        storage: Storage,
        run: str,
        lock: OutputLock,
        observer: Observer | None,
    ) -> None:
        self.job, self.engine, self.storage, self.name = job, engine, storage, run
        self.lock, self.observer = lock, observer
        self.ledger = Ledger(storage)
        self.stats = job.new_stats()
        self.pending = Pending(shards=(), replaces={})
        self.by_id: dict[str, Shard] = {}
        self.settled: set[str] = set()
        self.coverage: dict[str, ShardCoverage] = {}
        self.sealing: dict[str, Callable[[], SealedShard | None]] = {}

    def run(self) -> dict[str, Any]:
        state, error = "interrupted", ""
        try:
            self._label_pending()
            state = "done"
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            state, error = "error", f"{type(problem).__name__}: {problem}"[:4000]
            raise
        finally:
            self.stats.seconds = time.time() - self.stats.started
            commits = self.ledger.read_all()
            pending = len(self.by_id.keys() - {c.shard for c in commits})
            summary = summarise(
                commits, self.stats, pending=pending, limits=self.job.limits, state=state, error=error
            )
            write_summary(self.storage, summary)
        return summary

    def _label_pending(self) -> None:
        recovery = self.ledger.recover()
        self.stats.rolled_forward, self.stats.swept = len(recovery.published), len(recovery.swept)
        self.pending = self.ledger.pending(self.job.shards, self.job.storage)
        pending = self.pending.shards
        done = len(self.job.shards) - len(pending)
        shards = counted(len(self.job.shards), "shards")
        logger.info("%s, %d done before, %d to label", shards, done, len(pending))
        if self.observer:
            self.observer.started(shards=len(self.job.shards), done=done, queued=self.engine.queued)
        if not pending:
            return
        self.by_id = {shard.id: shard for shard in pending}
        for part in self._parts(pending):
            self._take(part)
            self._collect(wait=len(self.sealing) >= MAX_SEALING)
        while self.sealing:
            self._collect(wait=True)
        missing = [self.by_id[s].name for s in self.by_id if s not in self.settled]
        if missing:
            raise AssertionError(f"the stream ended, but these shards are not covered: {missing[:10]}")

    def _parts(self, pending: Sequence[Shard]) -> Iterator[Mapping[str, Any]]:
        for table in self.engine.tables(pending, self.job.reader, self.job.steps(self.name)):
            yield from table.to_pylist()

    def _take(self, part: Mapping[str, Any]) -> None:
        """Note a part; start sealing its shard if that is now covered."""
        shard = part["shard"]
        self.stats.note_asked(part)
        if shard in self.settled or shard in self.sealing:
            return
        self._note_timing(part)
        coverage = self.coverage.setdefault(shard, ShardCoverage())
        coverage.add(part)
        tiling = coverage.tiling()
        if tiling is None or coverage.closing is None:
            return
        if coverage.closing.failed_code:
            self._shard_failed(shard, f"{coverage.closing.failed_code}: {coverage.closing.failed}")
            return
        self.sealing[shard] = self.engine.submit(
            seal_shard,
            self.storage,
            shard=shard,
            name=self.by_id[shard].name,
            parts=[(p["path"], p["sha256"]) for p in tiling],
            unique=self.name,
        )

    def _note_timing(self, part: Mapping[str, Any]) -> None:
        images = part["end"] - part["first"] - bool(part["closing"])
        self.stats.images += images
        self.stats.model_busy_s += part["segment_seconds"]
        if part["segment_started"] is not None:
            self.stats.model_first = min(
                self.stats.model_first or part["segment_started"], part["segment_started"]
            )
            self.stats.model_last = max(self.stats.model_last or 0.0, part["segment_ended"])
        if self.observer:
            self.observer.part(images=images, spans=json.loads(part["spans"] or "{}"))

    def _shard_failed(self, shard: str, message: str) -> None:
        self.stats.failed_shards[self.by_id[shard].name] = message
        self.settled.add(shard)
        del self.coverage[shard]
        logger.error("shard %s failed: %s", self.by_id[shard].name, message)
        if self.observer:
            self.observer.shard_failed(message.partition(":")[0])

    def _collect(self, *, wait: bool) -> None:
        """Commit and publish what is sealed; `wait` for at least one."""
        while True:
            sealed = {shard: result for shard, poll in self.sealing.items() if (result := poll()) is not None}
            for shard, result in sealed.items():
                del self.sealing[shard]
                self._commit(result)
            if sealed or not wait or not self.sealing:
                return
            time.sleep(0.01)

    def _commit(self, sealed: SealedShard) -> None:
        self.lock.check()
        coverage = self.coverage.pop(sealed.shard)
        self.settled.add(sealed.shard)
        recipe_hash = str(self.job.manifest.get("recipe_hash", ""))
        commit = Commit.of(
            sealed,
            self.by_id[sealed.shard],
            run=self.name,
            recipe_hash=recipe_hash,
            replaces=self.pending.replaces[sealed.shard],
            seconds=coverage.seconds,
            spans=coverage.spans,
        )
        if not self.ledger.commit(commit):
            self.stats.lost_commits += 1
            logger.warning("shard %s: another run committed it first; its labels stand", commit.name)
            return
        self.ledger.publish(commit)
        self.stats.shards += 1
        logger.info(
            "shard %s: %d labelled, %d skipped, %d failed",
            commit.name,
            commit.labelled,
            commit.skipped,
            commit.failed,
        )
        if self.observer:
            self.observer.committed(commit)
