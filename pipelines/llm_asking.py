"""Questions of many shards through one batch stage, before the first shard is worked on.

questions of each shard -> files -> one stream through the stage -> replies in any order -> a file a whole shard

The driver holds the replies of shards that are not whole yet. Where these are too many, those of the fullest shard
wait in a file.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.counted import counted
from pipelines.llm_batch import BatchAsker, BatchError
from pipelines.llm_questions import QuestionStage
from pipelines.llm_replies import as_replies, replies_path, stored_questions, write_replies
from pipelines.parts import parts_folder, read_part, table_to_parquet
from pipelines.runner import Engine, Placement, Step
from pipelines.stage import Stage
from pipelines.storage import Storage, StorageOptions, open_storage
from pipelines.units import SealedUnit, Unit

logger = logging.getLogger(__name__)

MAX_HELD = 50_000
"""Replies that the driver holds at most, of some 3.5 KB each: 180 MB."""
QUESTIONS_AT_ONCE = 512
"""Questions of one block of the stream."""

_READER = Placement(actors=1, blocks_at_once=1)
"""One, so that shards are asked about one after another, and few of them are half answered."""
_READ = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)


class ReadQuestions(Stage):
    """Files of questions to rows of `QUESTION`."""

    name = "read_questions"

    def __init__(self, output: str, options: StorageOptions) -> None:
        self.output, self.options = output, options

    def setup(self) -> None:
        """Open the output."""
        self.storage = open_storage(self.output, self.options)

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Some hundred questions at a time, in order."""
        for row in batch.to_pylist():
            table = read_part(self.storage, row["path"], row["sha256"])
            for start in range(0, table.num_rows, QUESTIONS_AT_ONCE):
                yield table.slice(start, QUESTIONS_AT_ONCE)


@dataclass(kw_only=True)
class _Waiting:
    """A shard whose replies are not all there."""

    unit: Unit
    path: str
    """Of its questions."""
    sha256: str
    questions: str
    """Digest of them all."""
    seen: np.ndarray
    """Of each question, whether its reply has come."""
    left: int
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    """Files of replies that the driver does not hold."""
    unanswered: int = 0

    @property
    def task(self) -> pa.Table:
        """What `ReadQuestions` reads."""
        return pa.Table.from_pylist([{"path": self.path, "sha256": self.sha256}], schema=_READ)

    def add(self, row: Mapping[str, Any]) -> bool:
        """Take a reply; False for one that is there."""
        if self.seen[row["place"]]:
            return False
        self.seen[row["place"]] = True
        self.left -= 1
        self.unanswered += row["error_code"] is not None
        self.rows.append(row)
        return True

    def store(self, storage: Storage) -> None:
        """All replies in one file, and nothing else of them."""
        tables = [*(read_part(storage, path) for path in self.parts), as_replies(self.rows)]
        write_replies(storage, self.unit.shard.id, pa.concat_tables(tables), questions=self.questions)
        for path in (self.path, *self.parts):
            storage.delete(path)
        asked = counted(len(self.seen), "questions")
        logger.info("shard %s: %s, %d without an answer", self.unit.shard.name, asked, self.unanswered)

    def set_aside(self, storage: Storage, run: str) -> int:
        """Put what is held into a file; how many replies that were."""
        path = f"{parts_folder(self.unit.shard.id)}/replies-{len(self.parts)}.{run}.parquet"
        storage.put(path, table_to_parquet(as_replies(self.rows)))
        self.parts.append(path)
        number, self.rows = len(self.rows), []
        return number


