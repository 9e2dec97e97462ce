"""Vectors of labelled regions and images by FG-CLIP 2: what is mined, and what negatives are measured with.

A label run stores boxes, and no vectors: most runs need none, and 768 float32 numbers a region are more than all that
is said of it. This job reads the images again and encodes the stored boxes, a unit for each committed shard.

    OUT/regions/SHARD.parquet   rows of `EMBEDDED`, one a region, by `instance_uid`
    OUT/images/SHARD.parquet    one an image that has regions, by `image_uid`
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ovsops.errors import ConfigError, ImageDecodeError, RowError
from ovsops.images.decode import DecodeConfig
from ovsops.images.decode_pool import DecodePool
from pipelines.labelled_shards import LabelRun, labelled_sources, read_committed
from pipelines.mining import EMBEDDED
from pipelines.parts import SealedTable, seal_table
from pipelines.readers import ReaderConfig, read_shard
from pipelines.rows import Closing
from pipelines.runner import Engine
from pipelines.shards import Shard
from pipelines.storage import Storage, StorageOptions, open_storage
from pipelines.units import SealedUnit, Unit, UnitCommit, UnitJob, UnitStage, row_totals, unit_ledger

if TYPE_CHECKING:
    from ovsops.backbones.checkpoint import Checkpoint

EMBEDDED_KINDS = ("regions", "images")
REASONS: Mapping[str, str] = {
    "V_NO_FEATURE": "the box covers no patch: it has no direction",
    "E_NO_IMAGE": "the image could not be read or decoded this time",
}
"""Why a region has no vector."""


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Who encodes, and how many images at a time."""

    images_at_once: int = 8
    """Images that are decoded and encoded together."""
    max_patches: int | None = None
    """Patches of every image; null: as many as its size asks for."""
    device: str = "cpu"
    decode_timeout_s: float = 60.0
    """Longest time that one image may take to decode."""

    def __post_init__(self) -> None:
        if self.images_at_once < 1 or not self.decode_timeout_s > 0:
            raise ConfigError(
                f"embed: images_at_once is {self.images_at_once}, decode_timeout_s {self.decode_timeout_s}: 1 or more,"
                " and seconds over 0 are wanted"
            )


