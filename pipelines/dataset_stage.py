"""One unit of a training set: its source shard is streamed once, and its images go into every format, byte by byte
as they are.
"""

import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from ovsops.errors import RowError
from pipelines.dataset_plan import (
    Plan,
    SetRules,
    ShardTables,
    names_writers,
    negatives_by_region,
    read_plan_table,
)
from pipelines.dataset_writers import FormatName, UnitWriters
from pipelines.labelled_shards import E_SHARD_CHANGED, SourceShard
from pipelines.parts import SealedTable, parts_folder, seal_table
from pipelines.readers import ReaderConfig
from pipelines.storage import StorageOptions, local_path
from pipelines.training_sets.counts import SetCounts
from pipelines.training_sets.drops import Drops, image_reason
from pipelines.training_sets.record import TrainingSample
from pipelines.units import SealedUnit, UnitStage
from pipelines.writers.whole_files import WrittenFile

SAMPLES = "samples"
SAMPLE_ROW = pa.schema(
    [
        pa.field("image_uid", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("split", pa.string()),
        pa.field("group", pa.string()),
        pa.field("regions", pa.int32(), nullable=False),
        pa.field("regions_with_negatives", pa.int32(), nullable=False),
        pa.field("reason", pa.string()),
    ]
)
"""One row per image of the label run, in the order of the shard. `reason` says why it is not in the set."""


@dataclass(frozen=True, kw_only=True)
class SetFiles:
    """Which files are written."""

    formats: tuple[FormatName, ...]
    max_file_bytes: int
    coco: Mapping[str, Any]
    """`categories` and `info` of COCO files."""


class DatasetStage(UnitStage):
    """Files of every format, and a row for each image of the unit."""

    name = "dataset"

    def __init__(
        self,
        output: str,
        options: StorageOptions,
        run: str,
        *,
        rules: SetRules,
        files: SetFiles,
        plan: Plan,
        reader: ReaderConfig,
    ) -> None:
        super().__init__(output, options, run)
        self.rules, self.files, self.reader = rules, files, reader
        self.class_counts = dict(plan.class_counts)

    def work(self, shard: str, name: str, task: Mapping[str, Any]) -> SealedUnit:
        """The files of one unit."""
        source, where, first_ids = unit_task(task, self.options)
        unique = f"{self.run}-{secrets.token_hex(4)}"
        folder = f"{parts_folder(shard)}/{unique}"
        root = local_path(self.output)
        unit = _UnitSamples(self, where, read_plan_table(self.storage, shard))
        with UnitWriters(
            root / folder,
            root,
            self.files.formats,
            stem=shard,
            max_file_bytes=self.files.max_file_bytes,
            coco=self.files.coco,
            first_ids=first_ids,
            has_sources=unit.has_sources,
        ) as writers:
            for sample in unit.samples(source.rows(self.reader, self.options)):
                writers.add(sample)
            written = writers.finish()
        table = pa.Table.from_pylist(unit.rows, schema=SAMPLE_ROW)
        tables = {SAMPLES: seal_table(self.storage, SAMPLES, shard, table, self.run)}
        for format_name, files in written.items():
            for file in files:
                tables[f"{format_name}/{file.path}"] = _sealed(folder, format_name, file)
        reasons = Counter(row["reason"] for row in unit.rows if row["reason"])
        return SealedUnit(
            tables=tables,
            read=len(unit.rows),
            kept=len(unit.rows) - reasons.total(),
            left_out=reasons,
            counts={
                "set": unit.counts.to_plain(),
                "drops": unit.drops.to_plain(),
                "files": {name: [asdict(file) for file in files] for name, files in written.items()},
            },
        )


def unit_task(
    task: Mapping[str, Any], options: StorageOptions
) -> tuple[SourceShard, ShardTables, tuple[int, int]]:
    """What `dataset.DatasetJob` put into a task."""
    source = SourceShard.of(task)
    where = ShardTables(
        labels=task["labels"],
        tables=task["tables"],
        negatives=task["negatives"],
        negatives_table=task["negatives_table"],
        options=options,
    )
    return source, where, (task["first_ids"][0], task["first_ids"][1])


def _sealed(folder: str, format_name: str, file: WrittenFile) -> SealedTable:
    return SealedTable(
        sealed=f"{folder}/{format_name}/{file.path}",
        published=f"{format_name}/{file.path}",
        sha256=file.sha256,
        num_bytes=file.num_bytes,
        num_rows=file.num_images,
    )


class _UnitSamples:
    """Rows of the shard to samples, joined with labels, negatives and plan by their place in the shard."""

    def __init__(
        self, stage: DatasetStage, where: ShardTables, plan: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.rules, self.class_counts = stage.rules, stage.class_counts
        self.images = {image["index"]: image for image in where.images()}
        self.regions = where.regions(with_masks=True)
        negatives = where.negatives_rows()
        self.has_sources = names_writers(negatives)
        self.negatives = negatives_by_region(negatives)
        self.plan = plan
        self.drops, self.counts = Drops(), SetCounts()
        self.rows: list[dict[str, Any]] = []

    def samples(self, source: Iterator[Mapping[str, Any]]) -> Iterator[TrainingSample]:
        """Samples that are kept; every image leaves a row."""
        for row in source:
            image = self.images.get(row["index"])
            if image is None or (image["key"], image["sha256"]) != (row["key"], row["sha256"]):
                raise RowError(
                    E_SHARD_CHANGED,
                    f"image {row['index']} ({row['key']}) is not the one that was labelled; label the shard again",
                )
            planned = self.plan[image["image_uid"]]
            sample, reason = self._sample(image, row["image"], planned)
            self._note(image, planned, sample, reason)
            if sample is not None:
                yield sample

    def _sample(
        self, image: Mapping[str, Any], data: bytes | None, planned: Mapping[str, Any]
    ) -> tuple[TrainingSample | None, str | None]:
        if planned["group"] is not None and planned["reason"] is not None:  # a copy: it could have been kept
            self.drops.add(planned["reason"])
            return None, planned["reason"]
        own = Drops()
        regions: Sequence[Mapping[str, Any]] = self.regions.get(image["image_uid"], [])
        sample = self.rules.sample(image, regions, data, self.negatives, own, self.class_counts)
        self.drops.merge(own)
        if sample is None:
            return None, image_reason(own)
        return replace(sample, split=planned["split"], group=planned["group"]), None

    def _note(
        self,
        image: Mapping[str, Any],
        planned: Mapping[str, Any],
        sample: TrainingSample | None,
        reason: str | None,
    ) -> None:
        regions = () if sample is None else sample.regions
        self.rows.append(
            {
                "image_uid": image["image_uid"],
                "key": image["key"],
                "sha256": image["sha256"],
                "split": planned["split"],
                "group": planned["group"],
                "regions": len(regions),
                "regions_with_negatives": sum(region.negatives is not None for region in regions),
                "reason": reason,
            }
        )
        if sample is not None:
            self.counts.add(sample)
