"""The COCO writer: whole files or none, ids from 1."""

import json
from pathlib import Path

import numpy as np
import pytest

from ovsops.errors import StorageError
from ovsops.text.vocabulary import ClassSpec, Vocabulary
from pipelines.writers.coco import CocoWriter, Licenses, coco_categories, shortest


def test_records_stay_in_their_lists_however_they_are_mixed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "instances.json"
    with CocoWriter(path, info={"description": "猫"}, categories=[{"id": 1}]) as writer:
        for number in (1, 2):
            writer.add_image({"id": number})
            writer.add_annotation({"id": 10 + number})
        writer.finish([{"id": 1}])
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "info": {"description": "猫"},
        "categories": [{"id": 1}],
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [{"id": 11}, {"id": 12}],
        "licenses": [{"id": 1}],
    }
    assert [file.name for file in path.parent.iterdir()] == ["instances.json"]


def test_an_empty_file_is_still_coco(tmp_path: Path) -> None:
    with CocoWriter(tmp_path / "x.json", info={}, categories=[]) as writer:
        writer.finish([])
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "info": {},
        "categories": [],
        "images": [],
        "annotations": [],
        "licenses": [],
    }


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text("old")
    with (
        pytest.raises(ValueError, match="not JSON compliant"),
        CocoWriter(path, info={}, categories=[]) as writer,
    ):
        writer.add_image({"id": float("nan")})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "instances.json"
    with pytest.raises(StorageError, match=r"instances\.json: cannot be written"):
        CocoWriter(path, info={}, categories=[]).__enter__()


def test_licences_are_numbered_from_one() -> None:
    licenses = Licenses()
    assert [licenses.id_of(text) for text in ("CC0", "https://x.org/by", "CC0")] == [1, 2, 1]
    assert licenses.to_coco() == [
        {"id": 1, "name": "CC0", "url": ""},
        {"id": 2, "name": "https://x.org/by", "url": "https://x.org/by"},
    ]


def test_categories_keep_ids_and_kinds() -> None:
    classes = (ClassSpec(id=17, name="cat", group="animal"), ClassSpec(id=3, name="sky", kind="stuff"))
    assert coco_categories(Vocabulary(name="v", languages=("en",), classes=classes)) == [
        {"id": 17, "name": "cat", "supercategory": "animal", "isthing": 1},
        {"id": 3, "name": "sky", "supercategory": "", "isthing": 0},
    ]


def test_float32_is_written_shortest_and_comes_back() -> None:
    value = np.float32(0.9)
    assert shortest(float(value)) == 0.9
    assert np.float32(shortest(float(value))) == value
