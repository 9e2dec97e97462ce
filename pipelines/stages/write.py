"""Encoded rows in, immutable part files out; one summary row a part goes on."""

import hashlib
import secrets
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.endpoint_config import EndpointCounts
from pipelines.parts import part_path, table_to_parquet
from pipelines.rows import ENCODED_ROW, PART_ROW
from pipelines.spans import STAGES, span_of, spans_to_json, stopped
from pipelines.stage import Stage
from pipelines.storage import StorageOptions, open_storage


class WriteStage(Stage):
    """Runs of consecutive rows of one shard become one part file each.

    A part's name is never used twice: a retried task writes another part, a late zombie overwrites nothing.
    """

    name = "write"

    def __init__(self, output: str, options: StorageOptions, run: str) -> None:
        self.output, self.options, self.run = output, options, run

    def setup(self) -> None:
        """Open the output."""
        self.storage = open_storage(self.output, self.options)

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One row of `PART_ROW` per part."""
        summaries = [self.write_part(rows) for rows in consecutive_runs(batch)]
        yield pa.Table.from_pylist(summaries, schema=PART_ROW)

    def write_part(self, rows: pa.Table) -> dict[str, object]:
        """Put one part and say what it holds."""
        shard = rows.column("shard")[0].as_py()
        first, end = rows.column("index")[0].as_py(), rows.column("index")[-1].as_py() + 1
        path = part_path(shard, first, end, f"{self.run}-{secrets.token_hex(4)}")
        asked = None
        if "asked" in rows.column_names:
            asked = EndpointCounts.sum_of(rows.column("asked").drop_null().to_pylist()).to_json()
        spans = {stage: span for stage in STAGES if (span := span_of(rows, stage))}
        rows = rows.select([name for name in rows.column_names if name in ENCODED_ROW.names])
        with stopped(spans, self.name, rows.column("closing").null_count):
            data = table_to_parquet(rows)
            self.storage.put(path, data)
        return {
            "shard": shard,
            "first": first,
            "end": end,
            "path": path,
            "num_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "closing": next((c for c in rows.column("closing").to_pylist() if c), None),
            "decode_seconds": pc.sum(rows.column("decode_seconds")).as_py() or 0.0,
            "segment_seconds": pc.sum(rows.column("segment_seconds")).as_py() or 0.0,
            "segment_started": pc.min(rows.column("segment_started")).as_py(),
            "segment_ended": pc.max(rows.column("segment_ended")).as_py(),
            "asked": asked,
            "spans": spans_to_json(spans),
        }


def consecutive_runs(batch: pa.Table) -> Iterator[pa.Table]:
    """Cut a block into maximal runs of one shard and rising indexes without a gap."""
    shards, indexes = batch.column("shard").to_pylist(), batch.column("index").to_pylist()
    first = 0
    for i in range(1, batch.num_rows + 1):
        at_end = i == batch.num_rows
        if at_end or shards[i] != shards[i - 1] or indexes[i] != indexes[i - 1] + 1:
            yield batch.slice(first, i - first)
            first = i
