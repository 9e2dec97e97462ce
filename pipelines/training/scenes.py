"""Scenes from shards: decoded beside each other, put in one order, broken ones counted and named.

The order is that of the shards' names and of the samples in a shard, whatever Ray does to blocks, so that a
step meets the same scenes in every start. Axes: h w pixels.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ovsops.errors import RowError
from ovsops.images.decode import DecodeConfig, decode_image
from ovsops.miniature.truth import SceneTruth, read_truth
from ovsops.training.scenes import SceneBank, bank_of_truths
from pipelines.readers import ReaderConfig
from pipelines.rows import Closing
from pipelines.runner import Engine, Placement, Step
from pipelines.shards import Shard
from pipelines.stage import Stage

logger = logging.getLogger(__name__)

MAX_NAMED = 200
"""Broken scenes that the summary names; all are counted."""

SCENE_ROW = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("pixels", pa.large_binary()),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("truth", pa.large_string()),
        pa.field("error_code", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("closing", pa.string()),
    ]
)
"""A scene on its way to a worker: `pixels` uint8 [h w 3], `truth` the JSON as it was written."""


class SceneStage(Stage):
    """Pixels and checked truth of each sample. A row that fails keeps its key and gets `error_*`."""

    name = "scenes"

    def __init__(self, decode: DecodeConfig) -> None:
        self.decode = decode

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One row out for each row in."""
        yield pa.Table.from_pylist([self._row(row) for row in batch.to_pylist()], schema=SCENE_ROW)

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: row[name] for name in SCENE_ROW.names if name in row}
        if row["closing"] is not None or row["error_code"] is not None:
            return kept
        try:
            pixels = decode_image(row["image"], self.decode).pixels
            truth = row["sidecar"]
            if truth is None:
                raise RowError("E_TRUTH", f"no usable JSON beside the image {row['notes'] or ''}".rstrip())
            check_size(pixels, read_truth(truth))
        except RowError as error:
            return kept | {"error_code": error.code, "error_message": str(error)}
        height, width, _ = pixels.shape
        return kept | {"pixels": pixels.tobytes(), "height": height, "width": width, "truth": truth}


def check_size(pixels: np.ndarray, truth: SceneTruth) -> None:
    """A truth is of its picture. Raises RowError E_TRUTH."""
    if truth.size_hw != pixels.shape[:2]:
        raise RowError("E_TRUTH", f"the truth is of {truth.size_hw} (h w), the picture of {pixels.shape[:2]}")


@dataclass(frozen=True, kw_only=True)
class SceneRows:
    """What was read."""

    table: pa.Table
    """Whole scenes of one size, in order."""
    num_read: int
    num_shards: int
    failures: tuple[Mapping[str, str], ...] = ()
    """Shard, key, code and message of each broken scene."""
    damaged: Mapping[str, str] = field(default_factory=dict)
    failed_shards: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """SHA-256 over the scenes in order: what was learned from."""
        digest = hashlib.sha256()
        for image, truth in zip(
            self.table.column("sha256").to_pylist(), self.table.column("truth").to_pylist(), strict=True
        ):
            digest.update(f"{image}\0{truth}\0".encode())
        return digest.hexdigest()

    def totals(self) -> dict[str, int]:
        """Counts, by the names that `pipelines.summary.over_limits` asks for."""
        return {"read": self.num_read, "used": self.table.num_rows, "failed": len(self.failures)}

    def told(self) -> dict[str, Any]:
        """For the summary."""
        return self.totals() | {
            "shards": self.num_shards,
            "failures_by_code": dict(sorted(Counter(f["code"] for f in self.failures).items())),
            "failures": [dict(failure) for failure in self.failures[:MAX_NAMED]],
            "failures_not_named": max(0, len(self.failures) - MAX_NAMED),
            "damaged_shards": dict(self.damaged),
            "failed_shards": dict(self.failed_shards),
            "ignored_members": dict(sorted(self.ignored.items())),
        }


def read_scenes(
    engine: Engine, shards: Sequence[Shard], reader: ReaderConfig, decode: DecodeConfig
) -> SceneRows:
    """Every scene of the shards, sorted by shard and place."""
    step = Step(stages=(SceneStage(decode),), placement=Placement(num_cpus=1.0))
    tables = list(engine.tables(shards, reader, [step]))
    place = {shard.id: number for number, shard in enumerate(shards)}
    name = {shard.id: shard.name for shard in shards}
    whole = pa.concat_tables(tables)
    order = pa.array([place[shard] for shard in whole.column("shard").to_pylist()], pa.int32())
    whole = whole.append_column("place", order)
    whole = whole.sort_by([("place", "ascending"), ("index", "ascending")]).drop_columns(["place"])

    closings = {
        row["shard"]: Closing.from_json(row["closing"])
        for row in whole.select(["shard", "closing"]).filter(pc.field("closing").is_valid()).to_pylist()
    }
    missing = [name[shard] for shard in name if shard not in closings]
    if missing:
        raise AssertionError(f"the stream ended, but these shards did not: {missing[:10]}")
    unread = {s: f"{c.failed_code}: {c.failed}" for s, c in closings.items() if c.failed_code}
    is_scene = pc.field("closing").is_null() & ~pc.field("shard").isin(pa.array(list(unread), pa.string()))
    scenes = whole.filter(is_scene)
    good, failures = _of_one_size(scenes)
    for failure in failures:
        failure["shard"] = name[failure["shard"]]
        logger.warning("%(shard)s: %(key)s is left out: %(code)s: %(message)s", failure)
    return SceneRows(
        table=good,
        num_read=scenes.num_rows,
        num_shards=len(shards),
        failures=tuple(failures),
        damaged={
            name[s]: f"{c.damage_code}: {c.damage}"
            for s, c in closings.items()
            if not c.complete and s not in unread
        },
        failed_shards={name[s]: message for s, message in unread.items()},
        ignored=sum((Counter(c.ignored) for c in closings.values()), Counter()),
    )


def _of_one_size(scenes: pa.Table) -> tuple[pa.Table, list[dict[str, str]]]:
    """The whole scenes of the size that most have, and what is wrong with the others."""
    told = scenes.select(["shard", "key", "height", "width", "error_code", "error_message"]).to_pylist()
    sizes = Counter((row["height"], row["width"]) for row in told if not row["error_code"])
    size = max(sizes, key=lambda one: sizes[one], default=None)
    failures, keep = [], []
    for row in told:
        code, message = row["error_code"], row["error_message"]
        if not code and (row["height"], row["width"]) != size:
            code = "E_SCENE_SIZE"
            message = f"{row['height']}x{row['width']} pixels (h x w), most scenes have {size}"
        keep.append(not code)
        if code:
            failures.append(
                {"shard": row["shard"], "key": row["key"] or "", "code": code, "message": message or ""}
            )
    return scenes.filter(pa.array(keep, pa.bool_())), failures


def bank_of_rows(table: pa.Table) -> SceneBank:
    """Rows of whole scenes as tensors. Raises TrainingError when there is none."""
    return bank_of_truths(_scenes(table))


def _scenes(table: pa.Table) -> Iterator[tuple[np.ndarray, SceneTruth]]:
    columns = [table.column(name) for name in ("pixels", "height", "width", "truth")]
    for place in range(table.num_rows):
        data, height, width, truth = (column[place] for column in columns)
        pixels = np.frombuffer(data.as_buffer(), np.uint8).reshape(height.as_py(), width.as_py(), 3)
        yield pixels.copy(), read_truth(truth.as_py())