@dataclass(frozen=True, kw_only=True)
class EmbedJob(UnitJob):
    """Everything that an embedding run needs, resolved; `embed_units` makes its units."""

    labels: LabelRun
    checkpoint: "Checkpoint"
    config: EmbedConfig = field(default_factory=EmbedConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Two folders of tables."""
        return EMBEDDED_KINDS

    def begin(self, storage: Storage, engine: Engine) -> None:
        """Units share nothing."""

    def stage(self, storage: Storage, run: str) -> UnitStage:
        """Loads the model on the worker."""
        return EmbedStage(self, run)

    def totals(self, commits: Sequence[UnitCommit]) -> dict[str, Any]:
        """Regions with and without a vector."""
        return {"regions": row_totals(commits, "embedded")}

    def end(
        self, storage: Storage, engine: Engine, commits: Sequence[UnitCommit]
    ) -> tuple[dict[str, Any], list[str]]:
        """Nothing belongs to the output as a whole."""
        return {}, []


def embed_units(labels: LabelRun, sources: Sequence[Shard]) -> tuple[Unit, ...]:
    """A unit for each committed shard. `sources` are the shards that were labelled (`expand_inputs`).

    ConfigError where one of them is not there any more.
    """
    found = labelled_sources(labels, sources)
    missing = [commit.name for commit, shard in zip(labels.commits, found, strict=True) if shard is None]
    if missing:
        raise ConfigError(
            f"{len(missing)} labelled shards are not among the inputs, the first one {missing[0]}: put them back where"
            " they were, or name where they are now in `shards`"
        )
    return tuple(
        Unit(
            shard=unit,
            task={
                "source": asdict(shard),
                "sha256": commit.sha256,
                "tables": {name: dict(table) for name, table in commit.tables.items()},
            },
        )
        for unit, commit, shard in zip(labels.shards, labels.commits, found, strict=True)
        if shard is not None
    )


def embedded_commits(storage: Storage) -> dict[str, UnitCommit]:
    """The committed shards of an embedding output, by unit: those of the same labels have the same units."""
    return {commit.shard: commit for commit in unit_ledger(storage, EMBEDDED_KINDS).read_all()}


def read_vectors(storage: Storage, table: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Vectors of a committed table (`commit.tables["regions"]`) by uid: `RegionContext.feature` of each region.

    Regions that cover no patch are not there. RowError where the bytes are not those that were committed.
    """
    found = read_committed(storage, table, ["uid", "vector"])
    vectors = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    rows = vectors.reshape(found.num_rows, -1) if found.num_rows else vectors.reshape(0, 0)
    return dict(zip(found["uid"].to_pylist(), rows, strict=True))


class EmbedStage(UnitStage):
    """Reads the images of a labelled shard again and encodes the boxes of its regions."""

    name = "embed"

    def __init__(self, job: EmbedJob, run: str) -> None:
        super().__init__(job.output, job.storage, run)
        self.labels, self.checkpoint, self.config = job.labels.url, job.checkpoint, job.config
        self.reader, self.decode = job.reader, job.decode

    def setup(self) -> None:
        """Open both outputs, load the model, start a decoder."""
        super().setup()
        import torch

        from ovsops.regions.region_vectors import RegionVectors

        if self.config.device == "cpu":
            torch.set_num_threads(1)
        self.label_storage = open_storage(self.labels, self.options)
        self.vectors = RegionVectors.load(
            self.checkpoint, device=self.config.device, max_patches=self.config.max_patches
        )
        self.decoder = DecodePool(self.decode, num_workers=1, timeout_s=self.config.decode_timeout_s)

    def work(self, shard: str, name: str, task: Mapping[str, Any]) -> SealedUnit:
        """Vectors of one shard, in the order of the label run's tables."""
        tables = task["tables"]
        images = read_committed(
            self.label_storage, tables["images"], ["image_uid", "index", "key", "sha256"]
        ).to_pylist()
        found = read_committed(
            self.label_storage, tables["instances"], ["instance_uid", "image_uid", "category_id", "bbox"]
        ).to_pylist()
        regions = {uid: list(some) for uid, some in groupby(found, key=itemgetter("image_uid"))}
        wanted = {image["index"]: image for image in images if image["image_uid"] in regions}
        reasons: Counter[str] = Counter()
        region_rows: list[dict[str, Any]] = []
        image_rows: list[dict[str, Any]] = []
        seen = 0
        for some in self._batches(_rows(task, wanted, self.reader, self.options)):
            for image, vectors in self._encoded(some, regions):
                seen += len(regions[image["image_uid"]])
                if vectors is None:
                    reasons["E_NO_IMAGE"] += len(regions[image["image_uid"]])
                    continue
                image_rows.append(_image_row(image, regions, vectors.image))
                for region, vector in zip(regions[image["image_uid"]], vectors.regions, strict=True):
                    if vector.any():
                        region_rows.append(_region_row(region, vector))
                    else:
                        reasons["V_NO_FEATURE"] += 1
        reasons["E_NO_IMAGE"] += len(found) - seen
        return SealedUnit(
            tables={
                "regions": self._sealed("regions", shard, region_rows),
                "images": self._sealed("images", shard, image_rows),
            },
            read=len(found),
            kept=len(region_rows),
            left_out={code: count for code, count in reasons.items() if count},
            counts={"images": len(image_rows)},
        )

    def _batches(
        self, rows: Iterator[tuple[dict[str, Any], bytes]]
    ) -> Iterator[list[tuple[dict[str, Any], bytes]]]:
        some: list[tuple[dict[str, Any], bytes]] = []
        for row in rows:
            some.append(row)
            if len(some) == self.config.images_at_once:
                yield some
                some = []
        if some:
            yield some

    def _encoded(
        self, some: Sequence[tuple[dict[str, Any], bytes]], regions: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Iterator[tuple[dict[str, Any], Any]]:
        """Every image with its vectors; None for one that does not decode."""
        decoded = list(self.decoder.map(memoryview(data) for _, data in some))
        good = [
            (image, one.pixels)
            for (image, _), one in zip(some, decoded, strict=True)
            if not isinstance(one, ImageDecodeError)
        ]
        boxes = [_corners(regions[image["image_uid"]]) for image, _ in good]
        vectors = dict(
            zip(
                (image["index"] for image, _ in good),
                self.vectors.of_images([pixels for _, pixels in good], boxes) if good else [],
                strict=True,
            )
        )
        for image, _ in some:
            yield image, vectors.get(image["index"])

    def _sealed(self, kind: str, shard: str, rows: Sequence[Mapping[str, Any]]) -> SealedTable:
        table = pa.Table.from_pylist(list(rows), schema=EMBEDDED)
        return seal_table(self.storage, kind, shard, table, self.run)


def _rows(
    task: Mapping[str, Any],
    wanted: Mapping[int, dict[str, Any]],
    reader: ReaderConfig,
    options: StorageOptions,
) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Labelled images with their bytes. RowError where the shard is not the one that was labelled."""
    plain = task["source"]
    source = Shard(
        **{**plain, "members": tuple(plain["members"]), "ignored": tuple(map(tuple, plain["ignored"]))}
    )
    closing = ""
    for table in read_shard(source, reader, options):
        for row in table.to_pylist():
            closing = row["closing"] or closing
            image = wanted.get(row["index"])
            if row["closing"] or image is None or row["image"] is None:
                continue
            if (image["key"], image["sha256"]) != (row["key"], row["sha256"]):
                raise RowError(
                    "E_SHARD_CHANGED",
                    f"image {row['index']} ({row['key']}) is not the one that was labelled; label the shard again",
                )
            yield image, row["image"]
    end = Closing.from_json(closing)
    if end.failed_code:
        raise RowError(end.failed_code, end.failed)
    if end.sha256 != task["sha256"]:
        raise RowError("E_SHARD_CHANGED", "its bytes are no longer those that were labelled; label it again")


def _corners(regions: Sequence[Mapping[str, Any]]) -> np.ndarray:
    boxes = np.array([region["bbox"] for region in regions], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _region_row(region: Mapping[str, Any], vector: np.ndarray) -> dict[str, Any]:
    return {
        "uid": region["instance_uid"],
        "group": region["image_uid"],
        "category_ids": [region["category_id"]],
        "vector": vector.tolist(),
    }


def _image_row(
    image: Mapping[str, Any], regions: Mapping[str, Sequence[Mapping[str, Any]]], vector: np.ndarray
) -> dict[str, Any]:
    uid = image["image_uid"]
    return {
        "uid": uid,
        "group": uid,
        "category_ids": sorted({region["category_id"] for region in regions[uid]}),
        "vector": vector.tolist(),
    }
