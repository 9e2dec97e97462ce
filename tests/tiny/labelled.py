"""Outputs of the label job without a model: shards of small pictures, and what a label run would say of them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ovsops.images.phash import picture_hash
from ovsops.masks.rle import mask_to_rle
from ovsops.text.vocabulary import load_vocabulary
from pipelines.labelled_shards import LabelRun, open_label_run
from pipelines.ledger import Commit, Ledger
from pipelines.parts import seal_records
from pipelines.records import segmentation_record
from pipelines.rows import ENCODED_ROW, Closing
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import Shard, expand_inputs
from pipelines.storage import StorageOptions, open_storage
from tests.tiny.shards import encode, write_tar

WORLD = Path(__file__).parents[2] / "ovsops" / "text" / "data" / "world.yaml"
COLOURS = {"red": "红色", "green": "绿色", "blue": "蓝色", "black": "黑色", "white": "白色", "yellow": "黄色"}
THINGS = {"ball": "球", "box": "盒子", "key": "钥匙", "star": "星星", "ring": "戒指", "fish": "鱼"}
WIDTH, HEIGHT = 96, 64


def picture(number: int) -> np.ndarray:
    """Blocks of colours that differ from those of other numbers enough for every hash."""
    blocks = np.random.default_rng(number).integers(0, 256, (8, 12, 3), np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


@dataclass(frozen=True, kw_only=True)
class TinyImage:
    """One picture of a shard, and what is said of it."""

    number: int
    """Pictures of one number have the same bytes."""
    key: str
    language: str = "en"
    caption: str | None = ""
    """None: the image has no caption."""
    things: tuple[tuple[str, str], ...] = (("red", "ball"), ("green", "key"))
    """Colour and class of each region; an empty colour leaves its caption out."""
    error_code: str | None = None
    quality: int = 92
    """Another quality gives other bytes of a picture that looks the same."""
    license: str | None = "CC0"
    waiting: tuple[int, ...] = ()
    """Places of regions that wait for a person."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Columns of the image's row to be something else."""

    @property
    def data(self) -> bytes:
        return encode(picture(self.number), quality=self.quality)


def some_images(shard: int, count: int = 6) -> list[TinyImage]:
    """Pictures in both languages; the last one failed, and one region has no caption."""
    colours, things = list(COLOURS), list(THINGS)
    images = []
    for i in range(count):
        number = 100 * shard + i
        pairs = [(colours[(number + k) % 6], things[(number * 2 + 3 * k) % 6]) for k in range(3)]
        if i == 1:
            pairs[2] = ("", pairs[2][1])
        images.append(
            TinyImage(
                number=number,
                key=f"{number:06d}",
                language="zh" if i % 3 == 2 else "en",
                things=tuple(pairs),
                error_code="E_CORRUPT" if i == count - 1 else None,
            )
        )
    return images


def phrase(colour: str, thing: str, language: str) -> str | None:
    """What a region is called."""
    if not colour:
        return None
    return f"{COLOURS[colour]}的{THINGS[thing]}" if language == "zh" else f"a {colour} {thing}"


def write_source(folder: Path, shards: Sequence[Sequence[TinyImage]]) -> list[Shard]:
    """The archives, `shard-000.tar` and so on."""
    for number, images in enumerate(shards):
        members = [(f"{image.key}.jpg", image.data) for image in images]
        write_tar(folder / f"shard-{number:03d}.tar", members)
    return expand_inputs([str(folder)], StorageOptions())


def label(out: Path, source: Path, shards: Sequence[Sequence[TinyImage]]) -> LabelRun:
    """Archives in `source`, and in `out` what a label run leaves: tables, records, manifest."""
    vocabulary = load_vocabulary(WORLD)
    ids = {spec.name: spec.id for spec in vocabulary.classes}
    storage = open_storage(str(out))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "recipe": {
            "vocabulary": vocabulary.to_mapping(),
            "segmenter": {k: {"sha256": "0" * 64} for k in ("siglip", "dino", "mapper")},
        },
        "recipe_hash": "abc",
        "settings": {
            "job": "label",
            "input": {"shards": [str(source)]},
            "output": str(out),
            "segmenter": {k: {"source": f"nowhere/{k}"} for k in ("siglip", "dino", "mapper")},
        },
        "vocabulary": vocabulary.to_mapping(),
    }
    storage.put("run.json", json.dumps(manifest).encode())
    ledger = Ledger(storage)
    todo = ledger.pending(write_source(source, shards), StorageOptions())
    for shard, images in zip(expand_inputs([str(source)], StorageOptions()), shards, strict=True):
        if shard.id not in {each.id for each in todo.shards}:
            continue
        data = Path(shard.url).read_bytes()
        closing = Closing(
            num_rows=len(images),
            complete=True,
            sha256=hashlib.sha256(data).hexdigest(),
            num_bytes=len(data),
        )
        records = [_record(shard, index, image, ids) for index, image in enumerate(images)]
        sealed = seal_records(
            storage, shard=shard.id, name=shard.name, records=records, closing=closing, unique="made"
        )
        commit = Commit.of(
            sealed, shard, run="made", recipe_hash="abc", replaces=todo.replaces[shard.id], seconds={}
        )
        ledger.commit(commit)
        ledger.publish(commit)
    return open_label_run(str(out), StorageOptions())


def _record(shard: Shard, index: int, image: TinyImage, ids: dict[str, int]) -> dict[str, Any]:
    record: dict[str, Any] = dict.fromkeys(ENCODED_ROW.names)
    hashes = picture_hash(picture(image.number))
    caption = "桌上有东西" if image.language == "zh" else "some things on a table"
    record |= {
        "shard": shard.id,
        "index": index,
        "key": image.key,
        "sha256": hashlib.sha256(image.data).hexdigest(),
        "license": image.license,
        "notes": [],
        "error_code": image.error_code,
    }
    if image.error_code is None:
        record |= {
            "width": WIDTH,
            "height": HEIGHT,
            "exif_orientation": 1,
            "num_frames": 1,
            "hash_difference": hashes.difference if hashes else None,
            "hash_frequency": hashes.frequency if hashes else None,
            "caption_short": caption if image.caption == "" else image.caption,
            "regions": [
                _region(place, thing, phrase(colour, thing, image.language), ids)
                | ({"decision": "review"} if place in image.waiting else {})
                for place, (colour, thing) in enumerate(image.things)
            ],
        }
    return record | image.changes


def _region(place: int, thing: str, caption: str | None, ids: dict[str, int]) -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:40, 4 + 26 * place : 28 + 26 * place] = True
    return {
        "category_id": ids[thing],
        "prompt": thing,
        "language": "en",
        "bbox": [4.0 + 26 * place, 10.0, 24.0, 30.0],
        "segmentation": segmentation_record(mask_to_rle(mask)),
        "area": int(mask.sum()),
        "score": 0.9 - 0.1 * place,
        "caption_short": caption,
        "rivals": [],
        "decision": "accept",
        "reason_codes": [],
    }
