"""Jobs over the committed shards of a label run: one unit of work a shard, each done exactly once.

unit -> stage (reads what is committed, writes sealed files) -> commit -> publish

A whole unit is one call, so that its bytes depend on no block and no order. Ledger, lock and manifest are those of the
label job.
"""

import json
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from ovsops.errors import RowError, StorageError
from pipelines.counted import counted
from pipelines.ledger import Ledger, Pending, ShardRecord
from pipelines.lock import OutputLock
from pipelines.manifest import claim_output
from pipelines.parts import SealedTable
from pipelines.runner import Engine, Placement, Step
from pipelines.shards import Shard
from pipelines.stage import Stage
from pipelines.storage import Storage, StorageOptions, open_storage
from pipelines.summary import write_summary
from pipelines.unit_config import UnitLimits, work_placement
from pipelines.watch import Observer

logger = logging.getLogger(__name__)

UNIT_ROW = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
    ]
)
"""What is to be done: id and name of the unit, and JSON that the stage understands."""
RESULT_ROW = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("sealed", pa.string()),
        pa.field("failed", pa.string()),
        pa.field("seconds", pa.float64(), nullable=False),
    ]
)
"""What became of it: JSON of `SealedUnit`, or code and message of why there is none."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A committed shard of the label run, and what the worker must know to work on it."""

    shard: Shard
    task: Mapping[str, Any]
    """Plain data."""

    def to_table(self) -> pa.Table:
        """A row of `UNIT_ROW`."""
        row = {"shard": self.shard.id, "name": self.shard.name, "task": json.dumps(self.task, default=dict)}
        return pa.Table.from_pylist([row], schema=UNIT_ROW)


@dataclass(frozen=True, kw_only=True)
class SealedUnit:
    """A unit whose files are written but not yet committed."""

    tables: Mapping[str, SealedTable]
    """By a name of their own."""
    read: int
    kept: int
    left_out: Mapping[str, int]
    """Rows that were read and not kept, by reason."""
    counts: Mapping[str, Any]
    """What else is counted: plain data."""

    def to_json(self) -> str:
        """For `RESULT_ROW`."""
        tables = {name: vars(table) for name, table in self.tables.items()}
        return json.dumps({**vars(self), "tables": tables})

    @classmethod
    def from_json(cls, text: str) -> "SealedUnit":
        """Inverse of `to_json`."""
        plain = json.loads(text)
        tables = {name: SealedTable(**table) for name, table in plain.pop("tables").items()}
        return cls(tables=tables, **plain)


@dataclass(frozen=True, kw_only=True)
class UnitCommit(ShardRecord):
    """The record that makes a unit done."""

    kept: int
    left_out: Mapping[str, int]
    counts: Mapping[str, Any]

    @property
    def failed(self) -> int:
        """Rows never fail here: what is left out has a reason."""
        return 0

    def check_invariant(self) -> None:
        """Rows read = kept + left out, or an internal error."""
        total = self.kept + sum(self.left_out.values())
        if total != self.read:
            raise AssertionError(f"shard {self.name}: {self.read} rows read, but {total} kept or left out")


