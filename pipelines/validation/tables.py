"""Parquet files of a set, read row group by row group; columns of foreign types are findings, not errors."""

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.training_sets.contract import Fault

MAX_GROUP_BYTES = 2**30
"""Unpacked bytes that the footer claims of one row group."""
BATCH_ROWS = 64


def table_rows(stream: BinaryIO, columns: tuple[str, ...]) -> Iterator[dict[str, Any] | Fault]:
    """Rows with those of `columns` that the file has, or a fault for what cannot be read."""
    try:
        with pq.ParquetFile(stream) as table:
            names = [name for name in columns if name in table.schema_arrow.names]
            for number in range(table.num_row_groups):
                claimed = table.metadata.row_group(number).total_byte_size
                if claimed > MAX_GROUP_BYTES:
                    yield Fault("too_large", "", f"row group {number} claims {claimed:,} bytes")
                    continue
                for batch in table.iter_batches(BATCH_ROWS, row_groups=[number], columns=names):
                    yield from _rows(batch)
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError, io.UnsupportedOperation) as error:
        yield Fault("file", "", f"no Parquet that can be read: {str(error)[:200]}")


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | Fault]:
    try:
        batch.validate(full=True)
        yield from batch.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        yield Fault("file", "", f"a batch that is no Arrow table: {str(error)[:200]}")
