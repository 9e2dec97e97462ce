"""What each format holds, read back without the programs they are for: by json, XML, tar, `datasets`, `webdataset`."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from ovsops.errors import ConfigError
from ovsops.masks.rle import rle_from_coco, rle_to_mask
from pipelines.exporters.cvat import row_runs
from pipelines.exporters.format import FORMATS, FormatName
from pipelines.exporters.labelstudio_rle import mask_to_brush_rle
from pipelines.exporters.options import ExportOptions
from pipelines.exporters.run import export_run
from pipelines.exporters.xml_text import xml_text
from pipelines.exporters.yolo import class_indexes
from pipelines.exporters.yolo_polygon import draw_polygon, mask_to_yolo_polygon
from tests.pipelines.exporters.made_run import HOSTILE, MadeRun, blob, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(run: MadeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All formats, each in a folder of its name."""
    folder = tmp_path_factory.mktemp("exported")
    for name in FORMATS:
        export_run(run.storage, folder / name, ExportOptions(format=name))
    return folder


def document(exported: Path, name: FormatName) -> dict[str, Any]:
    return json.loads((exported / name / "export.json").read_text("utf-8"))


def decode_brush(code: list[int]) -> np.ndarray:
    """Label Studio's run-length code by its description, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in code)
    place = 0

    def take(size: int) -> int:
        nonlocal place
        place += size
        return int(bits[place - size : place], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_run, length = take(1), take(sizes[take(2)]) + 1
        values += [take(word)] * length if is_run else [take(word) for _ in range(length)]
    return np.array(values)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (24, 32), (150, 200)])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_brush_codes_hold_the_mask(size_hw: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(3).random(size_hw) < share
    values = decode_brush(mask_to_brush_rle(mask)).reshape(*size_hw, 4)
    for channel in range(4):
        np.testing.assert_array_equal(values[:, :, channel], np.where(mask, 255, 0))


def test_a_brush_code_worked_out_by_hand() -> None:
    """8 values, words of 8 bits, lengths of 3, 4, 8 or 16 bits; runs of 4 zeros and 4 times 255."""
    head = "0" * 28 + "1000" + "00111" + "0010" + "0011" + "0111" + "1111"
    runs = "1" + "00" + "011" + "00000000" + "1" + "00" + "011" + "11111111"
    bits = (head + runs).ljust(88, "0")
    expected = [int(bits[place : place + 8], 2) for place in range(0, 88, 8)]
    assert mask_to_brush_rle(np.array([[False, True]])) == expected


def test_runs_of_cvat() -> None:
    assert row_runs(np.array([[True, True, False], [False, True, True]])) == [0, 2, 2, 2]
    assert row_runs(np.array([[False, True]])) == [1, 1]
    assert row_runs(np.ones((2, 2), bool)) == [0, 4]


@pytest.mark.parametrize("seed", range(40))
def test_polygons_of_one_part_without_holes_lose_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((20, 24), bool)
    y, x = 10, 12
    for _ in range(60):  # a walk with its neighbours, holes filled row by row below
        mask[y, x] = True
        y, x = np.clip(
            [y, x] + rng.integers(-1, 2, 2) * [1, 0] if rng.random() < 0.5 else [y, x + 1 - 2 * (seed % 2)],
            0,
            [19, 23],
        )
    mask = np.array(
        [
            np.arange(24) >= 24
            if not row.any()
            else (np.arange(24) >= row.argmax()) & (np.arange(24) <= 23 - row[::-1].argmax())
            for row in mask
        ]
    )
    polygon = mask_to_yolo_polygon(mask)
    assert polygon is not None
    assert polygon.num_holes == 0
    if polygon.num_parts == 1:
        assert polygon.iou == 1.0
        np.testing.assert_array_equal(draw_polygon(polygon.corners, (20, 24)), mask)


def test_polygons_are_honest_about_parts_and_holes() -> None:
    ring = np.zeros((12, 12), bool)
    ring[2:10, 2:10] = True
    ring[5:7, 5:7] = False
    polygon = mask_to_yolo_polygon(ring)
    assert polygon is not None
    assert (polygon.num_parts, polygon.num_holes, polygon.iou) == (
        1,
        1,
        1.0,
    )  # the line to the hole lies in the mask
    two = np.zeros((5, 12), bool)
    two[1:4, 1:4] = two[1:4, 8:11] = True
    polygon = mask_to_yolo_polygon(two)
    assert polygon is not None
    assert (polygon.num_parts, polygon.num_holes) == (2, 0)
    assert polygon.iou == 18 / 22  # a line of 4 pixels between them
    assert mask_to_yolo_polygon(np.zeros((3, 3), bool)) is None


@pytest.mark.parametrize("seed", range(10))
def test_the_measured_iou_is_that_of_what_is_drawn(seed: int) -> None:
    mask = blob(seed, (40, 60))
    polygon = mask_to_yolo_polygon(mask)
    assert polygon is not None
    drawn = draw_polygon(polygon.corners, (40, 60))
    assert polygon.iou == (drawn & mask).sum() / (drawn | mask).sum()
    assert (drawn | ~mask).all()  # pixels of the mask are never lost
    assert polygon.iou > 0.85


def test_masks_of_thousands_of_parts_keep_the_largest() -> None:
    mask = np.zeros((130, 130), bool)
    mask[1:129:4, 1:129:4] = True  # 1,024 pixels far from each other
    mask[1:3, 1:3] = True
    polygon = mask_to_yolo_polygon(mask)
    assert polygon is not None
    assert polygon.num_parts == 1024
    drawn = draw_polygon(polygon.corners, (130, 130))
    assert drawn[1:3, 1:3].all()
    assert 300 < (drawn & mask).sum() < 1027
    assert polygon.iou == (drawn & mask).sum() / (drawn | mask).sum()


def test_yolo_is_drawn_back_from_its_files(run: MadeRun, exported: Path) -> None:
    folder = exported / "yolo-seg"
    data = yaml.safe_load((folder / "data.yaml").read_text("utf-8"))
    assert data["names"] | {i - 1: n for i, n in run.names.items()} == data["names"]
    assert sorted(data["names"]) == list(range(40))
    assert data["names"][0] == "unused-1"
    beside = [json.loads(line) for line in (folder / "images.jsonl").read_text("utf-8").splitlines()]
    masks, ious = run.masks, []
    for line in beside:
        with Image.open(folder / line["file_name"]) as picture:
            width, height = picture.size
        label = folder / "labels" / "train" / f"{Path(line['file_name']).stem}.txt"
        regions = [r for r in run.regions.values() if r["image_uid"] == line["image_uid"]]
        for text, region in zip(label.read_text("ascii").splitlines(), regions, strict=True):
            index, *shares = text.split()
            assert int(index) == region["category_id"] - 1
            points = np.array(shares, float).reshape(-1, 2) * [width, height]
            np.testing.assert_array_equal(np.round(points), np.floor(points))  # rounding or cutting: the same
            drawn, truth = draw_polygon(points.astype(int), (height, width)), masks[region["instance_uid"]]
            ious.append((drawn & truth).sum() / (drawn | truth).sum())
    polygons = document(exported, "yolo-seg")["polygons"]
    assert polygons == {"masks": 35, "mean_iou": round(np.mean(ious), 6), "min_iou": round(min(ious), 6)}
    assert polygons["min_iou"] < 1 < 35


def test_ids_that_yolo_cannot_count_through_are_refused(tmp_path: Path) -> None:
    assert class_indexes((17, 3)) == {3: 2, 17: 16}
    with pytest.raises(ConfigError, match=r"category id 10001 would be index 10000.*Export coco"):
        class_indexes((3, 10_001))


def test_licences_and_attribution_survive(run: MadeRun, exported: Path) -> None:
    """In the format, or beside it."""
    truth = {uid: (r["license"], r["source_url"]) for uid, r in run.images.items()}
    author = next(uid for uid, (_, url) in truth.items() if url == "https://x.org/0")

    def check(found: dict[str, dict[str, Any]]) -> None:
        assert {uid: (f.get("license"), f.get("source_url")) for uid, f in found.items()} == truth
        assert found[author]["attribution"] == {"author": "A. <b>Name</b>"}
        assert found[author]["caption_long"] == HOSTILE

    for name in ("yolo-seg", "cvat"):
        lines = (exported / name / "images.jsonl").read_text("utf-8").splitlines()
        check({entry["image_uid"]: entry for entry in map(json.loads, lines)})
    tasks = json.loads((exported / "labelstudio" / "tasks-00000.json").read_text("utf-8"))
    check({task["data"]["image_uid"]: task["data"] for task in tasks})
    coco = json.loads((exported / "coco" / "instances.json").read_text("utf-8"))
    licenses = {entry["id"]: entry["name"] for entry in coco["licenses"]}
    check(
        {
            i["image_uid"]: i | {"license": licenses.get(i.get("license")), "source_url": i.get("coco_url")}
            for i in coco["images"]
        }
    )


def test_cvat_is_xml_whatever_the_captions_say(run: MadeRun, exported: Path) -> None:
    root = ElementTree.parse(exported / "cvat" / "annotations.xml").getroot()
    assert [label.findtext("name") for label in root.iter("label")] == list(run.names.values())
    masks, seen = run.masks, 0
    for image in root.iter("image"):
        assert (exported / "cvat" / "images" / image.attrib["name"]).is_file()
        for mask in image.iter("mask"):
            values = {a.attrib["name"]: a.text or "" for a in mask.iter("attribute")}
            left, top, width, height = (int(mask.attrib[n]) for n in ("left", "top", "width", "height"))
            runs = [int(text) for text in mask.attrib["rle"].split(",")]
            drawn = np.zeros((int(image.attrib["height"]), int(image.attrib["width"])), bool)
            crop = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
            drawn[top : top + height, left : left + width] = crop
            np.testing.assert_array_equal(drawn, masks[values["instance_uid"]])
            region = run.regions[values["instance_uid"]]
            assert mask.attrib["label"] == run.names[region["category_id"]]
            assert values["category_id"] == str(region["category_id"])
            assert values["caption_short"] == HOSTILE
            seen += 1
    assert seen == len(masks)


def test_characters_that_xml_cannot_hold_are_counted() -> None:
    assert xml_text("a\x00b\x1f\ufffe\n猫\U0001f600") == ("a\ufffdb\ufffd\ufffd\n猫\U0001f600", 3)


def test_label_studio_holds_masks_boxes_and_ids(run: MadeRun, exported: Path) -> None:
    config = ElementTree.parse(exported / "labelstudio" / "label_config.xml").getroot()
    for tag in ("BrushLabels", "RectangleLabels"):
        labels = {int(e.attrib["category"]): e.attrib["value"] for e in config.find(tag) or []}
        assert labels == dict(run.names)
    masks, seen = run.masks, 0
    for task in json.loads((exported / "labelstudio" / "tasks-00000.json").read_text("utf-8")):
        for result in task["predictions"][0]["result"]:
            height, width = result["original_height"], result["original_width"]
            if result["type"] == "rectanglelabels":
                x, y, w, h = run.regions[result["id"].removesuffix("-box")]["bbox"]
                box = result["value"]
                assert [box["x"] * width / 100, box["width"] * width / 100] == pytest.approx([x, w], abs=1e-4)
                assert [box["y"] * height / 100, box["height"] * height / 100] == pytest.approx(
                    [y, h], abs=1e-4
                )
                continue
            drawn = decode_brush(result["value"]["rle"]).reshape(height, width, 4)[:, :, 3] == 255
            np.testing.assert_array_equal(drawn, masks[result["id"]])
            assert result["meta"]["category_id"] == run.regions[result["id"]]["category_id"]
            assert result["meta"]["caption_short"] == HOSTILE
            seen += 1
    assert seen == len(masks)


def test_webdataset_opens_its_archives(run: MadeRun, exported: Path) -> None:
    import webdataset

    paths = sorted(str(path) for path in (exported / "webdataset").glob("*.tar"))
    assert len(paths) == 3
    masks, seen = run.masks, set()
    for sample in webdataset.WebDataset(paths, shardshuffle=False):
        sidecar = json.loads(sample["json"])
        row = run.images[sample["__key__"]]
        assert sidecar["image_uid"] == sample["__key__"]
        (data,) = (sample[name] for name in ("jpg", "png", "webp") if name in sample)
        assert data == run.data[f"b:{row['key']}" if row["shard"] == "b.tar" else row["key"]]
        assert sidecar.get("license") == row["license"]
        for region in sidecar["regions"]:
            drawn = rle_to_mask(rle_from_coco(region["segmentation"]))
            np.testing.assert_array_equal(drawn, masks[region["instance_uid"]])
            assert region["category_id"] == run.regions[region["instance_uid"]]["category_id"]
            assert region["category"] == run.names[region["category_id"]]
            assert region["caption_short"] == HOSTILE
            seen.add(region["instance_uid"])
    assert seen == set(masks)


def test_members_of_archives_stay_where_they_are_put(exported: Path) -> None:
    for path in (exported / "webdataset").glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                assert "/" not in member.name
                assert (member.mtime, member.uid, member.uname) == (0, 0, "")


def test_datasets_opens_the_folder(run: MadeRun, exported: Path, tmp_path: Path) -> None:
    import datasets

    found = datasets.load_dataset(str(exported / "hf"), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.num_rows == len(run.images)
    masks, seen = run.masks, set()
    raw = found.cast_column("image", datasets.Image(decode=False))
    for row, undecoded in zip(found, raw, strict=True):
        truth = run.images[row["image_uid"]]
        data = undecoded["image"]["bytes"]
        assert data == run.data[f"b:{row['key']}" if row["shard"] == "b.tar" else row["key"]]
        with Image.open(io.BytesIO(data)) as picture:
            assert row["image"].size == picture.size == (truth["width"], truth["height"])
        assert (row["license"], row["source_url"]) == (truth["license"], truth["source_url"])
        for region in row["regions"]:
            np.testing.assert_array_equal(
                rle_to_mask(rle_from_coco(region["segmentation"])), masks[region["instance_uid"]]
            )
            assert region["category_id"] == run.regions[region["instance_uid"]]["category_id"]
            assert region["caption_short"] == HOSTILE
            seen.add(region["instance_uid"])
    assert seen == set(masks)
    card = (exported / "hf" / "README.md").read_text("utf-8")
    assert "<sky>" not in card.split("---", 2)[2]
    assert "| 17 | cat | 10 |" in card
    assert "1 of 5 images came without a licence" in card


def test_every_format_says_what_it_cannot_hold(exported: Path) -> None:
    for name in get_args(FormatName):
        found = document(exported, name)
        lost = {code: entry["count"] for code, entry in found["lost"].items()}
        assert (found["format"], found["images"], found["annotations"]) == (name, 5, 35)
        assert {"images_failed": 1, "images_skipped": 1, "images_without_license": 1}.items() <= lost.items()
        assert all(entry["meaning"] for entry in found["lost"].values())
    lost = {code: entry["count"] for code, entry in document(exported, "yolo-seg")["lost"].items()}
    assert lost["scores"] == lost["captions"] == 35
    assert (lost["licenses"], lost["sources"], lost["verified_absent"], lost["image_captions"]) == (
        4,
        1,
        1,
        1,
    )
    assert (lost["masks_of_parts"], lost["masks_with_holes"], lost["names_of_gaps"]) == (10, 10, 36)
