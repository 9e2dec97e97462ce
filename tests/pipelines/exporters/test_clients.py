"""Every export opened by the program it is for; one that is not installed is skipped (`pip install .[exporters]`)."""

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.exporters.options import ExportOptions
from pipelines.exporters.run import export_run
from tests.pipelines.exporters.made_run import HOSTILE, MadeRun, make_run

pytestmark = pytest.mark.filterwarnings("ignore")  # of programs that are not ours


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    return make_run(tmp_path_factory.mktemp("run"))


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def lines_of(run: MadeRun, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Regions that YOLO holds, in order, by the stem of the image."""
    beside = [json.loads(line) for line in (folder / "images.jsonl").read_text("utf-8").splitlines()]
    regions = list(run.regions.values())
    return {
        Path(line["file_name"]).stem: [r for r in regions if r["image_uid"] == line["image_uid"]]
        for line in beside
    }


def test_supervision_opens_yolo(run: MadeRun, tmp_path: Path) -> None:
    supervision = import_module("supervision")
    report = export_run(run.storage, tmp_path / "yolo", ExportOptions(format="yolo-seg"))
    folder = tmp_path / "yolo"
    found = supervision.DetectionDataset.from_yolo(
        str(folder / "images" / "train"), str(folder / "labels" / "train"), str(folder / "data.yaml")
    )
    assert [found.classes[class_id - 1] for class_id in run.names] == list(run.names.values())
    expected, masks = lines_of(run, folder), run.masks
    assert {Path(path).stem for path, _, _ in found} == set(expected)
    ious = []
    for path, pixels, detections in found:
        regions = expected[Path(path).stem]
        assert pixels.shape[:2] == masks[regions[0]["instance_uid"]].shape
        assert [found.classes[n] for n in detections.class_id] == [
            run.names[r["category_id"]] for r in regions
        ]
        for mask, region in zip(detections.mask, regions, strict=True):
            truth = masks[region["instance_uid"]]
            ious.append(iou(mask, truth))
            if truth.all() or region["score"] > 0.7:  # no holes, one part: nothing is lost
                np.testing.assert_array_equal(mask, truth)
    assert np.mean(ious) == pytest.approx(report.mask_iou_sum / report.masks_measured, abs=1e-9)
    assert min(ious) == pytest.approx(report.mask_iou_min, abs=1e-9)


def test_opencv_fills_polygons_as_measured() -> None:
    cv2 = pytest.importorskip("cv2")
    from pipelines.exporters.yolo_polygon import mask_to_yolo_polygon

    for seed in range(200):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(1, 60, 2)
        mask = rng.random((height, width)) < rng.choice([0.1, 0.5, 0.9])
        if (polygon := mask_to_yolo_polygon(mask)) is not None:
            canvas = np.zeros(mask.shape, np.uint8)
            cv2.fillPoly(canvas, [polygon.corners.astype(np.int32)], 1)
            assert iou(canvas.astype(bool), mask) == pytest.approx(polygon.iou, abs=0.02)


def test_label_studio_reads_tasks_brushes_and_config(run: MadeRun, tmp_path: Path) -> None:
    pytest.importorskip("label_studio_sdk")
    from label_studio_sdk.converter.brush import decode_rle
    from label_studio_sdk.label_interface import LabelInterface

    export_run(run.storage, tmp_path / "ls", ExportOptions(format="labelstudio", max_tasks=2))
    config = LabelInterface((tmp_path / "ls" / "label_config.xml").read_text("utf-8"))
    config.validate()
    assert set(config.get_control("mask").labels) == set(run.names.values())
    categories = {name: tag.attr["category"] for name, tag in config.get_control("mask").labels_attrs.items()}
    assert categories == {name: str(category_id) for category_id, name in run.names.items()}
    paths = sorted((tmp_path / "ls").glob("tasks-*.json"))
    assert len(paths) == 3
    masks, seen = run.masks, 0
    for task in (task for path in paths for task in json.loads(path.read_text("utf-8"))):
        assert task["data"]["image"].startswith("/data/local-files/?d=images/")
        (prediction,) = task["predictions"]
        assert config.validate_prediction(prediction), config.validate_prediction(
            prediction, return_errors=True
        )
        for result in prediction["result"]:
            if result["type"] == "brushlabels":
                size = result["original_height"], result["original_width"], 4
                alpha = decode_rle(result["value"]["rle"]).reshape(size)[:, :, 3]
                np.testing.assert_array_equal(alpha == 255, masks[result["id"]])
                region = run.regions[result["id"]]
                assert result["value"]["brushlabels"] == [run.names[region["category_id"]]]
                assert result["meta"]["category_id"] == region["category_id"]
                assert result["meta"]["text"] == [HOSTILE]
                seen += 1
    assert seen == len(masks)


def test_datumaro_opens_cvat(run: MadeRun, tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro")
    export_run(run.storage, tmp_path / "cvat", ExportOptions(format="cvat"))
    found = datumaro.Dataset.import_from(str(tmp_path / "cvat"), "cvat")
    labels = found.categories()[datumaro.AnnotationType.label]
    masks, seen = run.masks, 0
    for item in found:
        for annotation in item.annotations:
            region = run.regions[annotation.attributes["instance_uid"]]
            np.testing.assert_array_equal(annotation.image.astype(bool), masks[region["instance_uid"]])
            assert labels[annotation.label].name == run.names[region["category_id"]]
            assert annotation.attributes["category_id"] == str(region["category_id"])
            assert annotation.attributes["caption_short"] == HOSTILE
            seen += 1
    assert seen == len(masks)


def test_datumaro_opens_coco(run: MadeRun, tmp_path: Path) -> None:
    """It wants annotations in a folder of that name."""
    datumaro = pytest.importorskip("datumaro")
    export_run(run.storage, tmp_path / "coco", ExportOptions(format="coco", images="copy"))
    path = tmp_path / "coco" / "annotations" / "instances_default.json"
    path.parent.mkdir()
    (tmp_path / "coco" / "instances.json").rename(path)
    uids = {a["id"]: a["instance_uid"] for a in json.loads(path.read_text("utf-8"))["annotations"]}
    found = datumaro.Dataset.import_from(str(path), "coco_instances")
    masks = run.masks
    drawn = [a for item in found for a in item.annotations if a.type == datumaro.AnnotationType.mask]
    assert {uids[annotation.id] for annotation in drawn} == set(masks)
    for annotation in drawn:
        np.testing.assert_array_equal(annotation.image.astype(bool), masks[uids[annotation.id]])


def test_supervision_opens_coco(run: MadeRun, tmp_path: Path) -> None:
    supervision = import_module("supervision")
    export_run(run.storage, tmp_path / "coco", ExportOptions(format="coco", images="copy"))
    found = supervision.DetectionDataset.from_coco(
        str(tmp_path / "coco"), str(tmp_path / "coco" / "instances.json"), force_masks=True
    )
    assert set(found.classes) >= set(run.names.values())
    truths = {uid: [] for uid in run.images}
    for uid, region in run.regions.items():
        truths[region["image_uid"]].append(run.masks[uid])
    document = json.loads((tmp_path / "coco" / "instances.json").read_text("utf-8"))
    uids = {os.path.basename(i["file_name"]): i["image_uid"] for i in document["images"]}
    for path, _, detections in found:
        for mask, truth in zip(detections.mask, truths[uids[os.path.basename(path)]], strict=True):
            np.testing.assert_array_equal(mask, truth)


def test_fiftyone_reads_its_coco_form(run: MadeRun, tmp_path: Path) -> None:
    """By its importer, which `Dataset.from_dir` runs; the datasets themselves need MongoDB."""
    pytest.importorskip("fiftyone")
    from fiftyone.utils.coco import COCODetectionDatasetImporter

    folder = tmp_path / "fiftyone"
    export_run(run.storage, folder, ExportOptions(format="fiftyone"))
    importer = COCODetectionDatasetImporter(
        str(folder), label_types=["segmentations"], include_license="name", extra_attrs=True
    )
    with importer:
        found = list(importer)
    rows = {
        line["file_name"]: line["image_uid"] for line in map(json.loads, (folder / "images.jsonl").open())
    }
    masks, seen = run.masks, 0
    for path, metadata, label in found:
        row = run.images[rows[f"data/{os.path.basename(path)}"]]
        assert (metadata.width, metadata.height) == (row["width"], row["height"])
        assert label["license"] == row["license"]
        for detection in label["segmentations"].detections:
            region = run.regions[detection["instance_uid"]]
            assert detection.label == run.names[region["category_id"]]
            assert detection["class_id"] == region["category_id"]
            assert detection["caption_short"] == HOSTILE
            assert detection.confidence == pytest.approx(region["score"])
            x, y = (
                round(value * side)
                for value, side in zip(detection.bounding_box[:2], (row["width"], row["height"]), strict=True)
            )
            drawn = np.zeros((row["height"], row["width"]), bool)
            drawn[y : y + detection.mask.shape[0], x : x + detection.mask.shape[1]] = detection.mask
            np.testing.assert_array_equal(drawn, masks[detection["instance_uid"]])
            seen += 1
    assert seen == len(masks)
