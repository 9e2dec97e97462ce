"""Replies of a batch stage while they wait for their shard: one file a shard, written when its last reply is there.

    OUT/llm_replies/<shard>.parquet

They lie there until the run is done, so that a run that was killed asks about no shard twice. A file remembers which
questions it answers: of another model, another wording or other labels it counts for nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.parts import read_part, table_to_parquet
from pipelines.storage import Storage

REPLIES = "llm_replies"
"""Folder of replies whose run is not done."""
_QUESTIONS = b"ovsops.questions"

REPLY = pa.schema(
    [
        pa.field("place", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("negatives", pa.list_(pa.string()), nullable=False),
        pa.field("types", pa.list_(pa.string()), nullable=False),
        pa.field("refused", pa.list_(pa.string()), nullable=False),
        pa.field("error_code", pa.string()),
        pa.field("error", pa.string(), nullable=False),
        pa.field("input_tokens", pa.int64(), nullable=False),
        pa.field("output_tokens", pa.int64(), nullable=False),
    ]
)
"""One reply; `place` counts the questions of its shard. `refused` are codes of texts, or that of the whole answer."""


def replies_path(shard: str) -> str:
    """Where the replies of a shard lie."""
    return f"{REPLIES}/{shard}.parquet"


def write_replies(storage: Storage, shard: str, rows: pa.Table, *, questions: str) -> None:
    """Store all replies of a shard. The bytes depend on them alone, not on their order."""
    table = rows.cast(REPLY).sort_by("place").replace_schema_metadata({_QUESTIONS: questions})
    storage.put(replies_path(shard), table_to_parquet(table))


def read_replies(storage: Storage, shard: str) -> pa.Table:
    """All replies of a shard, by place. FileNotFoundError where none are stored."""
    return read_part(storage, replies_path(shard))


def stored_questions(storage: Storage, shard: str) -> str | None:
    """Digest of the questions that the stored replies answer; None where none are stored, or no file of ours."""
    try:
        with storage.open(replies_path(shard)) as stream:
            metadata = pq.read_schema(stream).metadata or {}
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    return metadata.get(_QUESTIONS, b"").decode("utf-8", "replace")


def drop_replies(storage: Storage) -> None:
    """Delete all stored replies: the run is done."""
    for info in storage.list(REPLIES):
        storage.delete(info.path)
    storage.prune(REPLIES)


def as_replies(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of `reply_row` as `REPLY`."""
    return pa.Table.from_pylist([{name: row[name] for name in REPLY.names} for row in rows], schema=REPLY)
