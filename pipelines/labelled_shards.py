"""A labelled run as input of the jobs that come after: its committed shards, each a unit of work."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ovsops.errors import OutputError, RowError
from ovsops.text.vocabulary import Vocabulary
from pipelines.ledger import Commit, Ledger
from pipelines.manifest import MANIFEST, read_manifest
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import Shard
from pipelines.storage import Storage, StorageOptions, open_storage

E_LABELS_CHANGED = "E_LABELS_CHANGED"
"""Code of a shard whose tables are not those of its record."""


@dataclass(frozen=True, kw_only=True)
class LabelRun:
    """What is committed in the output of a label job."""

    url: str
    storage: StorageOptions
    manifest: Mapping[str, Any]
    commits: tuple[Commit, ...]
    """Sorted by the shards' names."""

    @property
    def recipe_hash(self) -> str:
        """Of what decided the labels."""
        return str(self.manifest.get("recipe_hash", ""))

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes of the run."""
        return Vocabulary.from_mapping(self.manifest["vocabulary"])

    @property
    def shards(self) -> list[Shard]:
        """A unit of work for each committed shard, in order."""
        return [unit_of(commit) for commit in self.commits]


def open_label_run(url: str, options: StorageOptions) -> LabelRun:
    """The committed shards of an output. Raises OutputError where it is no output of the label job, an old one, or has
    no shard yet.
    """
    storage = open_storage(url, options)
    manifest = read_manifest(storage)
    if "vocabulary" not in manifest:
        job = manifest.get("settings", {}).get("job", "another job")
        raise OutputError(f"{storage.url} is no output of the label job, but of {job}; check `labels`")
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise OutputError(
            f"{storage.url}/{MANIFEST} has schema {manifest['schema_version']}, this version reads {SCHEMA_VERSION}:"
            " label the shards again"
        )
    commits = tuple(Ledger(storage).read_all())
    if not commits:
        raise OutputError(f"{storage.url} holds no committed shard yet: run its recipe first")
    return LabelRun(url=url, storage=options, manifest=manifest, commits=commits)


def unit_of(commit: Commit) -> Shard:
    """The committed tables of a shard: another unit where a retry, or another content of the shard, made others."""
    tables = [commit.tables[kind] for kind in sorted(commit.tables)]
    return Shard(
        name=commit.name,
        slug=commit.shard.rpartition("-")[0],
        url=commit.url,
        size=sum(table["num_bytes"] for table in tables),
        tag="-".join(table["sha256"] for table in tables),
        kind="labels",
    )


def read_committed(
    storage: Storage, table: Mapping[str, Any], columns: Sequence[str] | None = None
) -> pa.Table:
    """A published table of a commit record (`commit.tables[...]`).

    Raises RowError `E_LABELS_CHANGED` where it is not there, or its bytes are others than were committed.
    """
    path = table["published"]
    try:
        data = storage.read(path)
    except FileNotFoundError:
        raise RowError(
            E_LABELS_CHANGED,
            f"{storage.url}/{path} is committed, but not there; run that job again, it puts it there",
        ) from None
    if hashlib.sha256(data).hexdigest() != table["sha256"]:
        raise RowError(
            E_LABELS_CHANGED,
            f"{storage.url}/{path}: bytes differ from what was committed; delete the shard's record in commits/ and run"
            " that job again",
        )
    return pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns))
