"""The ledger: which shards are done, decided by one file each, created once.

    OUT/_parts/<shard>/...        parts and sealed tables: invisible, swept unless committed
    OUT/commits/<shard>.json      created if absent: the first writer wins
    OUT/images|instances/<shard>.parquet

`<shard>` is `Shard.id`: path, size and content tag. A retry of failed rows commits `<shard>.retry-<n>.json`;
the highest number is the shard's state. A run killed between commit and publish is rolled forward by the next
one. A shard whose bytes were replaced is a new one: publishing it moves what was written of the old bytes,
record and tables, to `OUT/_superseded/`, so that the visible tables never hold two versions of a shard.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar, overload

from ovsops.errors import OutputError
from pipelines.counted import counted
from pipelines.parts import PARTS, SealedShard, SealedTable, parts_folder
from pipelines.rows import Closing
from pipelines.shards import Shard
from pipelines.spans import Spans, joined
from pipelines.storage import Storage, StorageOptions, open_storage, split_url

_COMMIT = re.compile(r"^commits/(?P<shard>[^/]+?)(?:\.retry-(?P<retry>\d+))?\.json$")


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What the record of every job says."""

    shard: str
    name: str
    url: str
    size: int
    tag: str
    run: str
    recipe_hash: str
    retry: int
    read: int
    sha256: str
    tables: Mapping[str, Mapping[str, Any]]
    replaces: Sequence[str] = ()
    """Earlier versions of the shard's path that these tables take the place of."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    spans: Spans = field(default_factory=dict)
    """When each stage worked on it; records of earlier versions have none."""

    @property
    def path(self) -> str:
        """Where the record lies."""
        return f"commits/{self.shard}{f'.retry-{self.retry}' if self.retry else ''}.json"

    def to_bytes(self) -> bytes:
        """JSON, keys sorted."""
        return (json.dumps(vars(self), indent=1, sort_keys=True, default=dict) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of `to_bytes`."""
        return cls(**json.loads(data))

    def check_invariant(self) -> None:
        """Everything read became something, or an internal error."""
        raise NotImplementedError


Record = TypeVar("Record", bound=ShardRecord)


@dataclass(frozen=True, kw_only=True)
class Commit(ShardRecord):
    """The record that makes a shard of the label job done."""

    labelled: int
    skipped: int
    failed: int
    codes: Mapping[str, int]
    notes: Mapping[str, int]
    instances: int
    instances_per_class: Mapping[str, int]
    complete: bool
    damage_code: str
    damage: str
    ignored: Mapping[str, int]

    @classmethod
    def of(
        cls,
        sealed: SealedShard,
        shard: Shard,
        *,
        run: str,
        recipe_hash: str,
        retry: int = 0,
        replaces: Sequence[str] = (),
        seconds: Mapping[str, float],
        spans: Spans | None = None,
    ) -> "Commit":
        """The record of a sealed shard."""
        closing: Closing = sealed.closing
        return cls(
            shard=sealed.shard,
            name=shard.name,
            url=shard.url,
            size=shard.size,
            tag=shard.tag,
            run=run,
            recipe_hash=recipe_hash,
            retry=retry,
            read=closing.num_rows,
            labelled=sealed.labelled,
            skipped=sealed.skipped,
            failed=sealed.failed,
            codes=sealed.codes,
            notes=sealed.notes,
            instances=sealed.instances.num_rows,
            instances_per_class=sealed.instances_per_class,
            complete=closing.complete,
            damage_code=closing.damage_code,
            damage=closing.damage,
            ignored=dict(closing.ignored),
            sha256=closing.sha256,
            tables={"images": vars(sealed.images), "instances": vars(sealed.instances)},
            replaces=list(replaces),
            seconds=dict(seconds),
            spans={stage: joined(some) for stage, some in (spans or {}).items()},
        )

    def check_invariant(self) -> None:
        """Members read = labelled + skipped + failed, or an internal error."""
        total = self.labelled + self.skipped + self.failed
        if total != self.read or self.tables["images"]["num_rows"] != self.read:
            raise AssertionError(
                f"shard {self.name}: {self.read} images read, but {self.labelled} labelled"
                f" + {self.skipped} skipped + {self.failed} failed = {total},"
                f" {self.tables['images']['num_rows']} rows written"
            )


