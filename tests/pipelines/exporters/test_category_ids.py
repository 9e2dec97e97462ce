"""Category ids stay what they are: 100 random edits of a vocabulary, seen in every format."""

import csv
import hashlib
import json
import random
import tarfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import yaml

from ovsops.text.vocabulary import ClassSpec, Vocabulary
from pipelines.exporters.format import FORMATS
from pipelines.exporters.options import ExportOptions
from pipelines.exporters.run import export_run
from pipelines.storage import Storage, open_storage
from tests.pipelines.exporters.made_run import image, picture, put_manifest, put_shard, region
from tests.pipelines.tars import make_tar

START = tuple(ClassSpec(id=number, name=f"class {number}") for number in (9, 2, 5, 30))
USED = (9, 5)
"""Ids that regions have: their classes are never removed, which `check_append_only` forbids for any."""


def edited(classes: tuple[ClassSpec, ...], chance: random.Random, number: int) -> tuple[ClassSpec, ...]:
    """One class more or less, another name, or another order."""
    pick = chance.choice(("add", "rename", "remove", "reorder"))
    changed = list(classes)
    if pick == "add":
        free = [i for i in range(1, 200) if i not in {spec.id for spec in classes}]
        new = ClassSpec(id=chance.choice(free), name=f"new {number}")
        changed.insert(chance.randrange(len(changed) + 1), new)
    elif pick == "rename":
        place = chance.randrange(len(changed))
        changed[place] = replace(changed[place], name=f"renamed {number}")
    elif pick == "remove":
        removable = [spec for spec in changed if spec.id not in USED]
        if removable:
            changed.remove(chance.choice(removable))
    else:
        chance.shuffle(changed)
    return tuple(changed)


def labelled(folder: Path) -> Storage:
    storage = open_storage(str(folder / "out"))
    data = picture(0, "JPEG", (16, 12))
    (folder / "a.tar").write_bytes(make_tar([("0.jpg", data)]))
    masks = [np.zeros((12, 16), bool) for _ in USED]
    for number, mask in enumerate(masks):
        mask[1 : 4 + number, 2:9] = True
    regions = [region(mask, id_, 0.5) for mask, id_ in zip(masks, USED, strict=True)]
    size = {"width": 16, "height": 12, "sha256": hashlib.sha256(data).hexdigest()}
    put_shard(storage, "a.tar", [image(0, "0", regions, **size)], url=str(folder / "a.tar"))
    return storage


def ids_of(folder: Path) -> dict[str, tuple[list[int], dict[int, str]]]:
    """Ids of the regions, and names by id, as each format has them."""
    coco = json.loads((folder / "coco" / "instances.json").read_text())
    fiftyone = json.loads((folder / "fiftyone" / "labels.json").read_text())
    names = yaml.safe_load((folder / "yolo-seg" / "data.yaml").read_text())["names"]
    (label,) = (folder / "yolo-seg" / "labels" / "train").iterdir()
    lines = csv.reader(label.read_text().splitlines(), delimiter=" ")
    (task,) = json.loads((folder / "labelstudio" / "tasks-00000.json").read_text())
    config = ElementTree.parse(folder / "labelstudio" / "label_config.xml").find("BrushLabels")
    cvat = ElementTree.parse(folder / "cvat" / "annotations.xml").getroot()
    (tar,) = (folder / "webdataset").glob("*.tar")
    with tarfile.open(tar) as members:
        name = next(name for name in members.getnames() if name.endswith("json"))
        member = members.extractfile(name)
        assert config is not None
        assert member is not None
        sidecar = json.loads(member.read())
    (rows,) = pq.read_table(next((folder / "hf" / "data").iterdir())).to_pylist()
    brushes = [r for r in task["predictions"][0]["result"] if r["type"] == "brushlabels"]
    export = json.loads((folder / "hf" / "export.json").read_text())["categories"]
    return {
        "coco": (
            [a["category_id"] for a in coco["annotations"]],
            {c["id"]: c["name"] for c in coco["categories"]},
        ),
        "fiftyone": (
            [a["attributes"]["class_id"] for a in fiftyone["annotations"]],
            {c["id"]: c["name"] for c in fiftyone["categories"]},
        ),
        "yolo-seg": (
            [int(line[0]) + 1 for line in lines],
            {index + 1: name for index, name in names.items() if name != f"unused-{index + 1}"},
        ),
        "labelstudio": (
            [r["meta"]["category_id"] for r in brushes],
            {int(e.attrib["category"]): e.attrib["value"] for e in config},
        ),
        "cvat": (
            [int(e.text or "") for e in cvat.iter("attribute") if e.attrib.get("name") == "category_id"],
            {
                int(e.findtext("attributes/attribute/default_value") or ""): e.findtext("name") or ""
                for e in cvat.iter("label")
            },
        ),
        "webdataset": (
            [r["category_id"] for r in sidecar["regions"]],
            {c["id"]: c["name"] for c in export},
        ),
        "hf": ([r["category_id"] for r in rows["regions"]], {c["id"]: c["name"] for c in export}),
    }


def test_ids_do_not_move_over_100_edits(tmp_path: Path) -> None:
    storage = labelled(tmp_path)
    chance, classes = random.Random(7), START
    for number in range(100):
        classes = edited(classes, chance, number)
        put_manifest(storage, Vocabulary(name="v", languages=("en",), classes=classes))
        for name in FORMATS:
            export_run(storage, tmp_path / "x" / name, ExportOptions(format=name, replace=True))
        truth = {spec.id: spec.name for spec in classes}
        for name, (of_regions, names) in ids_of(tmp_path / "x").items():
            assert of_regions == list(USED), (name, number)
            assert names == truth, (name, number)
