"""A training set read for a training: FineHARD JSON, FineHARD Parquet or WebDataset, ours or anybody's.

Every item is held to the contract and its image is decoded once, before anything is learned: what is broken is
counted by code and named with its place, and costs itself alone. The order is that of the files' names and of the
items in a file, so that a step sees the same images in every start.

Texts and boxes stay in memory, some kilobytes an image. Images that are files are read again when their step comes;
those of archives stay in memory, too.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa

from ovsops.errors import RowError, StorageError
from ovsops.images.decode import DecodeConfig
from pipelines.storage import Storage, StorageOptions, open_storage
from pipelines.summary import Limits
from pipelines.training.set_files import SetFiles, SetFormat, SetInput
from pipelines.training.set_images import SetImages
from pipelines.training.set_items import SetItem, image_code, read_item, region_code
from pipelines.training_sets.contract import Fault
from pipelines.training_sets.record import Split
from pipelines.validation.archives import shard_samples
from pipelines.validation.items import PUBLISHED, SIDECAR, TABLE, ItemFields, split_of_file
from pipelines.validation.json_items import JsonItems
from pipelines.validation.tables import table_rows
from pipelines.writers.finehard_parquet import FINEHARD

logger = logging.getLogger(__name__)

MAX_NAMED = 200
"""Broken images, and as many broken regions, that the summary names; all are counted."""
_FIELDS: Mapping[SetFormat, ItemFields] = {
    "finehard-json": PUBLISHED,
    "finehard-parquet": TABLE,
    "webdataset": SIDECAR,
}

REGION = pa.struct(
    [
        pa.field("box", pa.list_(pa.float64()), nullable=False),
        pa.field("short_expr", pa.string(), nullable=False),
        pa.field("long_expr", pa.string(), nullable=False),
        pa.field("negatives", pa.list_(pa.string()), nullable=False),
        pa.field("label", pa.string(), nullable=False),
    ]
)
SET_ROW = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("data", pa.large_binary()),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("caption_short", pa.string(), nullable=False),
        pa.field("caption_long", pa.string(), nullable=False),
        pa.field("regions", pa.list_(REGION), nullable=False),
    ]
)
"""An image on its way to a worker: `data` where it came in an archive, else `path` below the images' root."""


@dataclass(frozen=True, kw_only=True)
class SetRows:
    """What was read; told as scenes are."""

    table: pa.Table
    """Whole images in order."""
    images: SetImages
    num_read: int
    num_shards: int
    failures: tuple[Mapping[str, str], ...] = ()
    """File, place, code and message of each broken image."""
    regions: Mapping[str, int] = field(default_factory=dict)
    """Regions read, used, with negatives, left out."""
    region_failures: tuple[Mapping[str, str], ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)
    failed_shards: Mapping[str, str] = field(default_factory=dict)
    other_splits: int = 0
    """Items of other splits."""

    @property
    def identity(self) -> str:
        """SHA-256 over images, texts and boxes in order: what was learned from."""
        digest = hashlib.sha256()
        columns = ["sha256", "language", "caption_short", "caption_long", "regions"]
        for batch in self.table.select(columns).to_batches(max_chunksize=256):
            for row in batch.to_pylist():
                digest.update(json.dumps(row, sort_keys=True).encode() + b"\0")
        return digest.hexdigest()

    def totals(self) -> dict[str, int]:
        """Counts, by the names that `pipelines.summary.over_limits` asks for."""
        return {"read": self.num_read, "used": self.table.num_rows, "failed": len(self.failures)}

    def over_limits(self, limits: Limits) -> list[str]:
        """A sentence where too many regions are broken; images, files are judged as scenes and shards are."""
        read, failed = self.regions["read"], self.regions["failed"]
        if failed <= limits.max_failed_share * read:
            return []
        return [
            f"{failed} of {read} regions are broken ({failed / read:.2%}; limits.max_failed_share is "
            f"{limits.max_failed_share:.2%})"
        ]

    def told(self) -> dict[str, Any]:
        """For the summary."""
        return self.totals() | {
            "shards": self.num_shards,
            "failures_by_code": _by_code(self.failures),
            "failures": [dict(failure) for failure in self.failures[:MAX_NAMED]],
            "failures_not_named": max(0, len(self.failures) - MAX_NAMED),
            "damaged_shards": dict(self.damaged),
            "failed_shards": dict(self.failed_shards),
            "ignored_members": {"other_split": self.other_splits} if self.other_splits else {},
            "regions": dict(self.regions)
            | {
                "failures_by_code": _by_code(self.region_failures),
                "failures": [dict(failure) for failure in self.region_failures[:MAX_NAMED]],
                "failures_not_named": max(0, len(self.region_failures) - MAX_NAMED),
            },
        }


def _by_code(failures: tuple[Mapping[str, str], ...]) -> dict[str, int]:
    return dict(sorted(Counter(failure["code"] for failure in failures).items()))


