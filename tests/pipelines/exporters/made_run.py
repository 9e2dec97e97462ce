"""A small labelled run with real shards: two archives and a folder, hostile texts, masks of all shapes."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ovsops.masks.rle import mask_to_rle, rle_area, rle_box_xywh, rle_from_coco, rle_to_mask
from ovsops.text.vocabulary import ClassSpec, Vocabulary
from pipelines.exporters.format import IMAGE_COLUMNS, REGION_COLUMNS
from pipelines.ledger import Commit, Ledger
from pipelines.parts import seal_records
from pipelines.rows import Closing
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import Shard, shard_slug
from pipelines.storage import Storage, open_storage
from tests.pipelines.tars import make_tar

HOSTILE = (
    "=cmd|' /C calc'!A0 <script>alert(\"1\")</script>\nsecond line,\t\"quoted\" & 'so' ]]> 猫 \\n {{x}} %s"
)
VOCABULARY = Vocabulary(
    name='zoo "<1>"',
    languages=("en", "zh"),
    classes=(
        ClassSpec(id=17, name="cat", group="animal", prompts={"zh": ("猫",)}),
        ClassSpec(id=3, name="<sky> & \"co\", 'x': {y}", kind="stuff"),
        ClassSpec(id=5, name="=1+1"),
        ClassSpec(id=40, name="船"),
    ),
)


def blob(seed: int, size_hw: tuple[int, int]) -> np.ndarray:
    """A ragged mask with holes and parts that touch at corners."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.random((size_hw[0] // 4, size_hw[1] // 4)) < 0.6, np.ones((4, 4))).astype(bool)


def region(mask: np.ndarray, category_id: int, score: float, **changes: Any) -> dict[str, Any]:
    rle = mask_to_rle(mask)
    return {
        "category_id": category_id,
        "prompt": "cat",
        "language": "en",
        "bbox": list(rle_box_xywh(rle)),
        "segmentation": rle.to_coco(),
        "area": rle_area(rle),
        "score": score,
        "segmenter": "test",
        "reason_codes": [],
    } | changes


def image(index: int, key: str, regions: list[dict[str, Any]] | None, **columns: Any) -> dict[str, Any]:
    row = {
        "index": index,
        "key": key,
        "sha256": f"{index:064x}",
        "width": 32,
        "height": 24,
        "license": "CC-BY-4.0",
        "notes": [],
        "error_code": None,
        "regions": regions,
    }
    return row | columns


def failed(index: int, key: str, code: str) -> dict[str, Any]:
    return image(index, key, None, width=None, height=None, license=None, error_code=code)


def put_shard(
    storage: Storage,
    name: str,
    records: list[dict[str, Any]],
    *,
    publish: bool = True,
    url: str | None = None,
) -> Commit:
    shard = Shard(name=name, slug=shard_slug(name), url=url or f"/in/{name}", size=1, tag="1", kind="tar")
    closing = Closing(num_rows=len(records), complete=True)
    sealed = seal_records(storage, shard=shard.id, name=name, records=records, closing=closing, unique="run")
    commit = Commit.of(sealed, shard, run="run", recipe_hash="abc", seconds={})
    assert Ledger(storage).commit(commit)
    if publish:
        Ledger(storage).publish(commit)
    return commit


def put_manifest(storage: Storage, vocabulary: Vocabulary = VOCABULARY) -> None:
    storage.put(
        "run.json",
        json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "vocabulary": vocabulary.to_mapping(),
                "recipe_hash": "abcdef0123456789",
            }
        ).encode(),
    )


def picture(seed: int, kind: str, size_wh: tuple[int, int]) -> bytes:
    """A whole encoded image; different seeds give different bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@dataclass(frozen=True)
class MadeRun:
    """A run, and the truth about it."""

    storage: Storage
    inputs: Path
    data: Mapping[str, bytes]
    """Bytes of each labelled image by key."""
    vocabulary: Vocabulary = VOCABULARY
    names: Mapping[int, str] = field(default_factory=lambda: {c.id: c.name for c in VOCABULARY.classes})

    @property
    def images(self) -> dict[str, dict[str, Any]]:
        """Labelled rows by uid, straight from the published tables."""
        return {r["image_uid"]: r for r in self._rows("images") if r["status"] == "labelled"}

    @property
    def regions(self) -> dict[str, dict[str, Any]]:
        """Rows of `instances` by uid."""
        return {r["instance_uid"]: r for r in self._rows("instances")}

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Masks by instance uid."""
        return {uid: rle_to_mask(rle_from_coco(r["segmentation"])) for uid, r in self.regions.items()}

    def _rows(self, kind: str) -> list[dict[str, Any]]:
        columns = IMAGE_COLUMNS if kind == "images" else REGION_COLUMNS
        data = [self.storage.read(info.path) for info in self.storage.list(kind)]
        tables = [pq.read_table(pa.BufferReader(one), columns=columns) for one in data]
        return [row for table in tables for row in table.to_pylist()]


