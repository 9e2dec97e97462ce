"""Labelled runs written without any model: tables, commits, manifest and summary of labels that a test makes up."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ovsops.masks.rle import mask_to_rle
from pipelines.ledger import Commit, Ledger
from pipelines.manifest import claim_output
from pipelines.parts import seal_records
from pipelines.rows import ENCODED_ROW, Closing
from pipelines.schemas import REGION, SCHEMA_VERSION
from pipelines.shards import Shard
from pipelines.storage import open_storage

SIDE = 64
NAMES = ("cat", "dog", "sky")
VOCABULARY = {
    "name": "made",
    "languages": ["en"],
    "templates": {"en": ["a {}."]},
    "classes": [
        {"id": 1, "name": "cat"},
        {"id": 2, "name": "dog"},
        {"id": 3, "name": "sky", "kind": "stuff"},
    ],
}


@dataclass(frozen=True)
class Made:
    """One label: a rectangle."""

    category: int
    box: tuple[int, int, int, int] = (8, 8, 24, 24)
    """x0 y0 x1 y1, pixels."""
    score: float = 0.75
    decision: str = "accept"
    fields: dict[str, Any] = field(default_factory=dict)

    def region(self) -> dict[str, Any]:
        mask = np.zeros((SIDE, SIDE), bool)
        x0, y0, x1, y1 = self.box
        mask[y0:y1, x0:x1] = True
        known = {
            "category_id": self.category,
            "prompt": NAMES[self.category - 1],
            "language": "en",
            "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
            "segmentation": mask_to_rle(mask).to_coco(),
            "area": int(mask.sum()),
            "score": self.score,
            "decision": self.decision,
            "rivals": [],
            "reason_codes": [],
        }
        return {each.name: None for each in REGION} | known | self.fields


@dataclass(frozen=True)
class Picture:
    """One image of a shard; `content` is what makes it the same in two runs."""

    content: str
    labels: tuple[Made, ...] = ()
    error: str | None = None
    key: str | None = None


def write_run(
    folder: Path,
    shards: Mapping[str, Sequence[Picture]],
    *,
    vocabulary: dict[str, Any] | None = None,
    recipe: dict[str, Any] | None = None,
    checkpoints: dict[str, str] | None = None,
    versions: dict[str, str] | None = None,
    ended: float = 1_000_000.0,
) -> Path:
    """Write a run of these shards, as `run_label` leaves it."""
    storage = open_storage(str(folder))
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "vocabulary": vocabulary or VOCABULARY,
        "recipe": {"threshold": 0.5} | (recipe or {}),
        "recipe_hash": hashlib.sha256(json.dumps(recipe or {}).encode()).hexdigest(),
        "checkpoints": checkpoints or {"mapper": "local sha256:" + "a" * 64},
        "versions": versions or {"ovsops": "0.1.0"},
        "settings": {"output": str(folder), "input": {"shards": []}, "job": "label"},
    }
    claim_output(storage, manifest)
    ledger = Ledger(storage)
    for name, pictures in shards.items():
        content = hashlib.sha256("\n".join(picture.content for picture in pictures).encode()).hexdigest()
        shard = Shard(
            url=str(folder / name),
            name=name,
            slug=name.replace(".", "-"),
            kind="tar",
            size=len(pictures),
            tag=content[:8],
        )
        closing = Closing(num_rows=len(pictures), complete=True, sha256=content)
        records = [_record(shard.id, n, picture) for n, picture in enumerate(pictures)]
        sealed = seal_records(
            storage, shard=shard.id, name=name, records=records, closing=closing, unique="made"
        )
        commit = Commit.of(sealed, shard, run="made", recipe_hash=manifest["recipe_hash"], seconds={})
        assert ledger.commit(commit)
        ledger.publish(commit)
    storage.prune("_parts")
    summary = {"state": "done", "this_run": {"started_unix": ended - 10, "seconds": 10}}
    storage.put("summary.json", json.dumps(summary).encode())
    return folder


def _record(shard: str, index: int, picture: Picture) -> dict[str, Any]:
    known = {
        "shard": shard,
        "index": index,
        "key": picture.key or f"k{picture.content}",
        "sha256": None if picture.error else hashlib.sha256(picture.content.encode()).hexdigest(),
        "width": None if picture.error else SIDE,
        "height": None if picture.error else SIDE,
        "notes": [],
        "error_code": picture.error,
        "regions": None if picture.error else [label.region() for label in picture.labels],
    }
    return {each.name: None for each in ENCODED_ROW} | known
