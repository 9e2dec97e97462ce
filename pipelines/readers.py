"""One shard read into Arrow rows: encoded images with their sidecars, then the closing row, whatever
happens.

Damage, hostile members and storage that fails are told in rows and in the closing row; nothing is raised
for them. A reader holds one table, the window of open samples, and one block of a remote file.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ovsops.errors import ConfigError, StorageError
from pipelines.counted import counted
from pipelines.keys import folder_key
from pipelines.redact import redact
from pipelines.rows import SOURCE_ROW, Closing
from pipelines.samples import Sample, SampleConfig, SampleGrouper
from pipelines.shards import Shard, members_tag
from pipelines.sidecar import SidecarConfig, SidecarFields, parse_sidecars
from pipelines.storage import ObjectChangedError, ObjectInfo, StorageOptions, open_storage, split_url
from pipelines.tar import Member, TarConfig, TarEnd, TarReader

logger = logging.getLogger(__name__)

STAGE = "read"


@dataclass(frozen=True, kw_only=True)
class ReaderConfig:
    """What is read of a shard, and within which caps."""

    tar: TarConfig = field(default_factory=TarConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    sidecar: SidecarConfig = field(default_factory=SidecarConfig)
    rows_per_table: int = 64
    """Rows of one table that is handed on."""
    bytes_per_table: int = 8 * 2**20
    """Encoded image bytes after which a table is handed on before it has all its rows."""

    def __post_init__(self) -> None:
        for name in ("rows_per_table", "bytes_per_table"):
            if getattr(self, name) < 1:
                raise ConfigError(f"reader.{name} is {getattr(self, name)}: give 1 or more")


class _ShardChangedError(Exception):
    """The shard is not the one that was planned, or did not stay the same."""


def read_shard(
    shard: Shard, config: ReaderConfig | None = None, options: StorageOptions | None = None
) -> Iterator[pa.Table]:
    """Tables of `SOURCE_ROW`; the last row of the last table is the closing row.

    A damaged archive closes with `complete=False` and what is damaged. A shard that cannot be read, or is
    replaced, closes with `failed_code` `E_STORAGE` or `E_SHARD_CHANGED`: its rows must not be committed.
    """
    config, options = config or ReaderConfig(), options or StorageOptions()
    rows = _Rows(shard, config)
    read = _read_archive if shard.kind == "tar" else _read_folder
    closing: dict[str, Any] = {"complete": False}
    try:
        closing = yield from read(shard, config, options, rows)
    except (_ShardChangedError, ObjectChangedError) as error:
        closing |= {"failed_code": "E_SHARD_CHANGED", "failed": redact(str(error))}
    except FileNotFoundError:
        closing |= {"failed_code": "E_STORAGE", "failed": f"{redact(shard.url)}, or a file of it, is gone"}
    except (StorageError, OSError) as error:
        closing |= {"failed_code": "E_STORAGE", "failed": redact(str(error))}
    end = Closing(num_rows=rows.num_rows, **closing)
    logger.info(
        "read %s: %s%s",
        shard.name,
        counted(end.num_rows, "rows"),
        f", {end.damage_code}{end.failed_code}" * (not end.complete),
    )
    yield rows.close(end)


def _read_archive(
    shard: Shard, config: ReaderConfig, options: StorageOptions, rows: "_Rows"
) -> Generator[pa.Table, None, dict[str, Any]]:
    folder, name = split_url(shard.url)
    storage = open_storage(folder, options)
    grouper = SampleGrouper(config.samples, max_sidecar_bytes=config.sidecar.max_bytes)
    with storage.open(name) as stream:
        _check_same(shard, stream.info)
        archive = TarReader(stream, config.tar, grouper.wants)
        for member in archive:
            for sample in grouper.add(member):
                yield from rows.add(sample)
    end = archive.end
    assert end is not None
    for sample in grouper.close(is_damaged=not end.complete):
        yield from rows.add(sample)
    _check_same(shard, storage.info(name))
    if end.num_bytes != shard.size:
        raise _ShardChangedError(
            f"{redact(shard.url)} gave {end.num_bytes:,} bytes, {shard.size:,} were listed"
        )
    return _closing_of_archive(end, grouper.ignored)


def _closing_of_archive(end: TarEnd, ignored: Counter[str]) -> dict[str, Any]:
    return {
        "complete": end.complete,
        "damage_code": end.damage_code,
        "damage": end.damage,
        "ignored": {reason: count for reason, count in (ignored + Counter(end.ignored)).items() if count},
        "sha256": end.sha256,
        "num_bytes": end.num_bytes,
    }


def _read_folder(
    shard: Shard, config: ReaderConfig, options: StorageOptions, rows: "_Rows"
) -> Generator[pa.Table, None, dict[str, Any]]:
    storage = open_storage(shard.url, options)
    grouper = SampleGrouper(
        config.samples,
        max_sidecar_bytes=config.sidecar.max_bytes,
        split_name=_split_folder_name,
        orphans_fail=False,
    )
    infos: list[ObjectInfo] = []
    for path in shard.members:
        name = path.encode("utf-8", "surrogateescape")
        with storage.open(path) as stream:
            infos.append(stream.info)
            size = stream.info.size
            too_large = size > config.tar.max_member_bytes
            data = stream.read() if not too_large and grouper.wants(name, size) else None
        member = Member(name=name, offset=0, size=size, data=data, too_large=too_large)
        for sample in grouper.add(member):
            yield from rows.add(sample)
    for sample in grouper.close():
        yield from rows.add(sample)
    if members_tag(infos) != shard.tag:
        raise _ShardChangedError(f"files of {redact(shard.url)} changed since they were listed")
    return {
        "complete": True,
        "ignored": {reason: n for reason, n in (grouper.ignored + Counter(dict(shard.ignored))).items() if n},
        "num_bytes": sum(info.size for info in infos),
    }


def _split_folder_name(name: str) -> tuple[str, str] | None:
    key = folder_key(name)
    base = key.rsplit("/", 1)[-1]
    return (key, name[len(key) + 1 :]) if key != name and base and not base.startswith(".") else None


def _check_same(shard: Shard, info: ObjectInfo) -> None:
    if (info.size, info.tag) != (shard.size, shard.tag):
        raise _ShardChangedError(
            f"{redact(shard.url)} is not the file that was listed: {info.size:,} bytes, tag {info.tag}; "
            f"listed {shard.size:,} bytes, tag {shard.tag}; run again to read the new one"
        )


class _Rows:
    """Samples on their way into tables; gives every sample its index."""

    def __init__(self, shard: Shard, config: ReaderConfig) -> None:
        self._shard_id, self._config = shard.id, config
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = 0
        self.num_rows = 0

    def add(self, sample: Sample) -> Iterator[pa.Table]:
        """A table when enough rows wait."""
        fields = parse_sidecars(sample.json, sample.txt, self._config.sidecar)
        self._waiting.append(self._row(sample, fields))
        self._waiting_bytes += len(sample.image or b"")
        self.num_rows += 1
        if (
            len(self._waiting) >= self._config.rows_per_table
            or self._waiting_bytes >= self._config.bytes_per_table
        ):
            yield self._table()

    def close(self, closing: Closing) -> pa.Table:
        """The last table: what waits, then the closing row."""
        self._waiting.append(
            {"shard": self._shard_id, "index": self.num_rows, "notes": [], "closing": closing.to_json()}
        )
        return self._table()

    def _row(self, sample: Sample, fields: SidecarFields) -> dict[str, Any]:
        is_failed = bool(sample.error_code)
        return {
            "shard": self._shard_id,
            "index": self.num_rows,
            "key": sample.key,
            "image": sample.image,
            "sha256": hashlib.sha256(sample.image).hexdigest() if sample.image is not None else None,
            "license": fields.license,
            "source_url": fields.source_url,
            "caption_short": fields.caption_short,
            "caption_long": fields.caption_long,
            "sidecar": fields.sidecar,
            "notes": [*sample.notes, *fields.notes],
            "error_code": sample.error_code if is_failed else None,
            "error_stage": STAGE if is_failed else None,
            "error_message": sample.error_message if is_failed else None,
        }

    def _table(self) -> pa.Table:
        table = pa.Table.from_pylist(self._waiting, schema=SOURCE_ROW)
        self._waiting, self._waiting_bytes = [], 0
        return table
