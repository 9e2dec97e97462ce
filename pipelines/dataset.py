"""The dataset job: a label run, its negatives and the bytes of its images become training sets in several formats.

plan (labels alone: what is kept, groups, splits, balance) -> per shard: stream images -> files -> commit
-> index, card, validator

Images are read once and never encoded again. Groups and splits are of the set as a whole, so they are decided first and
kept in the output (`pipelines.dataset_plan`).
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ovsops.errors import ConfigError, OutputError
from ovsops.text.vocabulary import Vocabulary
from pipelines.dataset_plan import (
    Plan,
    SetRules,
    ShardTables,
    known_splits,
    look_at_shard,
    make_plan,
)
from pipelines.dataset_stage import SAMPLES, DatasetStage, SetFiles
from pipelines.dataset_writers import FORMATS, FormatName
from pipelines.labelled_shards import LabelRun, source_tasks
from pipelines.readers import ReaderConfig
from pipelines.runner import Engine
from pipelines.shards import Shard
from pipelines.storage import Storage, StorageOptions, local_path, open_storage
from pipelines.training_sets.counts import SetCounts
from pipelines.training_sets.drops import Drops
from pipelines.unit_tools import gather, published_sizes
from pipelines.units import Unit, UnitCommit, UnitJob, UnitStage, row_totals
from pipelines.validation.validate import validate_set
from pipelines.writers.card import dataset_card
from pipelines.writers.coco import coco_categories
from pipelines.writers.whole_files import DEFAULT_FILE_BYTES, WrittenFile, write_index, write_whole

logger = logging.getLogger(__name__)

CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class SetConfig:
    """What is written, and how it is looked at afterwards."""

    name: str = "training set"
    """Title of the cards."""
    formats: tuple[FormatName, ...] = ("finehard-json",)
    max_file_bytes: int = DEFAULT_FILE_BYTES
    """The next file of a split begins after so many."""
    check_images: Literal["none", "there", "whole"] = "there"
    """Whether the validator opens images: not at all, their first bytes, or decoded, with their SHA-256."""

    def __post_init__(self) -> None:
        if not self.formats or len(set(self.formats)) < len(self.formats):
            raise ConfigError(f"formats: name one or more of {', '.join(FORMATS)}, each once")
        if self.max_file_bytes < 1:
            raise ConfigError(f"max_file_bytes is {self.max_file_bytes}: give 1 or more")


@dataclass(frozen=True, kw_only=True)
class DatasetJob(UnitJob):
    """Everything a dataset run needs, resolved. `output` is a folder that all workers share."""

    rules: SetRules
    set: SetConfig
    vocabulary: Vocabulary
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    """As the label run read its shards."""
    keep_splits_of: str | None = None
    """Output of an earlier dataset job whose images stay in their splits."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """A table that says what became of every image; the sets' own files are in the commit records."""
        return (SAMPLES,)

    def begin(self, storage: Storage, engine: Engine) -> None:
        """Plan the set, once for an output."""
        wanted = {unit.shard.id: _negatives_sha256(unit.task) for unit in self.units}
        plan = Plan.read(storage)
        if plan is None:
            known = None
            if self.keep_splits_of is not None:
                known = known_splits(open_storage(self.keep_splits_of, self.storage))
            plan = make_plan(storage, self._looked_at(engine), self.rules, known=known)
        plan.check(storage, wanted)

    def _looked_at(self, engine: Engine) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
        calls = [{"where": _tables_of(unit.task, self.storage), "rules": self.rules} for unit in self.units]
        for unit, rows in zip(self.units, gather(engine, look_at_shard, calls), strict=True):
            yield unit.shard.id, _negatives_sha256(unit.task), rows

    def stage(self, storage: Storage, run: str) -> UnitStage:
        """Streams shards."""
        plan = Plan.read(storage)
        assert plan is not None  # `begin` made it
        return DatasetStage(
            self.output,
            self.storage,
            run,
            rules=self.rules,
            files=SetFiles(
                formats=self.set.formats,
                max_file_bytes=self.set.max_file_bytes,
                coco={
                    "categories": coco_categories(self.vocabulary),
                    "info": {"description": self.set.name, "recipe": self.manifest.get("recipe_hash", "")},
                },
            ),
            plan=plan,
            reader=self.reader,
        )

    def totals(self, commits: Sequence[UnitCommit]) -> dict[str, Any]:
        """Images and regions, and what was left out."""
        counts, drops = self._counted(commits)
        return {
            "images": row_totals(commits, "kept"),
            "set": counts.to_plain(),
            "left_out": drops.to_plain(),
        }

    def _counted(self, commits: Sequence[UnitCommit]) -> tuple[SetCounts, Drops]:
        counts, drops = SetCounts(), Drops()
        for commit in commits:
            counts.merge(SetCounts.from_plain(commit.counts["set"]))
            drops.merge(Drops.from_plain(commit.counts["drops"]))
        return counts, drops

    def end(
        self, storage: Storage, engine: Engine, commits: Sequence[UnitCommit]
    ) -> tuple[dict[str, Any], list[str]]:
        """Index and card of each set, then the validator's word on it."""
        self._check_files(storage, commits)
        root = local_path(self.output)
        counts, drops = self._counted(commits)
        for name in self.set.formats:
            files = [WrittenFile(**file) for commit in commits for file in commit.counts["files"][name]]
            write_index(
                root / name,
                name,
                files,
                {"recipe_hash": self.manifest.get("recipe_hash", ""), "counts": counts.to_plain()},
            )
            card = dataset_card(
                counts,
                drops,
                name=self.set.name,
                provenance=self._provenance(),
                made=self._made(counts),
                format_name=name,
            )
            write_whole(root / name / CARD, card.encode())
        calls = [
            {"path": str(root / name), "format_name": name, "images": self.set.check_images}
            for name in self.set.formats
            if counts.images
        ]
        reports = list(gather(engine, validated, calls))
        over = [
            f"{report['format']}: the set breaks {len(report['broken'])} rules of its contract"
            f" ({', '.join(report['broken'])}); `ovsops validate-set {report['path']}` says where"
            for report in reports
            if not report["valid"]
        ]
        if not counts.images:
            over.append("no image is left: nothing was written; `left_out` says why")
        return {"sets": {report["format"]: report for report in reports}}, over

    def _check_files(self, storage: Storage, commits: Sequence[UnitCommit]) -> None:
        """Raise OutputError where files that were committed are gone."""
        there = published_sizes(storage, commits)
        broken = [
            f"commits/{commit.shard}.json"
            for commit in commits
            if any(
                there.get(table["published"]) != table["num_bytes"]
                for key, table in commit.tables.items()
                if key != SAMPLES
            )
        ]
        if broken:
            raise OutputError(
                f"{storage.url}: files of {len(broken)} committed shards are gone or were changed; delete their records"
                f" and run again, they are made anew: {', '.join(broken[:5])}"
            )

    def _provenance(self) -> dict[str, Any]:
        wanted = ("recipe_hash", "recipe", "checkpoints", "lexicons")
        return {name: self.manifest[name] for name in wanted if name in self.manifest}

    def _made(self, counts: SetCounts) -> list[str]:
        duplicates = self.rules.duplicates
        looks = (
            "by their bytes alone"
            if duplicates.max_bits is None
            else "by their bytes, and by two perceptual hashes that may differ in"
            f" {duplicates.max_bits} bits of 64 each"
        )
        fate = "are left out" if duplicates.drop_near else "stay, in one split"
        return [
            "Images were labelled by the models that stand below under `checkpoints`.",
            _who_made_negatives(counts),
            f"Copies of images were found {looks}; equal bytes are kept once, images that look alike {fate}.",
            "Splits were drawn by a hash of each group of copies.",
            "Images are the bytes that came in; nothing was encoded again.",
        ]