class UnitStage(Stage):
    """Does whole units, one after another."""

    name = "unit"

    def __init__(self, output: str, options: StorageOptions, run: str) -> None:
        self.output, self.options, self.run = output, options, run

    def setup(self) -> None:
        """Open the output."""
        self.storage = open_storage(self.output, self.options)

    @abstractmethod
    def work(self, shard: str, name: str, task: Mapping[str, Any]) -> SealedUnit:
        """Write the files of one unit below `_parts/SHARD`. A `RowError` says why it cannot be done."""

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One row of `RESULT_ROW` a unit."""
        for row in batch.to_pylist():
            started = time.perf_counter()
            result: dict[str, Any] = {"shard": row["shard"]}
            try:
                result["sealed"] = self.work(row["shard"], row["name"], json.loads(row["task"])).to_json()
            except RowError as error:
                result["failed"] = f"{error.code}: {error}"
            except (StorageError, OSError) as error:
                result["failed"] = f"E_STORAGE: {error}"
            result["seconds"] = time.perf_counter() - started
            yield pa.Table.from_pylist([result], schema=RESULT_ROW)


@dataclass(frozen=True, kw_only=True)
class UnitJob(ABC):
    """Everything that such a job needs, resolved."""

    output: str
    units: tuple[Unit, ...]
    manifest: Mapping[str, Any]
    """Content of `run.json`; `manifest["recipe"]` decides whether an output may be continued."""
    limits: UnitLimits = field(default_factory=UnitLimits)
    storage: StorageOptions = field(default_factory=StorageOptions)
    work_on: Placement = field(default_factory=work_placement)

    @property
    @abstractmethod
    def kinds(self) -> tuple[str, ...]:
        """Folders that get one table a unit."""

    @abstractmethod
    def begin(self, storage: Storage, engine: Engine) -> None:
        """Make, or find, what all units share. The output's lock is held. Safe to repeat."""

    def ahead(self, storage: Storage, engine: Engine, units: Sequence[Unit], run: str) -> None:  # noqa: B027
        """What is done for all units that are to be done before the first one is. After `begin`; safe to repeat."""

    @abstractmethod
    def stage(self, storage: Storage, run: str) -> UnitStage:
        """The stage, when `begin` has made what it needs."""

    @abstractmethod
    def totals(self, commits: Sequence[UnitCommit]) -> dict[str, Any]:
        """What the summary says of all units."""

    @abstractmethod
    def end(
        self, storage: Storage, engine: Engine, commits: Sequence[UnitCommit]
    ) -> tuple[dict[str, Any], list[str]]:
        """Write what belongs to the output as a whole, when every unit is committed. Safe to repeat.

        More of the summary, and a sentence for everything that is wrong (exit 3).
        """


@dataclass(kw_only=True)
class _Stats:
    """What this start did."""

    started: float
    shards: int = 0
    rows: int = 0
    lost_commits: int = 0
    rolled_forward: int = 0
    swept: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        seconds = time.time() - self.started
        return {
            "started_unix": self.started,
            "seconds": round(seconds, 3),
            "shards": self.shards,
            "rows": self.rows,
            "rows_per_second": round(self.rows / seconds, 3) if seconds else None,
            "commits_lost_to_another_run": self.lost_commits,
            "shards_rolled_forward": self.rolled_forward,
            "shards_swept": self.swept,
        }


def run_units(
    job: UnitJob,
    engine: Engine,
    *,
    run: str,
    observer: Observer | None = None,
    only: frozenset[str] | None = None,
) -> dict[str, Any]:
    """Do what is not yet done, or of that the shards of these names; the summary, which is also written to OUT.

    Raises OutputError if the output is locked or was made with another recipe. Whatever ends the run, a
    summary is written once the lock is held.
    """
    storage = open_storage(job.output, job.storage)
    with OutputLock(storage) as lock:
        claim_output(storage, job.manifest)
        return _UnitDriver(job, engine, storage, run, lock, observer, only).run()


