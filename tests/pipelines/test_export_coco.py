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
from ovsops.masks.rle import mask_to_rle, rle_box_xywh, rle_from_coco, rle_to_mask
from ovsops.text.vocabulary import ClassSpec, Vocabulary
from pipelines.exporters.options import ExportOptions
from pipelines.exporters.report import ExportReport
from pipelines.exporters.run import export_run
from pipelines.storage import Storage, open_storage
from tests.pipelines.exporters.made_run import (
    HOSTILE,
    blob,
    failed,
    image,
    make_run,
    put_manifest,
    put_shard,
    region,
)

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


def export_coco(storage: Storage, out: Path, **options: Any) -> tuple[ExportReport, list[Path]]:
    """Report and COCO files of an export."""
    report = export_run(storage, out, ExportOptions(format="coco", **options))
    return report, sorted(path for path in out.glob("*.json") if path.name != "export.json")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    out = open_storage(str(tmp_path / "out"))
    put_manifest(out, VOCABULARY)
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
                sidecar=json.dumps({"author": "Ann", "credit": 7, "note": "no"}),
            ),
            image(1, "b/1", [region(blob(5, (24, 32)), 17, 0.5, caption_short=HOSTILE)], license=None),
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
    _, (path,) = export_coco(storage, tmp_path / "coco")
    coco = COCO(str(path))
    masks = parquet_masks(storage)
    assert len(coco.anns) == len(masks) == 4
    for annotation in coco.anns.values():
        np.testing.assert_array_equal(
            coco.annToMask(annotation).astype(bool), masks[annotation["instance_uid"]]
        )
    assert coco.getCatIds(catNms=["cat"]) == [17]
    assert coco.getCatIds(supNms=["animal"]) == [17]


def test_what_is_in_the_file(storage: Storage, tmp_path: Path) -> None:
    report, (path,) = export_coco(storage, tmp_path / "coco")
    document = json.loads(path.read_text(encoding="utf-8"))
    assert [(i["id"], i["file_name"], i["shard"], i.get("license")) for i in document["images"]] == [
        (1, "a/a/0", "a.tar", 1),
        (2, "a/猫/3", "a.tar", 1),
        (3, "b/b/0", "b.tar", 2),
        (4, "b/b/1", "b.tar", None),
    ]
    assert document["images"][0] | {"image_uid": ""} == {
        "id": 1,
        "file_name": "a/a/0",
        "width": 32,
        "height": 24,
        "shard": "a.tar",
        "key": "a/0",
        "sha256": "0" * 64,
        "image_uid": "",
        "license": 1,
    }
    assert document["images"][2]["coco_url"] == "https://x.org/1"
    assert document["images"][2]["attribution"] == {"author": "Ann"}
    assert [entry["name"] for entry in document["licenses"]] == ["CC-BY-4.0", "https://x.org/by"]
    assert [(a["id"], a["image_id"], a["category_id"], a["score"]) for a in document["annotations"]] == [
        (1, 1, 17, 0.9),
        (2, 1, 3, 0.7),
        (3, 3, 3, 0.25),
        (4, 4, 17, 0.5),
    ]
    assert document["annotations"][3]["caption_short"] == HOSTILE
    mask = blob(1, (24, 32))
    assert document["annotations"][0]["area"] == mask.sum()
    assert document["annotations"][0]["iscrowd"] == 0
    assert document["annotations"][0]["bbox"] == list(rle_box_xywh(mask_to_rle(mask)))
    assert [c["id"] for c in document["categories"]] == [17, 3]
    assert (report.shards, report.images, report.annotations) == (2, 4, 4)
    lost = {code: count for code, count in report.lost.items() if count}
    assert lost == {
        "images_failed": 1,
        "images_skipped": 1,
        "images_without_license": 1,
        "shards_gone": 2,
        "file_names_without_extension": 4,
    }


