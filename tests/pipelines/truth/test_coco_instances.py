"""COCO and LVIS files of instances: what they say, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from ovsops.errors import RowError, StorageError
from ovsops.masks.rle import rle_area
from pipelines.truth.coco_instances import CocoReading, read_coco_instances

Write = Callable[..., Path]
SQUARE = [10.0, 10, 20, 10, 20, 20, 10, 20]


def plain() -> dict[str, Any]:
    """Two images; a cat of polygons, a crowd of dogs as RLE, nothing in the other image."""
    crowd = np.zeros((40, 60), np.uint8)
    crowd[5:15, 30:50] = 1
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], crowd.T.ravel(), [0]])))).tolist()
    start = int(np.flatnonzero(crowd.T.ravel())[0])
    counts = [start, *runs, crowd.size - start - sum(runs)]
    return {
        "images": [
            {"id": 7, "file_name": "val/one.jpg", "height": 40, "width": 60},
            {"id": 9, "file_name": "val/two.jpg", "height": 30, "width": 30},
        ],
        "categories": [
            {"id": 3, "name": "cat", "supercategory": "animal"},
            {"id": 17, "name": "dog", "supercategory": "animal"},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 3,
                "bbox": [10, 10, 10, 10],
                "area": 100.0,
                "iscrowd": 0,
                "segmentation": [SQUARE, [30, 30, 36, 30, 33, 36]],
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 17,
                "bbox": [30, 5, 20, 10],
                "area": 200,
                "iscrowd": 1,
                "segmentation": {"size": [40, 60], "counts": counts},
            },
        ],
    }


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(document: Any) -> Path:
        path = tmp_path / "instances.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return to_file


def changed(**changes: Any) -> dict[str, Any]:
    """The file with fields of its first annotation changed; `image_...` of its first image."""
    document = plain()
    for name, value in changes.items():
        target = document["images"][0] if name.startswith("image__") else document["annotations"][0]
        target[name.removeprefix("image__")] = value
    return document


def test_objects_are_those_of_pycocotools(write: Write) -> None:
    path = write(plain())
    found = read_coco_instances(path)
    assert [spec.name for spec in found.vocabulary.classes] == ["cat", "dog"]
    assert (found.has_masks, found.is_federated) == (True, False)
    truth = found.objects(found.images["one"])
    assert truth.labels.tolist() == [3, 17]
    assert truth.boxes_xyxy.tolist() == [[10, 10, 20, 20], [30, 5, 50, 15]]
    assert truth.is_crowd is not None
    assert truth.is_crowd.tolist() == [False, True]
    assert truth.verified_absent is None
    reference = COCO(str(path))
    assert truth.masks is not None
    for mask, annotation in zip(truth.masks, reference.anns.values(), strict=True):
        theirs = reference.annToRLE(annotation)
        assert coco_masks.iou([mask.to_coco()], [theirs], [0]).item() == 1.0
    assert rle_area(truth.masks[1]) == 200
    assert len(found.objects(found.images["two"]).labels) == 0


def test_lvis_says_what_was_looked_for(write: Write) -> None:
    document = plain()
    for image, name in zip(document["images"], ("000000000001.jpg", "000000000002.jpg"), strict=True):
        del image["file_name"]
        image |= {
            "coco_url": f"http://images.example/val2017/{name}",
            "neg_category_ids": [17] if image["id"] == 9 else [],
            "not_exhaustive_category_ids": [3] if image["id"] == 7 else [],
        }
    document["categories"][0] |= {"name": "house_cat", "synonyms": ["cat"], "frequency": "f"}
    found = read_coco_instances(write(document))
    assert found.is_federated
    assert found.vocabulary.classes[0].name == "house cat"
    one, two = (found.objects(found.images[f"00000000000{i}"]) for i in (1, 2))
    assert (one.verified_absent, one.not_exhaustive) == (frozenset(), {3})
    assert (two.verified_absent, two.not_exhaustive) == ({17}, frozenset())


def test_boxes_alone_are_objects_without_masks(write: Write) -> None:
    document = plain()
    for annotation in document["annotations"]:
        del annotation["segmentation"], annotation["area"]
    found = read_coco_instances(write(document))
    truth = found.objects(found.images["one"])
    assert not found.has_masks
    assert truth.masks is None
    assert truth.areas is not None
    assert truth.areas.tolist() == [100, 200]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "no JSON of instances"),
        ("[" * 100_000, "no JSON of instances"),
        ('{"images": NaN}', "NaN is no JSON number"),
        ("[]", "is no object with images"),
        ({"images": [], "annotations": []}, "no list 'categories'"),
        ({"images": {}, "annotations": [], "categories": []}, "has no list 'images'"),
        ({**plain(), "annotations": ["x"]}, r"annotations\[0\] is 'x', expected an object"),
        ({**plain(), "categories": [{"id": "3", "name": "cat"}]}, "field 'id' must be a whole number"),
        ({**plain(), "categories": [{"id": 10**30, "name": "cat"}]}, "2147483647|2\\*\\*31"),
        (changed(category_id=4), "category_id is 4, which is no category"),
        (changed(category_id=True), "category_id is True, expected a whole number"),
        (changed(image_id=8), r"speak of images \[8\], which the file does not list"),
        (changed(iscrowd=2), "iscrowd is 2, expected 0 or 1"),
        (changed(segmentation="x"), "segmentation is 'x', expected polygons or RLE"),
        (changed(image__id=9), r"images\[1\] has the id 9 of an earlier image"),
        (changed(image__file_name="two.png"), "has the file name 'two' of an earlier image"),
        (changed(image__file_name=None), "has the file name None; images are matched by"),
        (changed(image__height=0), r"is 0x60 pixels \(h x w\)"),
        (changed(image__width=10**12), "expected sides of 1 to 20000"),
        (changed(image__neg_category_ids=[5]), r"neg_category_ids names \[5\]"),
    ],
)
def test_files_that_are_no_instances_are_refused_naming_the_entry(
    write: Write, document: Any, message: str
) -> None:
    with pytest.raises(StorageError, match=message):
        read_coco_instances(write(document))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": None}, "bbox is None, expected four finite numbers"),
        ({"bbox": [1, 2, 3, 10**400]}, "expected four finite numbers"),
        ({"bbox": [1, 2, -3, 4]}, r"is no box in an image of 40x60"),
        ({"bbox": [1e12, 2, 3, 4]}, "is no box in an image"),
        ({"area": -1}, "area is -1, expected pixels"),
        ({"segmentation": [[1, 2, 3, 4]]}, "polygon 0 is a list, expected x and y of three corners"),
        ({"segmentation": [["a"] * 6]}, "corners that are no numbers near the image"),
        ({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, "corners that are no numbers near the image"),
        ({"segmentation": [3]}, "polygon 0 is 3"),
        ({"segmentation": [[1, 1] * 300]}, r"more than 200 corners \(truth\.reading\.max_corners\)"),
        ({"segmentation": {"size": [40, 60], "counts": "~~~"}}, "segmentation: "),
        ({"segmentation": {"size": [40, 60], "counts": [1, 10**30]}}, "segmentation: "),
        ({"segmentation": {"size": [4, 6], "counts": [24]}}, r"RLE of \(4, 6\) in an image of \(40, 60\)"),
        ({"segmentation": {"counts": [24]}}, "segmentation: "),
    ],
)
def test_objects_that_cannot_be_are_refused_with_their_image(
    write: Write, changes: dict[str, Any], message: str
) -> None:
    found = read_coco_instances(write(changed(**changes)), CocoReading(max_corners=200))
    with pytest.raises(RowError, match=message) as error:
        found.objects(found.images["one"])
    assert "instances.json: annotation 1 of one" in str(error.value)


def test_caps(write: Write) -> None:
    path = write(plain())
    with pytest.raises(StorageError, match=r"over 100 bytes \(truth\.reading\.max_bytes\)"):
        read_coco_instances(path, CocoReading(max_bytes=100))
    found = read_coco_instances(path, CocoReading(max_objects=1))
    with pytest.raises(RowError, match=r"one: 2 objects, truth\.reading\.max_objects is 1"):
        found.objects(found.images["one"])
    with pytest.raises(StorageError, match="cannot be read"):
        read_coco_instances(path.with_name("other.json"))