class Ledger(Generic[Record]):
    """Commits of one output folder: of the label job, or records of another kind with tables in other folders."""

    @overload
    def __init__(self: "Ledger[Commit]", storage: Storage) -> None: ...

    @overload
    def __init__(
        self: "Ledger[Record]", storage: Storage, record: type[Record], kinds: Sequence[str]
    ) -> None: ...

    def __init__(
        self, storage: Storage, record: type[Any] = Commit, kinds: Sequence[str] = ("images", "instances")
    ) -> None:
        self.storage = storage
        self.record: type[Record] = record
        self.kinds = tuple(kinds)
        """Folders that hold one table of every committed shard."""

    def committed(self) -> dict[str, int]:
        """Retry number by shard id: one listing, no record is opened."""
        latest: dict[str, int] = {}
        for info in self.storage.list("commits"):
            if match := _COMMIT.match(info.path):
                shard, retry = match["shard"], int(match["retry"] or 0)
                latest[shard] = max(latest.get(shard, 0), retry)
        return latest

    def read(self, shard: str, retry: int) -> Record:
        """One record."""
        suffix = f".retry-{retry}" if retry else ""
        return self.record.from_bytes(self.storage.read(f"commits/{shard}{suffix}.json"))

    def read_all(self) -> list[Record]:
        """The current record of every shard, sorted by name."""
        with ThreadPoolExecutor(16) as pool:
            commits = list(pool.map(lambda item: self.read(*item), self.committed().items()))
        return sorted(commits, key=lambda c: (c.name, c.shard))

    def pending(self, shards: Iterable[Shard], options: StorageOptions) -> "Pending":
        """Shards that are not done, in order. A touched but equal shard is done; a replaced one is not."""
        committed = self.committed()
        versions: dict[str, list[str]] = {}
        for shard_id in committed:
            versions.setdefault(shard_id.rpartition("-")[0], []).append(shard_id)
        todo = []
        replaces: dict[str, tuple[str, ...]] = {}
        for shard in shards:
            if shard.id in committed:
                continue
            earlier = versions.get(shard.slug, [])
            if any(_has_bytes_of(shard, self.read(e, committed[e]), options) for e in earlier):
                continue
            todo.append(shard)
            replaces[shard.id] = tuple(earlier)
        return Pending(shards=tuple(todo), replaces=replaces)

    def commit(self, commit: Record) -> bool:
        """Make a sealed shard done. False: somebody else was first, and nothing was touched."""
        commit.check_invariant()
        return self.storage.create(commit.path, commit.to_bytes())

    def publish(self, commit: Record) -> None:
        """Put the committed tables under their final names and drop the parts. Safe to repeat."""
        for table in commit.tables.values():
            sealed = SealedTable(**table)
            if self.storage.exists(sealed.sealed):
                self.storage.move(sealed.sealed, sealed.published)
        for earlier in commit.replaces:
            self._supersede(earlier)
        self._drop_parts(commit.shard)

    def recover(self) -> "Recovery":
        """Roll committed shards forward and sweep what nobody committed. Only with the output's lock held."""
        self.storage.sweep()
        committed = self.committed()
        waiting = sorted({info.path.split("/")[1] for info in self.storage.list(PARTS)})
        published = [shard for shard in waiting if shard in committed]
        for shard in published:
            self.publish(self.read(shard, committed[shard]))
        swept = [shard for shard in waiting if shard not in committed]
        for shard in swept:
            self._drop_parts(shard)
        self.storage.prune(PARTS)
        self._check_tables(committed)
        return Recovery(published=tuple(published), swept=tuple(swept))

    def _check_tables(self, committed: Iterable[str]) -> None:
        """Raise OutputError when tables of a committed shard are gone: it would pass for done for ever."""
        there = {info.path for kind in self.kinds for info in self.storage.list(kind)}
        versions = Counter(shard.rpartition("-")[0] for shard in committed)
        gone = [
            f"commits/{shard}*.json"
            for shard in committed
            if not self._tables_of(shard) <= there
            and versions[shard.rpartition("-")[0]] == 1  # one that another replaces may be half moved away
        ]
        if gone:
            raise OutputError(
                f"{self.storage.url}: tables of {counted(len(gone), 'committed shards')} are gone; delete their records"
                f" and run again, they are made anew: {', '.join(gone[:5])}"
            )

    def _supersede(self, shard: str) -> None:
        records = [f"commits/{shard}.json"]
        while self.storage.exists(retried := f"commits/{shard}.retry-{len(records)}.json"):
            records.append(retried)
        for path in [*sorted(self._tables_of(shard)), *reversed(records)]:
            if self.storage.exists(path):
                self.storage.move(path, f"_superseded/{path}")

    def _tables_of(self, shard: str) -> set[str]:
        return {f"{kind}/{shard}.parquet" for kind in self.kinds}

    def _drop_parts(self, shard: str) -> None:
        for info in self.storage.list(parts_folder(shard)):
            self.storage.delete(info.path)
        self.storage.prune(parts_folder(shard))


def tables_sha256(commits: Iterable[ShardRecord]) -> str:
    """One hash over the bytes of all committed tables, by shard's name: which labels something is about."""
    digest = hashlib.sha256()
    for commit in commits:
        for kind in sorted(commit.tables):
            digest.update(f"{kind} {commit.shard} {commit.tables[kind]['sha256']}\n".encode())
    return digest.hexdigest()


def _has_bytes_of(shard: Shard, commit: ShardRecord, options: StorageOptions) -> bool:
    """Whether a shard that looks new (another time stamp) holds the very bytes that were labelled."""
    if shard.kind != "tar" or shard.size != commit.size or not commit.sha256:
        return False
    folder, name = split_url(shard.url)
    with open_storage(folder, options).open(name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == commit.sha256


@dataclass(frozen=True, kw_only=True)
class Pending:
    """What is left to do."""

    shards: tuple[Shard, ...]
    replaces: Mapping[str, tuple[str, ...]]
    """Committed earlier versions of a pending shard's path, by its id."""


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """What a start found from a run that did not end."""

    published: tuple[str, ...]
    """Shards that were committed but not yet published."""
    swept: tuple[str, ...]
    """Shards whose parts were removed, because nobody committed them."""
