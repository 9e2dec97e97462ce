"""A labelled run of drawn scenes whose masks are their truth, with hostile words in its rows, and its page."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ovsops.images.decode import decode_image
from ovsops.masks.rle import mask_to_rle
from ovsops.miniature.scene import draw_scene
from pipelines.report.run_page import run_page
from pipelines.report.run_report import ReportConfig, RunReport, gather
from pipelines.storage import StorageOptions, open_storage
from pipelines.writers.finehard_parquet import REGION
from tests.pipelines.report.made_run import image_rows, uids, write_tables
from tests.tiny.shards import encode, write_tar
from tests.tiny.world import SEEDS, SMALL, label_world, write_world

HOSTILE = (
    '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">',
    "\u202eturned \u2067around\u200f and <b>bold</b> &amp; 'quoted' \"twice\"",
    "long " * 20_000,
    "]]> --> <!-- \u2028 \u2029 {text} ${window.hacked = 3} %s \x00",
)
SECRET = "https://bucket.s3.amazonaws.com/a.jpg?X-Amz-Credential=AKIAABCDEFGHIJKLMNOP&X-Amz-Signature=0123456789abcdef"
_COLOURS = ("blue", "green", "grey", "pink", "gold", "lime", "teal", "navy", "plum", "rust")
BIG_HW = (700, 1000)
BIG_BOX = (250, 175, 750, 525)
"""Of the mask of the large photo: x1 y1 x2 y2."""
TALL_HW = (640, 360)
TALL_BOX = (90, 480, 270, 620)
"""Of the mask of the portrait photo, in its lower part."""


@dataclass(frozen=True)
class MadePage:
    """A run, its page, and the truth of its scenes by key."""

    out: Path
    page: Path
    text: str
    report: RunReport
    truth: dict[str, np.ndarray]
    """Map of class ids by key."""


def with_column(path: Path, name: str, values: list[Any]) -> None:
    table = pq.read_table(path)
    place = table.schema.get_field_index(name)
    pq.write_table(table.set_column(place, name, pa.array(values, table.schema.field(name).type)), path)


def grey_photo(hw: tuple[int, int], box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A grey photo, and a mask that fills a box of it."""
    mask = np.zeros(hw, bool)
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = True
    return np.full((*hw, 3), 128, np.uint8), mask


def add_photos(folder: Path, out: Path) -> None:
    """More shards of the run, a photo with one region of class 2 each: larger than the page shows it, portrait, and
    one whose shard is gone.
    """
    add_photo(folder, out, "big", BIG_HW, BIG_BOX)
    add_photo(folder, out, "tall", TALL_HW, TALL_BOX, reason_codes=["R_TINY"])
    add_photo(folder, out, "gone", BIG_HW, BIG_BOX)
    (folder / "gone.tar").unlink()


def add_photo(
    folder: Path, out: Path, shard: str, hw: tuple[int, int], box: tuple[int, int, int, int], **changes: Any
) -> None:
    """One more shard of the run: a photo with one region of class 2."""
    pixels, mask = grey_photo(hw, box)
    data = encode(pixels)
    tar = write_tar(folder / f"{shard}.tar", [(f"{shard}.jpg", data)])
    x1, y1, x2, y2 = box
    images = image_rows(
        shard, 1, key=[shard], sha256=[hashlib.sha256(data).hexdigest()], width=[hw[1]], height=[hw[0]]
    )
    region = {
        "instance_uid": uids(f"region {shard}", 1)[0],
        "image_uid": images.column("image_uid")[0].as_py(),
        "category_id": 2,
        "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
        "segmentation": {"size": list(hw), "counts": mask_to_rle(mask).counts},
        "area": int(mask.sum()),
        "score": 0.25,
        "score_calibrated": None,
        "verdict": None,
        "caption_short": None,
        "caption_long": None,
        "rivals": [{"category_id": 3, "score": 0.2}],
        "decision": "review",
        "reason_codes": ["R_CONTESTED"],
    } | changes
    whole = pq.read_table(next((out / "instances").glob("world*.parquet"))).schema
    fields = [whole.field(name) for name in region]
    write_tables(out, shard, images, pa.Table.from_pylist([region], pa.schema(fields)), url=str(tar))


def write_negatives(folder: Path, region_uid: str, recipe_hash: str) -> None:
    """A training set of these labels with negatives of one region, with the columns that a page reads."""
    region = {
        "region_uid": region_uid,
        "bbox": [0.0, 0.0, 1.0, 1.0],
        "score": 1.0,
        "category_id": 1,
        "category": "ball",
        "short_expr": "a red ball",
        "long_expr": "",
        "flag_short_neg": 1,
        "short_expr_negs": [
            f"a {colour} ball" for colour in "blue green grey pink gold lime teal navy plum rust".split()
        ],
        "neg_types": ["colour"] * 10,
        "neg_scores": [],
        "segmentation": None,
    }
    folder.mkdir()
    table = pa.table(
        {"short_caption": ["x"], "regions": pa.array([[region]], pa.list_(REGION))},
    )
    pq.write_table(table, folder / "train-00000.parquet")
    manifest = {"recipe": {"made_of": {"labels_recipe_hash": recipe_hash}}}
    (folder / "run.json").write_text(json.dumps(manifest))


def make_page(folder: Path) -> MadePage:
    write_world(folder / "in")
    out = folder / "run"
    label_world(folder / "in", out, lambda truth: truth)
    add_photos(folder, out)
    path = sorted((out / "images").glob("world*.parquet"))[0]
    number = pq.read_table(path).num_rows
    with_column(path, "caption_short", [HOSTILE[i % len(HOSTILE)] for i in range(number)])
    with_column(path, "caption_long", [SECRET] * number)
    path = sorted((out / "instances").glob("world*.parquet"))[0]
    table = pq.read_table(path)
    with_column(path, "caption_short", [HOSTILE[i % len(HOSTILE)] for i in range(table.num_rows)])
    with_column(path, "caption_long", [SECRET] * table.num_rows)
    recipe_hash = json.loads((out / "run.json").read_text())["recipe_hash"]
    write_negatives(folder / "training_set", table.column("instance_uid")[0].as_py(), recipe_hash)
    storage = open_storage(str(out))
    report = gather(storage, ReportConfig(), StorageOptions())
    text = run_page(report)
    page = folder / "report.html"
    page.write_text(text, "utf-8")
    scenes = [draw_scene(seed, SMALL) for seed in SEEDS]
    by_hash = {
        hashlib.sha256(np.ascontiguousarray(scene.image).tobytes()).hexdigest(): scene for scene in scenes
    }
    truth = {}
    for image in report.gallery.images:
        pixels = (
            decode_image(image.picture.webp).pixels if image.picture.webp else np.zeros((1, 1, 3), np.uint8)
        )
        found = by_hash.get(hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest())
        if found is not None:
            truth[image.row["key"]] = found.semantic
    return MadePage(out, page, text, report, truth)