def dataset_units(
    labels: LabelRun,
    sources: Sequence[Shard],
    *,
    negatives: str | None,
    negatives_by_unit: Mapping[str, UnitCommit],
) -> tuple[Unit, ...]:
    """A unit for every committed shard. `sources` are the shards that the label run's inputs name now.

    Raises OutputError where the negatives are not those of these labels.
    """
    missing = [] if negatives is None else [s.name for s in labels.shards if s.id not in negatives_by_unit]
    if missing:
        raise OutputError(
            f"{negatives}: {len(missing)} of {len(labels.commits)} labelled shards have no negatives, or such of other"
            f" labels (the first: {', '.join(missing[:3])}): run the negatives job again, it makes what is missing"
        )
    units = []
    next_ids = [1, 1]
    tasks = zip(labels.commits, labels.shards, source_tasks(labels, sources), strict=True)
    for commit, unit, task in tasks:
        table = None if negatives is None else negatives_by_unit[unit.id].tables["negatives"]
        task |= {"labels": labels.url, "negatives": negatives, "negatives_table": table}
        units.append(Unit(shard=unit, task=task | {"first_ids": list(next_ids)}))
        next_ids = [next_ids[0] + commit.read, next_ids[1] + commit.instances]
    return tuple(units)


def _who_made_negatives(counts: SetCounts) -> str:
    if not counts.negative_sources:
        return "Negatives were made of the regions' captions by rules, without a look at the image."
    by_model, by_rule = counts.negative_sources["llm"], counts.negative_sources["rule"]
    return (
        f"Negatives were made of the regions' captions: {by_model:,} by a language model, {by_rule:,} by rules, without"
        " a look at the image."
    )


def _tables_of(task: Mapping[str, Any], options: StorageOptions) -> ShardTables:
    return ShardTables(
        labels=task["labels"],
        tables=task["tables"],
        negatives=task["negatives"],
        negatives_table=task["negatives_table"],
        options=options,
    )


def _negatives_sha256(task: Mapping[str, Any]) -> str:
    table = task["negatives_table"]
    return "" if table is None else str(table["sha256"])


def validated(
    path: str, format_name: FormatName, images: Literal["none", "there", "whole"]
) -> dict[str, Any]:
    """What the validator found, in short."""
    report = validate_set(Path(path), format_name, images=images)
    return {
        "path": path,
        "format": format_name,
        "valid": report.is_valid,
        "files": report.files,
        "images": report.images,
        "regions": report.regions,
        "regions_with_negatives": report.regions_with_negatives,
        "splits": dict(report.splits),
        "broken": {rule: count for rule, count in report.broken.items() if count},
        "examples": {rule: [vars(example) for example in some] for rule, some in report.examples.items()},
        "not_checked": report.not_checked,
    }


def unread_shards(units: Sequence[Unit]) -> list[str]:
    """Names of units whose images cannot be found any more."""
    return [unit.shard.name for unit in units if unit.task["shard"] is None]