def ask_ahead(
    storage: Storage,
    engine: Engine,
    units: Sequence[Unit],
    questions: QuestionStage,
    asker: BatchAsker,
    *,
    placement: Placement,
    stop_after: int,
) -> None:
    """Ask about all units whose replies are not stored, and store them.

    A unit whose questions cannot be made is left out: it fails by itself later. BatchError where `stop_after` questions
    in a row got no answer: what is stored of whole shards stays.
    """
    waiting = _unanswered(storage, engine, units, questions, placement)
    if not waiting:
        return
    number = sum(each.left for each in waiting.values())
    logger.info("asking %s about %s", counted(number, "questions"), counted(len(waiting), "shards"))
    tasks = [each.task for each in waiting.values()]
    read = Step(stages=(ReadQuestions(questions.output, questions.options),), placement=_READER)
    stream = _Stream(storage, waiting, stop_after=stop_after, run=questions.run)
    stream.take(asker.answers(engine, tasks, read))


def _unanswered(
    storage: Storage, engine: Engine, units: Sequence[Unit], questions: QuestionStage, placement: Placement
) -> dict[str, _Waiting]:
    """Shards with questions that no stored reply answers, in the order of the units."""
    by_id = {unit.shard.id: unit for unit in units}
    found: dict[str, _Waiting] = {}
    tasks = [unit.to_table() for unit in units]
    for table in engine.units(tasks, Step(stages=(questions,), placement=placement)):
        for row in table.to_pylist():
            unit = by_id[row["shard"]]
            if row["failed"] is not None:
                logger.warning("shard %s is not asked about: %s", unit.shard.name, row["failed"])
                continue
            sealed = SealedUnit.from_json(row["sealed"])
            file = sealed.tables["questions"]
            each = _Waiting(
                unit=unit,
                path=file.sealed,
                sha256=file.sha256,
                questions=sealed.counts["questions"],
                seen=np.zeros(sealed.kept, bool),
                left=sealed.kept,
            )
            if stored_questions(storage, unit.shard.id) == each.questions:
                logger.info("shard %s: its replies are stored", unit.shard.name)
                storage.delete(each.path)
            elif sealed.kept:
                found[unit.shard.id] = each
            else:
                each.store(storage)
    return {unit.shard.id: found[unit.shard.id] for unit in units if unit.shard.id in found}


class _Stream:
    """Replies as they come."""

    def __init__(self, storage: Storage, waiting: dict[str, _Waiting], *, stop_after: int, run: str) -> None:
        self.storage, self.waiting, self.run = storage, waiting, run
        self.stop_after = stop_after
        self.held = self.failures_in_a_row = 0
        self.doubtful: list[str] = []
        """Shards that became whole since the last answer came: where no other comes, they are asked about again."""

    def take(self, tables: Iterator[pa.Table]) -> None:
        """All of them."""
        for table in tables:
            for row in table.to_pylist():
                self._take(row)
        if self.waiting:
            names = [each.unit.shard.name for each in self.waiting.values()]
            raise AssertionError(
                f"the stage ended, but not every question of these was answered: {names[:10]}"
            )

    def _take(self, row: Mapping[str, Any]) -> None:
        shard = self.waiting.get(row["shard"])
        if shard is None or not shard.add(row):  # made twice, as a worker died
            return
        self.held += 1
        if row["error_code"] is None:
            self.failures_in_a_row = 0
            self.doubtful.clear()
        else:
            self.failures_in_a_row += 1
        if not shard.left:
            self.held -= len(shard.rows)
            shard.store(self.storage)
            del self.waiting[row["shard"]]
            if self.failures_in_a_row:
                self.doubtful.append(row["shard"])
        elif self.held > MAX_HELD:
            fullest = max(self.waiting.values(), key=lambda each: len(each.rows))
            self.held -= fullest.set_aside(self.storage, self.run)
        if self.failures_in_a_row >= self.stop_after:
            self._stop(row)

    def _stop(self, row: Mapping[str, Any]) -> None:
        for shard in self.doubtful:
            self.storage.delete(replies_path(shard))
        raise BatchError(
            row["error_code"],
            f"{self.failures_in_a_row} questions in a row got no answer (llm.stop_after), the last one: {row['error']}."
            " The replies about whole shards before them are stored; when the cause is mended, run the recipe again",
        )
