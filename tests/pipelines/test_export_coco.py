"""COCO export of real committed tables, read back with pycocotools."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools.coco import COCO

from ovsops.errors import OutputError
from ovsops.masks.polygons import PolygonConfig
from ovsops.masks.rle import mask_to_rle, rle_area, rle_box_xywh, rle_from_coco, rle_to_mask
from ovsops.text.vocabulary import ClassSpec, Vocabulary
from pipelines.export import export_coco
from pipelines.ledger import Commit, Ledger
from pipelines.parts import seal_records
from pipelines.rows import Closing
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import Shard
from pipelines.storage import Storage, open_storage

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # pycocotools 2.0.11

VOCABULARY = Vocabulary(
    name="zoo",
    languages=("en", "zh"),
    classes=(
        ClassSpec(id=17, name="cat", group="animal", prompts={"zh": ("猫",)}),
        ClassSpec(id=3, name="sky", kind="stuff"),
    ),
)


def blob(seed: int, size_hw: tuple[int, int]) -> np.ndarray:
    """A ragged mask with holes and parts that touch at corners."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.random((size_hw[0] // 4, size_hw[1] // 4)) < 0.6, np.ones((4, 4))).astype(bool)


def region(mask: np.ndarray, category_id: int, score: float) -> dict[str, Any]:
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
    }


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


def put_shard(storage: Storage, name: str, records: list[dict[str, Any]], *, publish: bool = True) -> Commit:
    shard = Shard(
        name=name,
        slug=name.removesuffix(".tar") + "-0123456789",
        url=f"/in/{name}",
        size=1,
        tag="1",
        kind="tar",
    )
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
        json.dumps({"schema_version": SCHEMA_VERSION, "vocabulary": vocabulary.to_mapping()}).encode(),
    )


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    out = open_storage(str(tmp_path / "out"))
    put_manifest(out)
    # Shards committed out of order, images and failures mixed.
    put_shard(
        out,
        "b.tar",
        [
            image(
                0,
                "b/0",
                [region(blob(4, (24, 32)), 3, 0.25)],
                license="https://x.org/by",
                source_url="https://x.org/1",
            ),
            image(1, "b/1", [region(blob(5, (24, 32)), 17, 0.5)], license=None),
        ],
    )
    put_shard(
        out,
        "a.tar",
        [
            image(0, "a/0", [region(blob(1, (24, 32)), 17, 0.9), region(blob(2, (24, 32)), 3, 0.7)]),
            failed(1, "a/1", "E_TRUNCATED"),
            failed(2, "a/2", "S_SMALL"),
            image(3, "猫/3", []),
        ],
    )
    return out


def parquet_masks(storage: Storage) -> dict[str, np.ndarray]:
    """Masks by instance uid, straight from the published tables."""
    masks = {}
    for info in storage.list("instances"):
        for row in pq.read_table(pa.BufferReader(storage.read(info.path))).to_pylist():
            masks[row["instance_uid"]] = rle_to_mask(rle_from_coco(row["segmentation"]))
    return masks


def test_pycocotools_loads_it_and_masks_are_equal_bit_for_bit(storage: Storage, tmp_path: Path) -> None:
    report = export_coco(storage, tmp_path / "coco")
    coco = COCO(str(report.files[0]))
    masks = parquet_masks(storage)
    assert len(coco.anns) == len(masks) == 4
    for annotation in coco.anns.values():
        np.testing.assert_array_equal(
            coco.annToMask(annotation).astype(bool), masks[annotation["instance_uid"]]
        )
    assert coco.getCatIds(catNms=["cat"]) == [17]
    assert coco.getCatIds(supNms=["animal"]) == [17]


def test_what_is_in_the_file(storage: Storage, tmp_path: Path) -> None:
    report = export_coco(storage, tmp_path)
    document = json.loads((tmp_path / "instances.json").read_text(encoding="utf-8"))
    assert [(i["id"], i["file_name"], i["shard"], i.get("license")) for i in document["images"]] == [
        (1, "a/0", "a.tar", 1),
        (2, "猫/3", "a.tar", 1),
        (3, "b/0", "b.tar", 2),
        (4, "b/1", "b.tar", None),
    ]
    assert document["images"][0] | {"image_uid": ""} == {
        "id": 1,
        "file_name": "a/0",
        "width": 32,
        "height": 24,
        "shard": "a.tar",
        "key": "a/0",
        "sha256": "0" * 64,
        "image_uid": "",
        "license": 1,
    }
    assert document["images"][2]["coco_url"] == "https://x.org/1"
    assert [entry["name"] for entry in document["licenses"]] == ["CC-BY-4.0", "https://x.org/by"]
    assert [(a["id"], a["image_id"], a["category_id"], a["score"]) for a in document["annotations"]] == [
        (1, 1, 17, 0.9),
        (2, 1, 3, 0.7),
        (3, 3, 3, 0.25),
        (4, 4, 17, 0.5),
    ]
    mask = blob(1, (24, 32))
    assert document["annotations"][0]["area"] == mask.sum()
    assert document["annotations"][0]["iscrowd"] == 0
    assert document["annotations"][0]["bbox"] == list(rle_box_xywh(mask_to_rle(mask)))
    assert [c["id"] for c in document["categories"]] == [17, 3]
    assert (report.shards, report.images, report.annotations) == (2, 4, 4)
    assert (report.images_failed, report.images_skipped, report.images_without_license) == (1, 1, 1)