def shapes(size_wh: tuple[int, int]) -> list[np.ndarray]:
    """A rectangle, one pixel, a line, a ring, two parts, everything, ragged parts with holes."""
    width, height = size_wh
    masks = [np.zeros((height, width), bool) for _ in range(6)]
    masks[0][3:9, 5:20] = True
    masks[1][height - 1, width - 1] = True
    masks[2][2, 1 : width - 3] = True
    masks[3][4:16, 4:18] = True
    masks[3][7:11, 8:13] = False
    masks[4][1:5, 1:6] = masks[4][12:20, 15:25] = True
    masks[5][:] = True
    return [*masks, blob(7, (height - height % 4, width - width % 4))]


def make_run(folder: Path, vocabulary: Vocabulary = VOCABULARY, *, with_folder: bool = True) -> MadeRun:
    """`folder/out` labelled from `folder/in`: 2 archives, in which keys repeat, and a folder of images."""
    storage = open_storage(str(folder / "out"))
    put_manifest(storage, vocabulary)
    ids = vocabulary.ids
    data: dict[str, bytes] = {}
    inputs = folder / "in"
    (inputs / "photos" / "a.b").mkdir(parents=True)

    def labelled(
        index: int, key: str, encoded: bytes, size_wh: tuple[int, int], **columns: Any
    ) -> dict[str, Any]:
        data[key] = encoded
        masks = [m if m.shape == size_wh[::-1] else _padded(m, size_wh) for m in shapes(size_wh)]
        texts = {"caption_short": HOSTILE, "caption_long": None, "decision": "review", "verdict": "yes"}
        regions = [
            region(mask, ids[n % len(ids)], 0.9 - n / 16, score_calibrated=0.5, **texts)
            for n, mask in enumerate(masks)
        ]
        digest = hashlib.sha256(encoded).hexdigest()
        return image(index, key, regions, sha256=digest, width=size_wh[0], height=size_wh[1], **columns)

    def archive(name: str, members: Sequence[tuple[str, bytes]], records: list[dict[str, Any]]) -> None:
        (inputs / name).write_bytes(make_tar(members))
        put_shard(storage, name, records, url=str(inputs / name))

    jpeg, png, webp = (picture(n, kind, (33, 27)) for n, kind in enumerate(("JPEG", "PNG", "WEBP")))
    sidecar = json.dumps({"author": "A. <b>Name</b>", "caption": "no"})
    archive(
        "a.tar",
        [("x/0.jpg", jpeg), ("1.JPEG", b"broken"), ("猫 =x.png", png)],
        [
            labelled(
                0, "x/0", jpeg, (33, 27), source_url="https://x.org/0", sidecar=sidecar, caption_long=HOSTILE
            ),
            failed(1, "1", "E_TRUNCATED"),
            labelled(2, "猫 =x", png, (33, 27), license=None, verified_absent=[ids[0]], exif_orientation=1),
        ],
    )
    other = picture(9, "JPEG", (40, 28))
    archive(
        "b.tar",
        [("x/0.webp", webp), ("2.jpg", other)],
        [
            labelled(0, "x/0", webp, (33, 27), license="https://x.org/by"),
            failed(1, "2", "S_SMALL"),
        ],
    )
    data["b:x/0"], data["x/0"] = data["x/0"], jpeg
    if with_folder:
        for name in ("a.b/one.jpg", "two.png"):
            kind = "JPEG" if name.endswith("jpg") else "PNG"
            (inputs / "photos" / name).write_bytes(picture(20 + len(name), kind, (48, 32)))
        records = [
            labelled(n, key, (inputs / "photos" / name).read_bytes(), (48, 32))
            for n, (key, name) in enumerate((("a.b/one", "a.b/one.jpg"), ("two", "two.png")))
        ]
        put_shard(storage, "photos/folder-000000", records, url=str(inputs / "photos"))
    return MadeRun(storage, inputs, data, vocabulary, {c.id: c.name for c in vocabulary.classes})


def _padded(mask: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    whole = np.zeros(size_wh[::-1], bool)
    whole[: mask.shape[0], : mask.shape[1]] = mask
    return whole