class _UnitDriver:
    """One start of the job: streams results, commits and publishes."""

    def __init__(
        self,
        job: UnitJob,
        engine: Engine,
        storage: Storage,
        run: str,
        lock: OutputLock,
        observer: Observer | None,
        only: frozenset[str] | None,
    ) -> None:
        self.only, self.stage = only, ""
        self.job, self.engine, self.storage, self.name = job, engine, storage, run
        self.lock, self.observer = lock, observer
        self.ledger = unit_ledger(storage, job.kinds)
        self.stats = _Stats(started=time.time())
        self.pending = Pending(shards=(), replaces={})
        self.by_id = {unit.shard.id: unit for unit in job.units}

    def run(self) -> dict[str, Any]:
        state, error = "interrupted", ""
        more: dict[str, Any] = {}
        over: list[str] = []
        try:
            more, over = self._work()
            state = "done"
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            state, error = "error", f"{type(problem).__name__}: {problem}"[:4000]
            raise
        finally:
            summary = self._summary(state, error, over) | more
            write_summary(self.storage, summary)
        return summary

    def _work(self) -> tuple[dict[str, Any], list[str]]:
        recovery = self.ledger.recover()
        self.stats.rolled_forward, self.stats.swept = len(recovery.published), len(recovery.swept)
        shards = [unit.shard for unit in self.job.units if self.only is None or unit.shard.name in self.only]
        self.pending = self.ledger.pending(shards, self.job.storage)
        left = len(self.pending.shards)
        done = len(shards) - left
        logger.info("%s, %d done before, %d to do", counted(len(shards), "shards"), done, left)
        if self.observer:
            self.observer.started(shards=len(shards), done=done, queued=self.engine.queued)
        self.job.begin(self.storage, self.engine)
        self.lock.check()
        units = [self.by_id[shard.id] for shard in self.pending.shards]
        self.job.ahead(self.storage, self.engine, units, self.name)
        self.lock.check()
        settled: set[str] = set()
        for result in self._results():
            if result["shard"] not in settled:
                settled.add(result["shard"])
                self._settle(result)
        missing = [shard.name for shard in self.pending.shards if shard.id not in settled]
        if missing:
            raise AssertionError(f"the stream ended, but these shards are not done: {missing[:10]}")
        commits = self._commits()
        if len(commits) < len(self.job.units):
            return {}, []
        self.lock.check()
        return self.job.end(self.storage, self.engine, commits)

    def _results(self) -> Iterator[Mapping[str, Any]]:
        if not self.pending.shards:
            return
        stage = self.job.stage(self.storage, self.name)
        self.stage = stage.name
        step = Step(stages=(stage,), placement=self.job.work_on)
        tasks = [self.by_id[shard.id].to_table() for shard in self.pending.shards]
        for table in self.engine.units(tasks, step):
            yield from table.to_pylist()

    def _settle(self, result: Mapping[str, Any]) -> None:
        shard = self.by_id[result["shard"]].shard
        if result["failed"] is not None:
            self.stats.failed[shard.name] = result["failed"]
            logger.error("shard %s failed: %s", shard.name, result["failed"])
            if self.observer:
                self.observer.shard_failed(result["failed"].partition(":")[0])
            return
        self.lock.check()
        sealed = SealedUnit.from_json(result["sealed"])
        commit = UnitCommit(
            shard=shard.id,
            name=shard.name,
            url=shard.url,
            size=shard.size,
            tag=shard.tag,
            run=self.name,
            recipe_hash=str(self.job.manifest.get("recipe_hash", "")),
            retry=0,
            read=sealed.read,
            kept=sealed.kept,
            left_out=dict(sorted(sealed.left_out.items())),
            counts=sealed.counts,
            sha256="",
            tables={name: asdict(table) for name, table in sealed.tables.items()},
            replaces=list(self.pending.replaces[shard.id]),
            seconds={"work": round(result["seconds"], 3)},
        )
        if not self.ledger.commit(commit):
            self.stats.lost_commits += 1
            logger.warning("shard %s: another run committed it first; what it made stands", commit.name)
            return
        self.ledger.publish(commit)
        self.stats.shards += 1
        self.stats.rows += commit.read
        logger.info(
            "shard %s: %d rows read, %d kept, %d left out",
            commit.name,
            commit.read,
            commit.kept,
            commit.read - commit.kept,
        )
        if self.observer:
            now, work = time.time(), result["seconds"]
            self.observer.part(images=commit.read, spans={self.stage: [now - work, now, work, commit.read]})
            self.observer.committed(commit)

    def _commits(self) -> list[UnitCommit]:
        """Of this job's units, sorted by name."""
        return [commit for commit in self.ledger.read_all() if commit.shard in self.by_id]

    def _summary(self, state: str, error: str, over: Sequence[str]) -> dict[str, Any]:
        commits = self._commits()
        over = list(over)
        if len(self.stats.failed) > self.job.limits.max_failed_shards:
            over.append(
                f"{counted(len(self.stats.failed), 'shards')} failed (limits.max_failed_shards is"
                f" {self.job.limits.max_failed_shards})"
            )
        return {
            "state": state,
            "error": error,
            "over_limits": over,
            "shards": {
                "committed": len(commits),
                "pending": len(self.by_id) - len(commits),
                "failed": self.stats.failed,
            },
            **self.job.totals(commits),
            "this_run": self.stats.to_plain(),
        }


def unit_ledger(storage: Storage, kinds: Sequence[str]) -> Ledger[UnitCommit]:
    """The ledger of a job over units."""
    return Ledger(storage, UnitCommit, kinds)


def row_totals(commits: Sequence[UnitCommit], kept: str) -> dict[str, Any]:
    """Rows read, kept (under the name `kept`) and left out by reason, over all units."""
    left_out: Counter[str] = Counter()
    for commit in commits:
        left_out.update(commit.left_out)
    read, num_kept = sum(c.read for c in commits), sum(c.kept for c in commits)
    return {
        "read": read,
        kept: num_kept,
        "left_out": sum(left_out.values()),
        "by_reason": dict(sorted(left_out.items(), key=lambda item: (-item[1], item[0]))),
        "invariant_holds": read == num_kept + sum(left_out.values()),
    }
