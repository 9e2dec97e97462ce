"""A labelled run as input of the jobs that come after: its committed shards, each a unit of work."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ovsops.errors import OutputError, RowError
from ovsops.text.vocabulary import Vocabulary
from pipelines.ledger import Commit, Ledger
from pipelines.manifest import MANIFEST, read_manifest
from pipelines.readers import ReaderConfig, read_shard
from pipelines.rows import Closing
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import Shard
from pipelines.storage import Storage, StorageOptions, open_storage

E_LABELS_CHANGED = "E_LABELS_CHANGED"
"""Code of a shard whose tables are not those of its record."""
E_SHARD_CHANGED = "E_SHARD_CHANGED"
"""Code of a shard whose bytes are not those that were labelled."""
E_SHARD_MISSING = "E_SHARD_MISSING"
"""Code of a shard that is not among the label run's inputs any more."""


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


@dataclass(frozen=True, kw_only=True)
class SourceShard:
    """Where the images of a unit are, and which bytes were labelled."""

    shard: Shard | None
    """None where the label run's shard is not among the inputs any more."""
    sha256: str
    num_rows: int

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> "SourceShard":
        """What `source_task` put into a task."""
        shard = task["shard"]
        if shard is not None:
            names = {"members": tuple(shard["members"]), "ignored": tuple(map(tuple, shard["ignored"]))}
            shard = Shard(**{**shard, **names})
        return cls(shard=shard, sha256=task["sha256"], num_rows=task["num_rows"])

    def rows(self, reader: ReaderConfig, options: StorageOptions) -> Iterator[dict[str, Any]]:
        """Its rows with bytes, in order. RowError where they are not those that were labelled."""
        if self.shard is None:
            raise RowError(
                E_SHARD_MISSING,
                "it is no longer among the label run's inputs; put it back, or name where it is now in `shards`",
            )
        closing = ""
        for table in read_shard(self.shard, reader, options):
            for row in table.to_pylist():
                if row["closing"]:
                    closing = row["closing"]
                else:
                    yield row
        end = Closing.from_json(closing)
        if end.failed_code:
            raise RowError(end.failed_code, end.failed)
        if (end.num_rows, end.sha256) != (self.num_rows, self.sha256):
            raise RowError(
                E_SHARD_CHANGED, "its bytes are no longer those that were labelled; label it again"
            )


def source_tasks(labels: LabelRun, sources: Sequence[Shard]) -> list[dict[str, Any]]:
    """For each committed shard what a worker must know to read its images. `sources` are the shards that the label
    run's inputs name now.
    """
    return [
        {
            "tables": commit.tables,
            "shard": None if source is None else vars(source),
            "sha256": commit.sha256,
            "num_rows": commit.read,
        }
        for commit, source in zip(labels.commits, labelled_sources(labels, sources), strict=True)
    ]


def labelled_sources(labels: LabelRun, sources: Sequence[Shard]) -> list[Shard | None]:
    """For each committed shard where it is now; None for one that is not there. One that was touched since counts: who
    reads it compares its bytes with those that were labelled."""
    by_id = {shard.id: shard for shard in sources}
    by_slug = {shard.slug: shard for shard in sources}
    return [
        by_id.get(commit.shard) or by_slug.get(commit.shard.rpartition("-")[0]) for commit in labels.commits
    ]