def test_file_names_are_those_of_the_files(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    report, (path,) = export_coco(run.storage, tmp_path / "coco")
    names = [i["file_name"] for i in json.loads(path.read_text(encoding="utf-8"))["images"]]
    assert names == ["a/x/0.jpg", "a/猫 =x.png", "b/x/0.webp", "a.b/one.jpg", "two.png"]
    assert len(set(names)) == 5  # x/0 is a key of both archives
    assert not report.lost["file_names_without_extension"]
    report, (path,) = export_coco(run.storage, tmp_path / "copied", images="copy")
    for entry in json.loads(path.read_text(encoding="utf-8"))["images"]:
        key = entry["key"] if entry["shard"] != "b.tar" else f"b:{entry['key']}"
        assert (tmp_path / "copied" / entry["file_name"]).read_bytes() == run.data[key]


def test_the_same_output_gives_the_same_bytes(storage: Storage, tmp_path: Path) -> None:
    first, second = (export_coco(storage, tmp_path / name)[1][0].read_bytes() for name in "xy")
    assert first == second


def test_files_of_shards_join_without_clashes(storage: Storage, tmp_path: Path) -> None:
    _, paths = export_coco(storage, tmp_path / "parts", merged=False)
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    whole = json.loads(export_coco(storage, tmp_path / "whole")[1][0].read_text(encoding="utf-8"))
    assert [path.name.split("-")[0] for path in paths] == ["a", "b"]
    for name in ("images", "annotations"):
        assert [record for part in parts for record in part[name]] == whole[name]
    for path in paths:
        COCO(str(path))


def test_polygons_fill_the_same_pixels(storage: Storage, tmp_path: Path) -> None:
    report, (path,) = export_coco(storage, tmp_path / "coco", segmentation="polygon")
    coco = COCO(str(path))
    masks = parquet_masks(storage)
    for annotation in coco.anns.values():
        assert isinstance(annotation["segmentation"][0], list)
        assert annotation["polygon_iou"] == 1
        np.testing.assert_array_equal(
            coco.annToMask(annotation).astype(bool), masks[annotation["instance_uid"]]
        )
    assert (report.lost["masks_changed"], report.mask_iou_min, report.masks_measured) == (0, 1.0, 4)


def test_simplified_polygons_say_what_they_cost(storage: Storage, tmp_path: Path) -> None:
    polygons = PolygonConfig(simplify_tolerance_px=2.0)
    report, (path,) = export_coco(storage, tmp_path / "coco", segmentation="polygon", polygons=polygons)
    ious = [a["polygon_iou"] for a in json.loads(path.read_text())["annotations"]]
    assert report.lost["masks_changed"] > 0
    assert report.mask_iou_min == pytest.approx(min(ious), abs=1e-6)
    assert 0.5 < report.mask_iou_min < 1
    assert any(line.startswith("IoU of 4 masks") for line in report.sentences())


def test_an_empty_mask_stays_rle_and_is_counted(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "out"))
    put_manifest(storage, VOCABULARY)
    put_shard(storage, "a.tar", [image(0, "x", [region(np.zeros((24, 32), bool), 17, 0.1)])])
    report, (path,) = export_coco(storage, tmp_path / "coco", segmentation="polygon")
    assert report.lost["masks_as_rle"] == 1
    assert COCO(str(path)).anns[1]["segmentation"]["size"] == [24, 32]


def test_a_required_licence_leaves_images_out_and_counts_them(storage: Storage, tmp_path: Path) -> None:
    report, (path,) = export_coco(storage, tmp_path / "coco", require_license=True)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert [i["key"] for i in document["images"]] == ["a/0", "猫/3", "b/0"]
    assert (report.images, report.lost["images_without_license"]) == (3, 1)
    assert report.lost["annotations_without_license"] == 1


def test_tables_without_a_commit_are_not_read(storage: Storage, tmp_path: Path) -> None:
    (path,) = (info.path for info in storage.list("images") if info.path.startswith("images/a-"))
    storage.put("images/stray-0.parquet", storage.read(path))
    report, _ = export_coco(storage, tmp_path / "coco")
    assert (report.images, report.lost["tables_ignored"]) == (4, 1)


def test_a_committed_shard_that_is_not_published_is_an_error(storage: Storage, tmp_path: Path) -> None:
    put_shard(storage, "c.tar", [image(0, "c", [])], publish=False)
    with pytest.raises(
        OutputError, match=r"shard c\.tar is committed, but this table is not there.*start the run again"
    ):
        export_coco(storage, tmp_path / "coco")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_table_changed_after_the_run_is_an_error(storage: Storage, tmp_path: Path) -> None:
    a, _ = (info.path for info in storage.list("instances"))
    data = pq.read_table(pa.BufferReader(storage.read(a))).slice(0, 1)
    sink = pa.BufferOutputStream()
    pq.write_table(data, sink)
    storage.put(a, sink.getvalue().to_pybytes())
    with pytest.raises(OutputError, match="1 rows, but 2 were committed"):
        export_coco(storage, tmp_path / "coco")


def test_regions_of_no_image_are_an_error(storage: Storage, tmp_path: Path) -> None:
    path = next(info.path for info in storage.list("instances"))
    table = pq.read_table(pa.BufferReader(storage.read(path)))
    column = table.schema.get_field_index("image_uid")
    sink = pa.BufferOutputStream()
    pq.write_table(table.set_column(column, "image_uid", pa.array(["no", "no"])), sink)
    storage.put(path, sink.getvalue().to_pybytes())
    with pytest.raises(OutputError, match="belongs to image no, which is no labelled row"):
        export_coco(storage, tmp_path / "coco")


def test_a_mask_of_another_size_is_an_error(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "out"))
    put_manifest(storage, VOCABULARY)
    put_shard(storage, "a.tar", [image(0, "x", [region(np.ones((32, 24), bool), 17, 0.1)])])
    with pytest.raises(OutputError, match=r"is 32x24 pixels \(h x w\), its image 24x32"):
        export_coco(storage, tmp_path / "coco")


def test_a_category_the_vocabulary_lost_is_an_error(storage: Storage, tmp_path: Path) -> None:
    put_manifest(storage, replace(VOCABULARY, classes=VOCABULARY.classes[1:]))
    with pytest.raises(
        OutputError, match=r"category 17, which the vocabulary zoo of run\.json does not have"
    ):
        export_coco(storage, tmp_path / "coco")


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"holds no run\.json"):
        export_coco(open_storage(str(tmp_path)), tmp_path / "coco")


def test_an_output_without_shards_gives_an_empty_file(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "out"))
    put_manifest(storage, VOCABULARY)
    report, (path,) = export_coco(storage, tmp_path / "coco")
    assert (report.shards, report.images) == (0, 0)
    assert json.loads(path.read_text())["images"] == []
