"""Parquet written in row groups whose size depends on the rows alone, one of them in memory."""

from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 1024
"""Rows of a row group at most: what is held in memory."""
GROUP_IMAGE_BYTES = 64 * 2**20
"""Bytes of images after which a row group ends."""


class RowGroups:
    """One Parquet file, zstd, without a pandas index. The stream stays open."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._schema, self._rows, self._image_bytes = schema, list[dict[str, Any]](), 0
        self._sink = pa.PythonFile(stream, mode="w")
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd", compression_level=6)

    def add_row(self, row: dict[str, Any], *, image_bytes: int = 0) -> None:
        """Append a row that holds so many bytes of an image."""
        self._rows.append(row)
        self._image_bytes += image_bytes
        if len(self._rows) >= GROUP_ROWS or self._image_bytes >= GROUP_IMAGE_BYTES:
            self._write_group()

    def close(self) -> None:
        """Write the last group and the footer."""
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._image_bytes = [], 0
