"""Failed rows of committed shards, once more: a new generation of the shard's tables, committed like the first.

    read the shard -> keep the failed rows -> segment -> encode -> write -> reseal with the untouched rows -> commit n+1

Rows that did not fail come from the published tables and stay what they are, byte for byte.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.counted import counted
from pipelines.label import LabelJob
from pipelines.ledger import Commit, Ledger
from pipelines.lock import OutputLock
from pipelines.manifest import claim_output
from pipelines.parts import SealedShard, read_part, seal_records
from pipelines.rows import SKIP_PREFIX, Closing
from pipelines.runner import Engine, Step
from pipelines.schemas import REGION
from pipelines.shards import Shard
from pipelines.spans import Span, add_spans
from pipelines.stage import Stage
from pipelines.storage import Storage, open_storage
from pipelines.summary import summarise, write_summary
from pipelines.watch import Observer

logger = logging.getLogger(__name__)

E_CHANGED = "E_SHARD_CHANGED"


class SelectStage(Stage):
    """Lets the rows through that are to be tried again, and the closing rows. The one stage that leaves rows out."""

    name = "select"

    def __init__(self, wanted: Mapping[str, frozenset[int]]) -> None:
        self.wanted = wanted

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        """A table of the wanted rows; nothing if there are none."""
        rows = zip(
            batch.column("shard").to_pylist(),
            batch.column("index").to_pylist(),
            batch.column("closing").to_pylist(),
            strict=True,
        )
        kept = [bool(closing) or index in self.wanted[shard] for shard, index, closing in rows]
        if any(kept):
            yield batch.filter(pa.array(kept))


def codes_to_retry(commit: Commit, codes: frozenset[str] | None) -> tuple[list[str], list[str]]:
    """Codes of a shard's failed rows, and of notes in its labelled ones, that a retry of `codes` takes; None are all
    that failed."""
    failed = [c for c in commit.codes if not c.startswith(SKIP_PREFIX) and (codes is None or c in codes)]
    noted = [note for note in commit.notes if codes is not None and note in codes]
    return failed, noted


@dataclass(kw_only=True)
class _Attempt:
    """One shard whose failed rows are tried again."""

    shard: Shard
    before: Commit
    wanted: frozenset[int]
    parts: list[tuple[str, str]] = field(default_factory=list)
    arrived: set[int] = field(default_factory=set)
    closing: Closing | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    spans: dict[str, list[Span]] = field(default_factory=dict)

    def add(self, part: Mapping[str, Any]) -> None:
        """Take note of a row of `PART_ROW`."""
        self.parts.append((part["path"], part["sha256"]))
        end = part["end"]
        if part["closing"]:
            self.closing = Closing.from_json(part["closing"])
            end -= 1
        self.arrived.update(range(part["first"], end))
        for name in ("decode_seconds", "segment_seconds"):
            self.seconds[name] = self.seconds.get(name, 0.0) + part[name]
        add_spans(self.spans, part.get("spans"))

    def why_not(self, closing: Closing) -> str:
        """Why what was read cannot be used, or nothing."""
        if closing.failed_code:
            return f"{closing.failed_code}: {closing.failed}"
        if (closing.num_rows, closing.sha256) != (self.before.read, self.before.sha256):
            return f"{E_CHANGED}: its bytes are no longer those that were labelled; `run` labels it anew"
        return ""


def run_retry(
    job: LabelJob,
    engine: Engine,
    *,
    run: str,
    codes: frozenset[str] | None = None,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Try failed rows again, all or those with one of `codes`; the summary, which is also written to OUT.

    A code that stands in the notes of labelled rows (`E_ENDPOINT_TIMEOUT`) takes these, too, but only where it is
    named: such a row is labelled anew and all its questions are asked again, which may cost money. Skipped rows
    (`S_...`) are left out: a recipe decides about them. A killed retry leaves each shard as it was or as it shall be.
    Raises OutputError as `run_label` does.
    """
    storage = open_storage(job.output, job.storage)
    with OutputLock(storage) as lock:
        claim_output(storage, job.manifest)
        return _Retry(job, engine, storage, run, lock, observer).run(codes)