def read_set(found: SetFiles, given: SetInput, options: StorageOptions, decode: DecodeConfig) -> SetRows:
    """Every item of the files, checked and its image decoded once."""
    images = SetImages(root=given.images or found.folder, storage=options, decode=decode)
    reading = _Reading(
        storage=open_storage(found.folder, options), found=found, split=given.split, images=images
    )
    for name in found.names:
        reading.read_file(name)
    reading.flush()
    return SetRows(
        table=pa.concat_tables(reading.tables),
        images=images,
        num_read=reading.num_read,
        num_shards=len(found.names),
        failures=tuple(reading.failures),
        regions=dict(reading.regions),
        region_failures=tuple(reading.region_failures),
        damaged=reading.damaged,
        failed_shards=reading.failed,
        other_splits=reading.other_splits,
    )


@dataclass(kw_only=True)
class _Reading:
    """One pass over the files."""

    storage: Storage
    found: SetFiles
    split: Split
    images: SetImages
    tables: list[pa.Table] = field(default_factory=list)
    num_read: int = 0
    other_splits: int = 0
    regions: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("read", "used", "with_negatives", "failed"), 0)
    )
    failures: list[Mapping[str, str]] = field(default_factory=list)
    region_failures: list[Mapping[str, str]] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _rows: list[dict[str, Any]] = field(default_factory=list)

    def read_file(self, name: str) -> None:
        """All items of one file; damage ends the file, not the run."""
        try:
            with self.storage.open(name) as stream:
                for place, item, data, fault in self._items(stream, name):
                    if fault is not None and not place:
                        self.damaged[name] = f"{image_code(fault)}: {fault.message}"
                        continue
                    self._take(name, place, item, data, fault)
        except (StorageError, OSError) as error:
            self.failed[name] = f"E_STORAGE: {str(error)[:200]}"

    def flush(self) -> None:
        """Rows into a table."""
        self.tables.append(pa.Table.from_pylist(self._rows, schema=SET_ROW))
        self._rows = []

    def _items(self, stream: BinaryIO, name: str) -> Iterator[tuple[str, Any, bytes | None, Fault | None]]:
        """Place, item, image bytes and fault; a fault without a place is the file's."""
        match self.found.format:
            case "finehard-json":
                read = JsonItems(stream)
                for item in read:
                    if item.key or item.place < 0:
                        yield (
                            "",
                            None,
                            None,
                            Fault("type", "", "the file is an object, expected one list of items"),
                        )
                        return
                    yield f"[{item.place}]", item.value, None, next(iter(item.faults), None)
                if read.fault is not None:
                    yield "", None, None, read.fault
            case "finehard-parquet":
                for number, row in enumerate(table_rows(stream, tuple(FINEHARD.names))):
                    if isinstance(row, Fault):
                        yield "", None, None, row
                    else:
                        yield f"row {number}", row, None, None
            case "webdataset":
                for number, sample in enumerate(shard_samples(stream)):
                    fault = next(iter(sample.faults), None)
                    if sample.key or fault is not None:
                        place = f"sample {number} {sample.key}" if sample.key else ""
                        yield place, sample.item, sample.image, fault

    def _take(self, name: str, place: str, item: Any, data: bytes | None, fault: Fault | None) -> None:
        """One item: a row, or a failure."""
        said = item.get("split") if isinstance(item, dict) else None
        if not split_of_file(name) and isinstance(said, str) and said != self.split:
            self.other_splits += 1
            return
        self.num_read += 1
        try:
            if fault is not None:
                raise RowError(image_code(fault), fault.message)
            read = read_item(item, _FIELDS[self.found.format])
            self._count_regions(name, place, read)
            self._rows.append(self._row(read, data))
        except RowError as error:
            failure = {"shard": name, "key": place, "code": error.code, "message": str(error)[:300]}
            self.failures.append(failure)
            logger.warning("%(shard)s: %(key)s is left out: %(code)s: %(message)s", failure)
        if len(self._rows) >= 256:
            self.flush()

    def _count_regions(self, name: str, place: str, read: SetItem) -> None:
        self.regions["read"] += len(read.regions) + len(read.broken)
        self.regions["used"] += len(read.regions)
        self.regions["with_negatives"] += sum(bool(region.negatives) for region in read.regions)
        self.regions["failed"] += len(read.broken)
        for fault in read.broken:
            message = f"{fault.field}: {fault.message}"[:300]
            failure = {"shard": name, "key": place, "code": region_code(fault), "message": message}
            self.region_failures.append(failure)
            logger.warning("%(shard)s: %(key)s: a region is left out: %(code)s: %(message)s", failure)

    def _row(self, read: SetItem, data: bytes | None) -> dict[str, Any]:
        encoded = data if data is not None else self.images.read(read.path)
        pixels, turn = self.images.pixels(encoded)
        height, width, _ = pixels.shape
        if read.size_hw is None and turn != 1:
            raise RowError(
                "E_EXIF_TURNED",
                "the image has an EXIF turn and the item no size: its boxes may be of either picture",
            )
        if read.size_hw not in (None, (height, width)):
            raise RowError("E_SIZE", f"the item says {read.size_hw} (h w), the picture is {height}x{width}")
        return {
            "path": read.path,
            "data": data,
            "sha256": hashlib.sha256(encoded).hexdigest(),
            "height": height,
            "width": width,
            "language": read.language,
            "caption_short": read.caption_short,
            "caption_long": read.caption_long,
            "regions": [asdict(region) for region in read.regions],
        }
