"""The mine job: pairs of things that look alike and are of different classes, over a whole label run.

per shard: images -> vectors of regions and images -> commit      (costs the model: done exactly once)
all shards: vectors -> nearest of other classes -> parts          (`mining`)
label run: names that lost in an exclusive group                  -> exclusive.parquet
parts, exclusive.parquet -> confusions.parquet, mined.json

    OUT/regions|images/SHARD.parquet   vectors, rows of `EMBEDDED`
    OUT/mined/region|image/*.parquet   pairs with their cosines, rows of `MINED`
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ovsops.errors import OutputError, RowError
from pipelines.embedding import EMBEDDED_KINDS, EmbedJob, EmbedStage, embedded_commits
from pipelines.labelled_shards import E_LABELS_CHANGED, LabelRun, read_committed
from pipelines.mining import (
    CONFUSIONS_FILE,
    EXCLUSIVE_FILE,
    EmbeddedFiles,
    Kind,
    MinedParts,
    MiningConfig,
    confusions_of,
    mine_exclusive,
    mine_files,
)
from pipelines.parts import table_to_parquet
from pipelines.runner import Engine, Placement
from pipelines.storage import Storage, StorageOptions, open_storage
from pipelines.units import SealedUnit, Unit, UnitCommit, UnitJob, UnitStage, row_totals

MINED_FILE = "mined.json"
"""Written last: every file of pairs with its rows and SHA-256."""
FOLDERS: Mapping[Kind, str] = {"region": "regions", "image": "images"}
"""Where the vectors of a kind lie."""
MOST_SHOWN = 20
"""Confused classes that the summary names."""


def mine_placement() -> Placement:
    """Mining needs no model: as many tasks as there are CPUs."""
    return Placement(actors=0, num_cpus=1.0, blocks_at_once=1)


@dataclass(frozen=True, kw_only=True)
class MineJob(UnitJob):
    """Everything that a mine run needs, resolved. Units are `embed_units`, or `stored_units` with `vectors`."""

    labels: LabelRun
    embed: EmbedJob | None = None
    """Makes the vectors, in this output and of these units; None: `vectors` holds them."""
    vectors: str | None = None
    """Output of an earlier mine run over the same labels, whose vectors are taken."""
    looks: tuple[Kind, ...] = ("region", "image")
    """Of what the nearest are looked for."""
    mining: MiningConfig = field(default_factory=MiningConfig)
    exclusive: bool = True
    """Whether names that lost in an exclusive group are pairs, too."""
    mine_on: Placement = field(default_factory=mine_placement)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Folders of vectors; none where another output holds them."""
        return () if self.embed is None else EMBEDDED_KINDS

    def begin(self, storage: Storage, engine: Engine) -> None:
        """Units share nothing."""

    def stage(self, storage: Storage, run: str) -> UnitStage:
        """Embeds, or looks whether the stored vectors are whole."""
        if self.embed is not None:
            return EmbedStage(self.embed, run)
        if self.vectors is None:
            raise AssertionError("neither embed nor vectors")
        return StoredStage(self.output, self.storage, run, vectors=self.vectors)

    def totals(self, commits: Sequence[UnitCommit]) -> dict[str, Any]:
        """Regions and images with vectors."""
        return {
            "regions": row_totals(commits, "embedded"),
            "images": sum(int(commit.counts["images"]) for commit in commits),
        }

    def end(
        self, storage: Storage, engine: Engine, commits: Sequence[UnitCommit]
    ) -> tuple[dict[str, Any], list[str]]:
        """Mine what is missing, then what all pairs say together."""
        written: dict[str, list[str]] = {}
        mined: dict[str, MinedParts] = {}
        for look in self.looks:
            files = self._files(look, commits)
            mined[look] = mine_files(
                files,
                storage,
                self.labels.vocabulary,
                self.mining,
                engine,
                kind=look,
                mine_on=self.mine_on,
            )
            written[look] = list(mined[look].paths)
        if self.exclusive:
            mine_exclusive(self.labels, storage)
            written["exclusive"] = [EXCLUSIVE_FILE]
        confusions = pa.concat_tables(confusions_of(storage, paths, look) for look, paths in written.items())
        storage.put(CONFUSIONS_FILE, table_to_parquet(confusions))
        rows = confusions.to_pylist()
        pairs = {look: sum(row["count"] for row in rows if row["kind"] == look) for look in written}
        files_of = [path for paths in written.values() for path in paths]
        record = {path: hashlib.sha256(storage.read(path)).hexdigest() for path in files_of}
        storage.put(MINED_FILE, (json.dumps({"files": record, "pairs": pairs}, indent=1) + "\n").encode())
        return {
            "pairs": pairs,
            "mined": {
                look: {"vectors": found.rows, "parts": len(found.paths), "parts_before": found.before}
                for look, found in mined.items()
            },
            "confusions": self._named(rows),
        }, []

    def _files(self, look: Kind, commits: Sequence[UnitCommit]) -> EmbeddedFiles:
        """The vectors of a kind, shard by shard."""
        if self.vectors is not None:
            stored = embedded_commits(open_storage(self.vectors, self.storage))
            commits = [stored[commit.shard] for commit in commits]
        tables = [commit.tables[FOLDERS[look]] for commit in commits]
        return EmbeddedFiles(
            url=self.vectors or self.output,
            options=self.storage,
            paths=tuple(table["published"] for table in tables),
            num_rows=tuple(table["num_rows"] for table in tables),
        )

    def _named(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The classes that are confused most, by their names; of each kind as many."""
        names = {spec.id: spec.name for spec in self.labels.vocabulary.classes}
        kinds = list(dict.fromkeys(row["kind"] for row in rows))
        return [
            {
                "kind": kind,
                "class": names[row["category_id"]],
                "other": names.get(row["other_category_id"], str(row["other_category_id"])),
                "count": row["count"],
                "mean_score": round(row["mean_score"], 6),
            }
            for kind in kinds
            for row in [row for row in rows if row["kind"] == kind][: MOST_SHOWN // len(kinds)]
        ]


def unmined(storage: Storage) -> list[str]:
    """Files of pairs that `mined.json` lists and that are not there, or other bytes."""
    listed = json.loads(storage.read(MINED_FILE))["files"]
    return [
        path
        for path, digest in listed.items()
        if not storage.exists(path) or hashlib.sha256(storage.read(path)).hexdigest() != digest
    ]


def stored_units(labels: LabelRun, vectors: str, options: StorageOptions) -> tuple[Unit, ...]:
    """A unit for each committed shard whose vectors are there. OutputError where some have none."""
    storage = open_storage(vectors, options)
    there = embedded_commits(storage)
    missing = [unit.name for unit in labels.shards if unit.id not in there]
    if missing:
        raise OutputError(
            f"{len(missing)} of {len(labels.shards)} labelled shards have no vectors in {storage.url}, the first one"
            f" {missing[0]}: run the recipe that made them again, it embeds what is missing; or leave `vectors` out"
        )
    return tuple(Unit(shard=unit, task=_stored_task(there[unit.id])) for unit in labels.shards)


def _stored_task(commit: UnitCommit) -> dict[str, Any]:
    return {
        "tables": {name: dict(table) for name, table in commit.tables.items()},
        "read": commit.read,
        "kept": commit.kept,
        "left_out": dict(commit.left_out),
        "counts": dict(commit.counts),
    }


class StoredStage(UnitStage):
    """Looks whether the vectors of a shard are those that were committed. Needs no model, writes nothing."""

    name = "stored"

    def __init__(self, output: str, options: StorageOptions, run: str, *, vectors: str) -> None:
        super().__init__(output, options, run)
        self.vectors = vectors

    def work(self, shard: str, name: str, task: Mapping[str, Any]) -> SealedUnit:
        """What was counted when they were made."""
        storage = open_storage(self.vectors, self.options)
        for table in task["tables"].values():
            if read_committed(storage, table, ["uid"]).num_rows != table["num_rows"]:
                raise RowError(
                    E_LABELS_CHANGED, f"{storage.url}/{table['published']}: other rows than committed"
                )
        return SealedUnit(
            tables={},
            read=task["read"],
            kept=task["kept"],
            left_out=task["left_out"],
            counts=task["counts"],
        )
