"""What every reader of a labelled output takes from it: the vocabulary, and the rows of committed tables.

Formats of other tools are in `exporters/`.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from ovsops.errors import OutputError
from ovsops.text.vocabulary import Vocabulary
from pipelines.ledger import Commit
from pipelines.manifest import read_manifest
from pipelines.storage import Storage

BATCH_ROWS = 2048
"""Rows in memory at a time."""


def vocabulary_of(storage: Storage) -> Vocabulary:
    """The vocabulary that an output was labelled with, from its `run.json`."""
    manifest = read_manifest(storage)
    if "vocabulary" not in manifest:
        raise OutputError(f"{storage.url}/run.json has no vocabulary: it was not written by a label job")
    return Vocabulary.from_mapping(manifest["vocabulary"])


def committed_rows(
    storage: Storage, commit: Commit, kind: str, columns: list[str]
) -> Iterator[dict[str, Any]]:
    """Rows of a committed table, a batch in memory at a time."""
    record = commit.tables[kind]
    path = record["published"]
    try:
        stream = storage.open(path)
    except FileNotFoundError:
        raise OutputError(
            f"{storage.url}/{path}: shard {commit.name} is committed, but this table is not there: a run was killed "
            "before it published it, or somebody removed it; start the run again, it publishes or says what is gone"
        ) from None
    with stream, pq.ParquetFile(stream) as table:
        if table.metadata.num_rows != record["num_rows"]:
            raise OutputError(
                f"{storage.url}/{path}: {table.metadata.num_rows} rows, but {record['num_rows']} were committed;"
                " the file was changed after the run: label the shard again"
            )
        for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            yield from batch.to_pylist()