def test_the_same_output_gives_the_same_bytes(storage: Storage, tmp_path: Path) -> None:
    first, second = (export_coco(storage, tmp_path / name).files[0].read_bytes() for name in "xy")
    assert first == second


def test_files_of_shards_join_without_clashes(storage: Storage, tmp_path: Path) -> None:
    report = export_coco(storage, tmp_path / "parts", merged=False)
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in report.files]
    whole = json.loads(export_coco(storage, tmp_path).files[0].read_text(encoding="utf-8"))
    assert [path.name.split("-")[0] for path in report.files] == ["a", "b"]
    for name in ("images", "annotations"):
        assert [record for part in parts for record in part[name]] == whole[name]
    for path in report.files:
        COCO(str(path))


def test_polygons_fill_the_same_pixels(storage: Storage, tmp_path: Path) -> None:
    report = export_coco(storage, tmp_path, segmentation="polygon")
    coco = COCO(str(report.files[0]))
    masks = parquet_masks(storage)
    for annotation in coco.anns.values():
        assert isinstance(annotation["segmentation"][0], list)
        assert annotation["polygon_iou"] == 1
        np.testing.assert_array_equal(
            coco.annToMask(annotation).astype(bool), masks[annotation["instance_uid"]]
        )
    assert (report.polygons_changed, report.polygons_min_iou) == (0, 1.0)


def test_simplified_polygons_say_what_they_cost(storage: Storage, tmp_path: Path) -> None:
    report = export_coco(
        storage, tmp_path, segmentation="polygon", polygons=PolygonConfig(simplify_tolerance_px=2.0)
    )
    ious = [a["polygon_iou"] for a in json.loads(report.files[0].read_text())["annotations"]]
    assert report.polygons_changed > 0
    assert report.polygons_min_iou == pytest.approx(min(ious), abs=1e-6)
    assert 0.5 < report.polygons_min_iou < 1


def test_an_empty_mask_stays_rle_and_is_counted(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "out"))
    put_manifest(storage)
    put_shard(storage, "a.tar", [image(0, "x", [region(np.zeros((24, 32), bool), 17, 0.1)])])
    report = export_coco(storage, tmp_path, segmentation="polygon")
    assert report.masks_without_polygon == 1
    assert COCO(str(report.files[0])).anns[1]["segmentation"]["size"] == [24, 32]


def test_a_required_licence_leaves_images_out_and_counts_them(storage: Storage, tmp_path: Path) -> None:
    report = export_coco(storage, tmp_path, require_license=True)
    document = json.loads(report.files[0].read_text(encoding="utf-8"))
    assert [i["key"] for i in document["images"]] == ["a/0", "猫/3", "b/0"]
    assert (report.images, report.images_without_license, report.annotations_left_out) == (3, 1, 1)


def test_tables_without_a_commit_are_not_read(storage: Storage, tmp_path: Path) -> None:
    (path,) = (info.path for info in storage.list("images") if "a-" in info.path)
    storage.put("images/stray-0.parquet", storage.read(path))
    report = export_coco(storage, tmp_path)
    assert (report.images, report.tables_ignored) == (4, 1)


def test_a_committed_shard_that_is_not_published_is_an_error(storage: Storage, tmp_path: Path) -> None:
    put_shard(storage, "c.tar", [image(0, "c", [])], publish=False)
    with pytest.raises(
        OutputError, match=r"shard c\.tar is committed, but this table is not there.*start the run again"
    ):
        export_coco(storage, tmp_path / "coco")
    assert list((tmp_path / "coco").iterdir()) == []


def test_a_table_changed_after_the_run_is_an_error(storage: Storage, tmp_path: Path) -> None:
    a, _ = (info.path for info in storage.list("instances"))
    data = pq.read_table(pa.BufferReader(storage.read(a))).slice(0, 1)
    sink = pa.BufferOutputStream()
    pq.write_table(data, sink)
    storage.put(a, sink.getvalue().to_pybytes())
    with pytest.raises(OutputError, match="1 rows, but 2 were committed"):
        export_coco(storage, tmp_path)


def test_a_category_the_vocabulary_lost_is_an_error(storage: Storage, tmp_path: Path) -> None:
    put_manifest(storage, replace(VOCABULARY, classes=VOCABULARY.classes[1:]))
    with pytest.raises(
        OutputError, match=r"category 17, which the vocabulary zoo of run\.json does not have"
    ):
        export_coco(storage, tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"holds no run\.json"):
        export_coco(open_storage(str(tmp_path)), tmp_path / "coco")


def test_an_output_without_shards_gives_an_empty_file(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "out"))
    put_manifest(storage)
    report = export_coco(storage, tmp_path)
    assert (report.shards, report.images) == (0, 0)
    assert json.loads(report.files[0].read_text())["images"] == []
