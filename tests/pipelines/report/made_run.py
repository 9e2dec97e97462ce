"""Outputs of the label job that no model made: rows drawn by numpy, as many as a test wants."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.ledger import Commit
from pipelines.parts import table_to_parquet
from pipelines.schemas import IMAGES, INSTANCES, SCHEMA_VERSION

_RLE = {"size": [32, 32], "counts": "PP1"}
"""Nothing but zeros: what is drawn is not of interest."""


def vocabulary(num_classes: int) -> dict[str, Any]:
    return {
        "name": "made",
        "languages": ["en", "zh"],
        "templates": {"en": ["a {}."], "zh": ["{}。"]},
        "classes": [
            {"id": i, "name": f"thing {i}", "prompts": {"en": [f"thing {i}"], "zh": [f"物体{i}"]}}
            for i in range(1, num_classes + 1)
        ],
    }


def manifest(num_classes: int = 5, **settings: Any) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": {"detector": None},
        "recipe_hash": "abc",
        "settings": {"limits": {"max_failed_share": 0.01}, "segment_on": {"actors": 1}, **settings},
        "vocabulary": vocabulary(num_classes),
        "versions": {"python": "3"},
        "checkpoints": {},
    }


def write_tables(
    out: Path, shard: str, images: pa.Table, instances: pa.Table, *, url: str = "", **changes: Any
) -> Commit:
    """One committed shard of these tables."""
    tables: dict[str, Mapping[str, Any]] = {}
    for kind, table in (("images", images), ("instances", instances)):
        data = table_to_parquet(table)
        path = out / kind / f"{shard}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        tables[kind] = {
            "sealed": f"_parts/{shard}/{kind}",
            "published": f"{kind}/{shard}.parquet",
            "sha256": hashlib.sha256(data).hexdigest(),
            "num_bytes": len(data),
            "num_rows": table.num_rows,
        }
    statuses = images.column("status").to_pylist()
    codes = [code for code in images.column("error_code").to_pylist() if code]
    fields = {
        "shard": shard,
        "name": f"{shard}.tar",
        "url": url or f"/nowhere/{shard}.tar",
        "size": 1,
        "tag": "t",
        "run": "made",
        "recipe_hash": "abc",
        "retry": 0,
        "read": images.num_rows,
        "labelled": statuses.count("labelled"),
        "skipped": statuses.count("skipped"),
        "failed": statuses.count("failed"),
        "codes": {code: codes.count(code) for code in sorted(set(codes))},
        "notes": {},
        "instances": instances.num_rows,
        "instances_per_class": {},
        "complete": True,
        "damage_code": "",
        "damage": "",
        "ignored": {},
        "sha256": "",
        "tables": tables,
        "seconds": {"segment_seconds": 1.0},
    }
    commit = Commit(**{**fields, **changes})
    (out / "commits").mkdir(parents=True, exist_ok=True)
    (out / commit.path).write_bytes(commit.to_bytes())
    return commit


def uids(prefix: str, count: int) -> list[str]:
    return [hashlib.blake2b(f"{prefix}/{i}".encode(), digest_size=16).hexdigest() for i in range(count)]


def image_rows(shard: str, count: int, **columns: Any) -> pa.Table:
    """Labelled images; keyword arguments replace columns."""
    plain = {
        "image_uid": uids(f"image {shard}", count),
        "shard": [f"{shard}.tar"] * count,
        "index": list(range(count)),
        "key": [f"{i:06d}" for i in range(count)],
        "sha256": ["0" * 64] * count,
        "width": [32] * count,
        "height": [32] * count,
        "notes": [[]] * count,
        "status": ["labelled"] * count,
    }
    return _table(IMAGES, plain | columns, count)


def region_rows(shard: str, image_uids: list[str], per_image: int, num_classes: int, seed: int) -> pa.Table:
    """Regions with drawn classes, scores, decisions, codes and rivals, as columns."""
    rng = np.random.default_rng(seed)
    count = len(image_uids) * per_image
    categories = (rng.pareto(1.2, count) * 2).astype(np.int32) % num_classes + 1
    scores = rng.beta(2, 2, count).astype(np.float32)
    is_doubted = rng.random(count) < 0.3
    ends = np.concatenate([[0], np.cumsum(is_doubted)]).astype(np.int32)
    rivals = pa.StructArray.from_arrays(
        [
            pa.array((categories[is_doubted] % num_classes + 1).astype(np.int32)),
            pa.array(scores[is_doubted] * 0.5),
        ],
        fields=list(INSTANCES.field("rivals").type.value_type),
    )
    places = pa.array(np.repeat(np.arange(len(image_uids)), per_image))
    segmentation = pa.array([_RLE], INSTANCES.field("segmentation").type).take(
        pa.array(np.zeros(count, np.int32))
    )
    boxes = pa.FixedSizeListArray.from_arrays(pa.array(np.tile(np.array([1, 2, 8, 8], np.float32), count)), 4)
    plain = {
        "instance_uid": uids(f"region {shard}", count),
        "image_uid": pa.array(image_uids).take(places),
        "category_id": categories,
        "bbox": boxes,
        "segmentation": segmentation,
        "area": np.full(count, 64),
        "score": scores,
        "score_calibrated": scores * 0.9,
        "rivals": pa.ListArray.from_arrays(pa.array(ends), rivals),
        "decision": pa.array(["accept", "review"]).take(pa.array(is_doubted.astype(np.int32))),
        "reason_codes": pa.ListArray.from_arrays(
            pa.array(ends), pa.array(["R_CONTESTED", "R_TINY"]).take(pa.array(categories[is_doubted] % 2))
        ),
    }
    return _table(INSTANCES, plain, count)


def _table(schema: pa.Schema, columns: Mapping[str, Any], count: int) -> pa.Table:
    """The columns with what else the schema requires left empty; a page reads columns by name."""
    chosen = [field for field in schema if field.name in columns or field.nullable]
    arrays = [
        pa.array(columns[f.name], f.type)
        if isinstance(columns.get(f.name), list | np.ndarray)
        else columns[f.name].cast(f.type)
        if f.name in columns
        else pa.nulls(count, f.type if not pa.types.is_struct(f.type) else pa.null())
        for f in chosen
    ]
    return pa.table(dict(zip([f.name for f in chosen], arrays, strict=True)))


def write_made_run(
    out: Path,
    *,
    num_shards: int = 2,
    images_per_shard: int = 50,
    regions_per_image: int = 4,
    num_classes: int = 5,
    **settings: Any,
) -> Path:
    """A finished run without pictures."""
    for number in range(num_shards):
        shard = f"shard-{number:06d}"
        images = image_rows(shard, images_per_shard)
        regions = region_rows(
            shard, images.column("image_uid").to_pylist(), regions_per_image, num_classes, seed=number
        )
        write_tables(out, shard, images, regions)
    write_manifest(out, num_classes, **settings)
    return out


def write_manifest(out: Path, num_classes: int = 5, **settings: Any) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps(manifest(num_classes, **settings)))
    (out / "summary.json").write_text(
        json.dumps({"state": "done", "over_limits": [], "shards": {"pending": 0}})
    )