class _Retry:
    """One start of a retry."""

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
        self.retried = 0
        self.settled: set[str] = set()

    def run(self, codes: frozenset[str] | None) -> dict[str, Any]:
        state, error = "interrupted", ""
        try:
            self._retry(codes)
            state = "done"
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            state, error = "error", f"{type(problem).__name__}: {problem}"[:4000]
            raise
        finally:
            self.stats.seconds = time.time() - self.stats.started
            commits = self.ledger.read_all()
            pending = len(self.ledger.pending(self.job.shards, self.job.storage).shards)
            summary = summarise(
                commits, self.stats, pending=pending, limits=self.job.limits, state=state, error=error
            )
            summary["this_run"]["retried_images"] = self.retried
            write_summary(self.storage, summary)
        return summary

    def _retry(self, codes: frozenset[str] | None) -> None:
        recovery = self.ledger.recover()
        self.stats.rolled_forward, self.stats.swept = len(recovery.published), len(recovery.swept)
        attempts = {attempt.shard.id: attempt for attempt in self._attempts(codes)}
        self.retried = sum(len(a.wanted) for a in attempts.values())
        failed, shards = counted(self.retried, "failed images"), counted(len(attempts), "shards")
        logger.info("%s in %s to try again", failed, shards)
        if self.observer:
            self.observer.started(shards=len(attempts), done=0, queued=self.engine.queued)
        if not attempts:
            return
        for part in self._parts(attempts):
            self._take(attempts[part["shard"]], part)
        open_ = [a.before.name for a in attempts.values() if a.shard.id not in self.settled]
        if open_:
            raise AssertionError(f"the stream ended, but these shards are not covered: {open_[:10]}")

    def _attempts(self, codes: frozenset[str] | None) -> Iterator[_Attempt]:
        """Shards with matching failed rows, whose input can still be found."""
        by_id = {shard.id: shard for shard in self.job.shards}
        by_slug = {shard.slug: shard for shard in self.job.shards}  # touched since, perhaps with equal bytes
        for commit in self.ledger.read_all():
            failed, noted = codes_to_retry(commit, codes)
            if not failed and not noted:
                continue
            shard = by_id.get(commit.shard) or by_slug.get(commit.shard.rpartition("-")[0])
            if shard is None:
                self._failed(commit, "E_SHARD_MISSING: it is no longer among the recipe's inputs")
                continue
            yield _Attempt(shard=shard, before=commit, wanted=self._rows_with(commit, failed, noted))

    def _rows_with(self, commit: Commit, failed: Sequence[str], noted: Sequence[str]) -> frozenset[int]:
        """Rows that failed with one of the codes, or whose notes count one (`E_ENDPOINT_TIMEOUT:3`)."""
        images = _published(self.storage, commit, "images")
        rows = zip(
            *(images.column(name).to_pylist() for name in ("index", "error_code", "notes")), strict=True
        )
        return frozenset(
            index
            for index, code, notes in rows
            if code in failed or any(note.partition(":")[0] in noted for note in notes or ())
        )

    def _parts(self, attempts: Mapping[str, _Attempt]) -> Iterator[Mapping[str, Any]]:
        select = SelectStage({shard: attempt.wanted for shard, attempt in attempts.items()})
        first, *others = self.job.steps(self.name)
        steps = [Step(stages=(select, *first.stages), placement=first.placement), *others]
        shards = [attempt.shard for attempt in attempts.values()]
        for table in self.engine.tables(shards, self.job.reader, steps):
            yield from table.to_pylist()

    def _take(self, attempt: _Attempt, part: Mapping[str, Any]) -> None:
        """Note a part; reseal and commit the shard if its rows are all there."""
        self.stats.note_asked(part)
        if attempt.shard.id in self.settled:
            return
        attempt.add(part)
        images = part["end"] - part["first"] - bool(part["closing"])
        self.stats.images += images
        self.stats.model_busy_s += part["segment_seconds"]
        if self.observer:
            self.observer.part(images=images, spans=json.loads(part["spans"] or "{}"))
        if attempt.closing is None:
            return
        if problem := attempt.why_not(attempt.closing):
            self.settled.add(attempt.shard.id)
            self._failed(attempt.before, problem)
            return
        if not attempt.wanted <= attempt.arrived:
            return
        self.settled.add(attempt.shard.id)
        poll = self.engine.submit(
            reseal_shard,
            self.storage,
            before=attempt.before,
            parts=attempt.parts,
            wanted=attempt.wanted,
            closing=attempt.closing,
            unique=self.name,
        )
        self._commit(attempt, _wait(poll))

    def _commit(self, attempt: _Attempt, sealed: SealedShard) -> None:
        self.lock.check()
        before = attempt.before
        same = all(
            vars(getattr(sealed, kind))["sha256"] == before.tables[kind]["sha256"] for kind in before.tables
        )
        if same:
            logger.info("shard %s: the same rows failed again", before.name)
            self.ledger.publish(before)  # nothing to move: drops the parts
            return
        commit = Commit.of(
            sealed,
            attempt.shard,
            run=self.name,
            recipe_hash=before.recipe_hash,
            retry=before.retry + 1,
            replaces=before.replaces,
            seconds=attempt.seconds,
            spans=attempt.spans,
        )
        if not self.ledger.commit(commit):
            self.stats.lost_commits += 1
            logger.warning("shard %s: another run committed it first; its labels stand", commit.name)
            return
        self.ledger.publish(commit)
        self.stats.shards += 1
        logger.info("shard %s: %d failed before, %d now", commit.name, before.failed, commit.failed)
        if self.observer:
            self.observer.committed(commit)

    def _failed(self, commit: Commit, message: str) -> None:
        self.stats.failed_shards[commit.name] = message
        logger.error("shard %s: %s", commit.name, message)
        if self.observer:
            self.observer.shard_failed(message.partition(":")[0])


