"""What a training set will hold, decided before any image is read: which images are kept, their groups and splits, and
how many regions each class has.

One table a unit in `plan/`, then `plan.json`, which is created last: a killed run goes on with the very plan that it
began with, and a label run that has changed since is noticed.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ovsops.errors import ConfigError, OutputError
from ovsops.images.phash import PictureHash
from pipelines.labelled_shards import read_committed
from pipelines.parts import table_to_parquet
from pipelines.storage import Storage, StorageOptions, open_storage
from pipelines.training_sets.build import BuildConfig, build_sample
from pipelines.training_sets.drops import Drops, image_reason
from pipelines.training_sets.duplicates import DuplicateConfig, ImagePrint, group_images
from pipelines.training_sets.filters import FilterConfig, count_classes, filter_sample
from pipelines.training_sets.record import RegionNegatives, Split, TrainingSample
from pipelines.training_sets.splits import SplitConfig, assign_splits

logger = logging.getLogger(__name__)

PLAN = "plan.json"
PLAN_FOLDER = "plan"
PLAN_VERSION = 1
PLAN_ROW = pa.schema(
    [
        pa.field("image_uid", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("split", pa.string()),
        pa.field("group", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
"""One row per image of the label run. An image with a `reason` (a code of `drops.REASONS`) is left out."""
_UNREAD = b"\xff\xd8\xff"
"""Stands for bytes that are not read yet: what is kept is decided by the labels alone."""

_REGION_COLUMNS = (
    "instance_uid",
    "image_uid",
    "category_id",
    "prompt",
    "bbox",
    "segmentation",
    "iscrowd",
    "score",
    "score_calibrated",
    "caption_short",
    "caption_long",
    "decision",
)


@dataclass(frozen=True, kw_only=True)
class ShardTables:
    """Where the tables of one unit are: plain data that travels."""

    labels: str
    """URL of the label run."""
    tables: Mapping[str, Mapping[str, Any]]
    """`images` and `instances` of its commit record."""
    negatives: str | None
    """URL of the negatives run."""
    negatives_table: Mapping[str, Any] | None
    options: StorageOptions

    def images(self) -> list[dict[str, Any]]:
        """Rows of `images`."""
        found: list[dict[str, Any]] = self._read(self.labels, self.tables["images"]).to_pylist()
        return found

    def regions(self, *, with_masks: bool) -> dict[str, list[dict[str, Any]]]:
        """Rows of `instances` by image."""
        columns = [name for name in _REGION_COLUMNS if with_masks or name != "segmentation"]
        rows = self._read(self.labels, self.tables["instances"], columns).to_pylist()
        return {uid: list(some) for uid, some in groupby(rows, key=itemgetter("image_uid"))}

    def negatives_rows(self) -> pa.Table | None:
        """Rows of `NEGATIVES`, or of `WRITTEN_NEGATIVES`; None where the set is made without negatives."""
        if self.negatives is None or self.negatives_table is None:
            return None
        return self._read(self.negatives, self.negatives_table)

    def _read(self, url: str, table: Mapping[str, Any], columns: Sequence[str] | None = None) -> pa.Table:
        return read_committed(open_storage(url, self.options), table, columns)


def names_writers(negatives: pa.Table | None) -> bool:
    """Whether a table of negatives says who wrote each: one of `WRITTEN_NEGATIVES` does."""
    return negatives is not None and "sources" in negatives.schema.names


def negatives_by_region(table: pa.Table | None) -> dict[str, RegionNegatives]:
    """Negatives by region, of `ShardTables.negatives_rows`."""
    if table is None:
        return {}
    columns = ["instance_uid", "positive", "negatives", "types"]
    if names_writers(table):
        columns.append("sources")
    return {
        row["instance_uid"]: RegionNegatives(
            texts=tuple(row["negatives"]),
            types=tuple(row["types"]),
            positive=row["positive"],
            sources=tuple(row["sources"]) if "sources" in row else None,
        )
        for row in table.select(columns).to_pylist()
        if row["negatives"] is not None
    }


@dataclass(frozen=True, kw_only=True)
class SetRules:
    """What goes into a set, where it lies, and what a region is called."""

    categories: Mapping[int, str]
    build: BuildConfig = field(default_factory=BuildConfig)
    filters: FilterConfig = field(default_factory=FilterConfig)
    duplicates: DuplicateConfig = field(default_factory=DuplicateConfig)
    splits: SplitConfig = field(default_factory=SplitConfig)

    def __post_init__(self) -> None:
        if self.duplicates.min_cosine is not None:
            raise ConfigError(
                "duplicates.min_cosine compares embeddings of images, and a label run has none: leave it null;"
                " copies are found by bytes and by perceptual hashes"
            )
        if self.build.keep_without_regions != self.filters.keep_without_regions:
            raise ConfigError(
                "build.keep_without_regions and filters.keep_without_regions differ: give both the same"
            )

    def sample(
        self,
        image: Mapping[str, Any],
        regions: Sequence[Mapping[str, Any]],
        data: bytes | None,
        negatives: Mapping[str, RegionNegatives],
        drops: Drops,
        class_counts: Mapping[int, int] | None = None,
    ) -> TrainingSample | None:
        """The sample with the regions that stay, or None; what goes is counted."""
        sample = build_sample(
            image,
            regions,
            data,
            categories=self.categories,
            negatives=negatives,
            drops=drops,
            config=self.build,
        )
        return None if sample is None else filter_sample(sample, self.filters, drops, class_counts)


def look_at_shard(where: ShardTables, rules: SetRules) -> list[dict[str, Any]]:
    """Of every image of a unit: hashes, the reason why it cannot be kept, else the classes of its regions."""
    regions, negatives = where.regions(with_masks=False), negatives_by_region(where.negatives_rows())
    rows = []
    for image in where.images():
        drops = Drops()
        sample = rules.sample(image, regions.get(image["image_uid"], []), _UNREAD, negatives, drops)
        classes: Counter[int] = Counter()
        if sample is not None:
            count_classes(sample, classes)
        rows.append(
            {
                "image_uid": image["image_uid"],
                "key": image["key"],
                "sha256": image["sha256"],
                "hashes": (image["hash_difference"], image["hash_frequency"]),
                "reason": image_reason(drops) if sample is None else None,
                "classes": dict(classes),
            }
        )
    return rows


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `plan.json` says."""

    class_counts: Mapping[int, int]
    """Regions of each class in the images that are kept, before classes are balanced."""
    units: Mapping[str, Mapping[str, Any]]
    """By unit: `plan_sha256`, `negatives_sha256`, `images` (kept)."""

    @classmethod
    def read(cls, storage: Storage) -> "Plan | None":
        """The plan of an output; None where there is none yet."""
        if not storage.exists(PLAN):
            return None
        plain = json.loads(storage.read(PLAN))
        counts = {int(category): count for category, count in plain["class_counts"].items()}
        return cls(class_counts=counts, units=plain["units"])

    def check(self, storage: Storage, wanted: Mapping[str, str]) -> None:
        """OutputError unless the plan is of these units (SHA-256 of their negatives by id)."""
        planned = {unit: said["negatives_sha256"] for unit, said in self.units.items()}
        if planned == dict(wanted):
            return
        new, gone = len(wanted.keys() - planned), len(planned.keys() - wanted)
        changed = sum(wanted[unit] != planned[unit] for unit in wanted.keys() & planned)
        raise OutputError(
            f"{storage.url}: the labels or negatives are others than when this set was planned: {new} shards are new,"
            f" {gone} are gone, {changed} have other negatives. Groups, splits and balance are of the set as a whole:"
            " choose another output (`keep_splits_of` keeps what was held out)"
        )


