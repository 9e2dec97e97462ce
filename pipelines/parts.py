"""Part files and sealed tables: names, bytes, and sealing a whole shard. Paths are relative to OUT."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.rows import PRESENCE_FIELDS, Closing, status_of
from pipelines.schemas import IMAGES, INSTANCES
from pipelines.storage import Storage

ROWS_PER_GROUP = 65_536
"""Row groups are cut at fixed places, so that equal rows are equal bytes."""
PARTS = "_parts"
"""Folder of everything that is not committed; a finished run leaves none."""


def parts_folder(shard: str) -> str:
    """Where a shard's parts and sealed tables wait for the commit."""
    return f"{PARTS}/{shard}"


def part_path(shard: str, first: int, end: int, unique: str) -> str:
    """Path of a part that holds rows `first` to `end` (half-open)."""
    return f"{parts_folder(shard)}/{first}-{end}.{unique}.parquet"


def table_to_parquet(table: pa.Table) -> bytes:
    """Parquet bytes that depend on the rows and the schema alone."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROWS_PER_GROUP, store_schema=True)
    return sink.getvalue().to_pybytes()


def read_part(storage: Storage, path: str, sha256: str | None = None) -> pa.Table:
    """A part or table, its checksum verified where one is given."""
    data = storage.read(path)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise OSError(f"{path}: bytes differ from what the writer recorded; run again to write it anew")
    return pq.read_table(pa.BufferReader(data))


@dataclass(frozen=True, kw_only=True)
class SealedTable:
    """One sealed table: where it waits, where it will be published, and its bytes' checksum."""

    sealed: str
    published: str
    sha256: str
    num_bytes: int
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class SealedShard:
    """A shard whose two tables are written but not yet committed."""

    shard: str
    images: SealedTable
    instances: SealedTable
    labelled: int
    skipped: int
    failed: int
    codes: Mapping[str, int]
    """Failed and skipped rows by code."""
    notes: Mapping[str, int]
    """Images by the code of a note that they have; an image counts once for a code, however often it has it."""
    instances_per_class: Mapping[str, int]
    closing: Closing


def _codes_of(notes: Sequence[str]) -> set[str]:
    """`N_REDACTED:txt` and `N_REDACTED:sidecar` of one image are one `N_REDACTED`."""
    return {note.partition(":")[0] for note in notes}


def seal_shard(
    storage: Storage, *, shard: str, name: str, parts: Sequence[tuple[str, str]], unique: str
) -> SealedShard:
    """Read the chosen parts (path, sha256), sort, and write the shard's two tables beside them.

    `name` is what the `shard` column says. The bytes depend on the rows alone: no clocks, no host names.
    """
    rows = pa.concat_tables([read_part(storage, path, sha256) for path, sha256 in parts])
    closing = next(Closing.from_json(c) for c in rows.column("closing").to_pylist() if c)
    records = [r for r in rows.drop_columns(["closing"]).to_pylist() if r["index"] < closing.num_rows]
    if sorted(r["index"] for r in records) != list(range(closing.num_rows)):
        raise AssertionError(f"shard {shard}: parts {parts} do not tile rows 0..{closing.num_rows - 1}")
    return seal_records(storage, shard=shard, name=name, records=records, closing=closing, unique=unique)


def seal_records(
    storage: Storage, *, shard: str, name: str, records: list[dict[str, Any]], closing: Closing, unique: str
) -> SealedShard:
    """Write the two tables of encoded rows (dicts of `ENCODED_ROW`)."""
    records.sort(key=lambda r: (r["key"], r["index"]))
    images, instances = explode(records, name)
    tables = {
        "images": pa.Table.from_pylist(images, schema=IMAGES),
        "instances": pa.Table.from_pylist(instances, schema=INSTANCES),
    }
    sealed = {kind: seal_table(storage, kind, shard, table, unique) for kind, table in tables.items()}
    statuses = Counter(r["status"] for r in images)
    return SealedShard(
        shard=shard,
        images=sealed["images"],
        instances=sealed["instances"],
        labelled=statuses["labelled"],
        skipped=statuses["skipped"],
        failed=statuses["failed"],
        codes=dict(sorted(Counter(r["error_code"] for r in images if r["error_code"]).items())),
        notes=dict(sorted(Counter(code for r in images for code in _codes_of(r["notes"])).items())),
        instances_per_class=dict(sorted(Counter(str(r["category_id"]) for r in instances).items())),
        closing=closing,
    )


def seal_table(storage: Storage, kind: str, shard: str, table: pa.Table, unique: str) -> SealedTable:
    """Write a shard's table beside its place. A name is never used twice: `unique` is in it."""
    data = table_to_parquet(table)
    path = f"{parts_folder(shard)}/sealed.{unique}.{kind}.parquet"
    storage.put(path, data)
    return SealedTable(
        sealed=path,
        published=f"{kind}/{shard}.parquet",
        sha256=hashlib.sha256(data).hexdigest(),
        num_bytes=len(data),
        num_rows=table.num_rows,
    )


def explode(
    records: Sequence[Mapping[str, Any]], name: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `images` and `instances` from encoded rows that are in their final order."""
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    seen: Counter[tuple[str, str]] = Counter()
    for record in records:
        content = (record["key"], record["sha256"] or "")
        uid = _uid(name, *content, str(seen[content]))
        seen[content] += 1
        image = {f.name: record[f.name] for f in IMAGES if f.name in record}
        images.append(
            image
            | {
                "image_uid": uid,
                "shard": name,
                **{f.name: record.get(f.name) or [] for f in PRESENCE_FIELDS},
                "status": status_of(record["error_code"]),
            }
        )
        for number, region in enumerate(record["regions"] or []):
            instances.append(
                region
                | {
                    "instance_uid": _uid(uid, str(region["category_id"]), str(number)),
                    "image_uid": uid,
                    "iscrowd": 0,
                }
            )
    return images, instances


def _uid(*parts: str) -> str:
    """128 bits from the parts; a null byte keeps ("ab", "c") apart from ("a", "bc")."""
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