def _wait(poll: Callable[[], SealedShard | None]) -> SealedShard:
    while (sealed := poll()) is None:
        time.sleep(0.01)
    return sealed


def reseal_shard(
    storage: Storage,
    *,
    before: Commit,
    parts: Sequence[tuple[str, str]],
    wanted: frozenset[int],
    closing: Closing,
    unique: str,
) -> SealedShard:
    """Write the shard's two tables with the `wanted` rows from the parts and all others as they were published."""
    fresh: dict[int, dict[str, Any]] = {}
    for path, sha256 in parts:
        for row in read_part(storage, path, sha256).drop_columns(["closing"]).to_pylist():
            if row["index"] in wanted:
                fresh.setdefault(row["index"], row)
    old = published_records(
        _published(storage, before, "images"), _published(storage, before, "instances"), shard=before.shard
    )
    records = [fresh.get(record["index"], record) for record in old]
    if sorted(r["index"] for r in records) != list(range(closing.num_rows)) or not wanted <= fresh.keys():
        raise AssertionError(
            f"shard {before.name}: retried rows and published rows do not add up to {closing.num_rows}"
        )
    return seal_records(
        storage, shard=before.shard, name=before.name, records=records, closing=closing, unique=unique
    )


def published_records(images: pa.Table, instances: pa.Table, *, shard: str) -> list[dict[str, Any]]:
    """Encoded rows that seal to exactly these two tables."""
    regions: dict[str, list[dict[str, Any]]] = {}
    names = [REGION.field(i).name for i in range(REGION.num_fields)]
    for row in instances.to_pylist():
        regions.setdefault(row["image_uid"], []).append({name: row[name] for name in names})
    return [
        image | {"shard": shard, "regions": regions.get(image["image_uid"])} for image in images.to_pylist()
    ]


def _published(storage: Storage, commit: Commit, kind: str) -> pa.Table:
    table = commit.tables[kind]
    return read_part(storage, table["published"], table["sha256"])