def make_plan(
    storage: Storage,
    looked_at: Iterator[tuple[str, str, list[dict[str, Any]]]],
    rules: SetRules,
    *,
    known: Mapping[str, Split] | None = None,
) -> Plan:
    """Group, split and count over all units (id, SHA-256 of the negatives, `look_at_shard`), and write the plan.

    Memory: about a kilobyte an image. Equal units make equal bytes, in whatever order they were labelled.
    """
    rows = {(unit, sha256): some for unit, sha256, some in looked_at}
    kept = [row for some in rows.values() for row in some if row["reason"] is None]
    prints = [
        ImagePrint(
            image_uid=row["image_uid"],
            sha256=row["sha256"],
            hashes=None if row["hashes"][0] is None else PictureHash(*row["hashes"]),
        )
        for row in kept
    ]
    groups = group_images(prints, rules.duplicates)
    splits = assign_splits(groups.group_of, rules.splits, known)
    counts: Counter[int] = Counter()
    for row in kept:
        if row["image_uid"] not in groups.dropped:
            counts.update(row["classes"])
    units = {}
    for (unit, sha256), some in rows.items():
        table = pa.Table.from_pylist(
            [
                {
                    "image_uid": row["image_uid"],
                    "key": row["key"],
                    "split": splits.get(row["image_uid"]),
                    "group": groups.group_of.get(row["image_uid"]),
                    "reason": row["reason"] or groups.dropped.get(row["image_uid"]),
                }
                for row in some
            ],
            schema=PLAN_ROW,
        )
        data = table_to_parquet(table)
        storage.put(plan_path(unit), data)
        units[unit] = {
            "plan_sha256": hashlib.sha256(data).hexdigest(),
            "negatives_sha256": sha256,
            "images": table.num_rows - sum(reason is not None for reason in table["reason"].to_pylist()),
        }
    plain = {
        "plan_version": PLAN_VERSION,
        "class_counts": {str(category): counts[category] for category in sorted(counts)},
        "images": {"labelled": len(kept), "left_out_as_copies": len(groups.dropped)},
        "groups": len(set(groups.group_of.values())),
        "units": units,
    }
    storage.create(PLAN, (json.dumps(plain, indent=1, sort_keys=True) + "\n").encode())
    logger.info("plan: %d images, %d groups", len(kept), len(set(groups.group_of.values())))
    return Plan(class_counts=counts, units=units)


def plan_path(unit: str) -> str:
    """Where the table of a unit lies."""
    return f"{PLAN_FOLDER}/{unit}.parquet"


def read_plan_table(storage: Storage, unit: str) -> dict[str, dict[str, Any]]:
    """Rows of `PLAN_ROW` by image."""
    table = pq.read_table(pa.BufferReader(storage.read(plan_path(unit))))
    return {row["image_uid"]: row for row in table.to_pylist()}


def known_splits(storage: Storage) -> dict[str, Split]:
    """Split by image of an earlier set. OutputError where there is none."""
    plan = Plan.read(storage)
    if plan is None:
        raise OutputError(
            f"{storage.url} holds no {PLAN}: `keep_splits_of` names an output of the dataset job"
        )
    return {
        uid: row["split"]
        for unit in plan.units
        for uid, row in read_plan_table(storage, unit).items()
        if row["split"] is not None and row["reason"] is None
    }
