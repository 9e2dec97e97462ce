"""Sets that look whole and are not: keys twice, infinite sizes, nothing in them, another language, several sets."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ovsops.errors import ConfigError
from pipelines.validation.json_items import JsonItems
from pipelines.validation.sets import find_sets, validate_sets
from pipelines.validation.validate import validate_set
from pipelines.writers.finehard_json import finehard_json_writer
from pipelines.writers.whole_files import ImageFolder
from tests.pipelines.made_samples import image_bytes, make_sample
from tests.pipelines.validation.test_validate import change_coco, write_set
from tests.pipelines.writers.test_training_sets import WRITERS


def json_set(folder: Path) -> Path:
    """One image in FineHARD JSON; its file."""
    with finehard_json_writer(folder, "train") as writer:
        writer.add(make_sample(1))
        (file,) = writer.finish()
    ImageFolder(folder).put(make_sample(1))
    return folder / file.path


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "rules"),
    [
        ('"caption":', '"caption":"another text","caption":', {"key_twice": 1}),
        ('{"0":', '{"0":"a violet cup","0":', {"key_twice": 1}),
        ('"bbox":', '"bbox":[0,0,1,1],"bbox":', {"key_twice": 1}),
        ('"width":16', '"width":1e400', {"finite": 1}),
        ('"width":16', '"width":-Infinity', {"finite": 1}),
        ('"width":16', '"width":NaN', {"finite": 1}),
        ('"height":8', '"height":8.5', {"type": 1}),
        ('"height":8', '"height":0', {"type": 1}),
        ('"height":8', '"height":true', {"type": 1}),
        ('"height":8', '"height":"8"', {"type": 1}),
        ('"category_id":3', '"category_id":1e400', {"finite": 1}),
        ('"neg_scores":[0.25', '"neg_scores":[1e999', {"finite": 1}),
        ('"license":', '"mine":{"deep":[1,[NaN]]},"license":', {"finite": 1}),
        ('"a green cup"', '"红色的鱼"', {"language": 1}),
        ('"height":8', '"height":null', {}),
        (',"width":16,"height":8', "", {}),
    ],
)
def test_json(old: str, new: str, rules: dict[str, int], tmp_path: Path) -> None:
    replaced(json_set(tmp_path), old, new)
    assert validate_set(tmp_path).broken == rules


def test_a_chinese_item_with_an_english_negative(tmp_path: Path) -> None:
    path = json_set(tmp_path)
    items = json.loads(path.read_text(encoding="utf-8"))
    items[0] |= {"is_cn": True, "caption": "红色的杯子", "short_caption": "杯子"}
    (region, *_) = items[0]["bbox_info"]
    region |= {
        "short_expr": "红色的杯子",
        "short_expr_negs": {str(n): f"{c}色的杯子" for n, c in enumerate("绿蓝黑白灰粉棕紫橙")}
        | {"9": "a cup"},
    }
    path.write_text(json.dumps(items), encoding="utf-8")
    report = validate_set(tmp_path)
    assert report.broken == {"language": 1}
    assert report.examples["language"][0].field.endswith("short_expr_negs[9]")


@pytest.mark.parametrize(
    ("positive", "negative", "noted"),
    [
        ("a dog left of a cat", "a cat left of a dog", True),
        ("a red cup", "a cup, red", True),
        ("狗在猫左边", "猫在狗左边", True),
        ("a red cup", "a red red cup", False),
        ("a red cup", "a green cup", False),
    ],
)
def test_the_words_of_the_positive_are_a_note(
    positive: str, negative: str, noted: bool, tmp_path: Path
) -> None:
    path = json_set(tmp_path)
    items = json.loads(path.read_text(encoding="utf-8"))
    region = items[0]["bbox_info"][0]
    region["short_expr"] = positive
    region["short_expr_negs"]["0"] = negative
    path.write_text(json.dumps(items), encoding="utf-8")
    report = validate_set(tmp_path)
    assert dict(report.noted) == ({"same_words": 1} if noted else {})
    assert set(report.broken) <= {"language"}  # the others of the Chinese positive
    assert report.to_plain()["notes"].keys() == report.noted.keys()


@pytest.mark.parametrize("top", ['{"images":[],"images":[]}', '{"info":{},"categories":[],"info":{}}'])
def test_a_key_of_the_top_object_twice(top: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(top)
    assert validate_set(tmp_path, "coco").broken["key_twice"] == 1


def test_keys_twice_are_told_of_their_item_alone_however_small_the_pieces() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(3)

    text = b'[{"a":1},{"a":{"b":1,"c":[],"b":2}},{"a":[{"d":1,"d":1}],"d":1},{"d":[{"d":1}]}]'
    found = list(JsonItems(Slow(text)))
    assert [[fault.field for fault in item.faults] for item in found] == [[], ["b"], ["d"], []]
    assert [item.value for item in found] == json.loads(text)


def test_keys_twice_in_a_sidecar(tmp_path: Path) -> None:
    write_set(tmp_path, "webdataset")
    (tmp_path / "index.json").unlink()
    shard = tmp_path / "train" / "train-00000.tar"
    stream = io.BytesIO()
    with (
        tarfile.open(shard) as old,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for number, member in enumerate(old):
            data = old.extractfile(member).read()  # type: ignore[union-attr]
            if number == 1:
                assert data.startswith(b"{")
                data = b'{"caption_long":"x",' + data[1:]
            info = tarfile.TarInfo(member.name)
            info.size = len(data)
            new.addfile(info, io.BytesIO(data))
    shard.write_bytes(stream.getvalue())
    assert validate_set(tmp_path).broken == {"key_twice": 1}


def test_keys_twice_in_coco(tmp_path: Path) -> None:
    write_set(tmp_path, "coco")
    (tmp_path / "index.json").unlink()
    path = tmp_path / "annotations" / "instances_train-train-00000.json"
    replaced(path, '"image_id":', '"image_id":2,"image_id":')
    replaced(path, '"file_name":', '"file_name":"x.png","file_name":')
    assert validate_set(tmp_path).broken == {"key_twice": 2}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda d: d["images"][0].update(width=float("inf")), "finite"),
        (lambda d: d["images"][0].update(height=8.0), "type"),
        (lambda d: d["images"][0].update(height=True), "type"),
        (lambda d: d["images"][0].pop("height"), "type"),
        (lambda d: d["annotations"][0].update(area=float("nan")), "finite"),
        (lambda d: d["annotations"][0].update(more=[float("nan")]), "finite"),
        (lambda d: d["annotations"][0].update(image_id=True), "reference"),
        (lambda d: d["annotations"][0]["negatives"].__setitem__(0, "红色的鱼"), "language"),
        (lambda d: d.pop("annotations"), "field"),
        (lambda d: d.pop("images"), "field"),
    ],
)
def test_coco(change: Callable[[dict[str, Any]], Any], rule: str, tmp_path: Path) -> None:
    found = change_coco(tmp_path, change)
    assert found.get(rule), found


def test_coco_without_a_region_says_so_with_an_empty_list(tmp_path: Path) -> None:
    assert change_coco(tmp_path, lambda d: d.update(annotations=[])) == {}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.json", b" [ ] "),
        ("x.json", b"{}"),
        ("x.json", b'{"images":[],"annotations":[],"categories":[{"id":1,"name":"a"}]}'),
        ("x.tar", bytes(10240)),
    ],
)
def test_a_set_without_images(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    report = validate_set(tmp_path)
    assert report.images == 0
    assert report.broken["empty"] == 1


def test_an_empty_file_beside_others_is_none(tmp_path: Path) -> None:
    path = json_set(tmp_path)
    path.with_name("more.json").write_text("[]")
    assert validate_set(tmp_path).is_valid


def test_damage_inside_a_picture_is_seen_where_it_is_decoded(tmp_path: Path) -> None:
    path = json_set(tmp_path)
    replaced(path, '"sha256":', '"other":')
    (image,) = (each for each in (tmp_path / "images").rglob("*") if each.is_file())
    data = image_bytes(1, "JPEG", size_wh=(64, 64))
    image.write_bytes(data[:-400] + data[-2:])  # its header and its end are whole
    replaced(path, '"width":16,"height":8', '"width":64,"height":64')
    replaced(path, '"segmentation":', '"mask":')
    assert validate_set(tmp_path).is_valid
    assert "headers only" in validate_set(tmp_path).pictures
    assert validate_set(tmp_path, images="whole").broken == {"image_broken": 1}


def job_output(folder: Path) -> Path:
    """Sets beside what a job writes for itself."""
    for kind in WRITERS:
        write_set(folder / kind, kind)
    for name in ("run.json", "commits/a.json", "plan.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def test_every_set_of_a_jobs_output(tmp_path: Path) -> None:
    job_output(tmp_path)
    reports = validate_sets(tmp_path)
    assert {report.format for report in reports} == set(WRITERS)
    assert all(report.is_valid for report in reports)
    assert "commits/, plan.json" in reports[0].not_checked[-1]
    (path,) = (tmp_path / "finehard-json" / "train").glob("*.json")
    path.write_text('[{"broken":1}]')
    (tmp_path / "finehard-json" / "index.json").unlink()  # its name says what it is
    wrong = [report for report in validate_sets(tmp_path) if not report.is_valid]
    assert [report.format for report in wrong] == ["finehard-json"]
    assert [report.format for report in validate_sets(tmp_path, "coco")] == ["coco"]
    (tmp_path / "run.json").unlink()
    with pytest.raises(ConfigError, match="files that are of none of them"):
        validate_sets(tmp_path)


def test_a_format_that_no_set_of_the_folder_has(tmp_path: Path) -> None:
    write_set(tmp_path / "mine", "coco")
    with pytest.raises(ConfigError, match=r"holds no hf set but mine \(coco\)"):
        validate_sets(tmp_path, "hf")


def test_folders_of_several_formats_without_an_index_are_refused(tmp_path: Path) -> None:
    json_set(tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.tar").write_bytes(bytes(10240))
    with pytest.raises(ConfigError, match=r"several formats: more \(webdataset\), train \(finehard-json\)"):
        validate_sets(tmp_path)
    (report,) = validate_sets(tmp_path, "finehard-json")
    assert report.is_valid
    assert any("1 file of another format" in sentence for sentence in report.not_checked)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_set_itself_is_one_set(kind: str, tmp_path: Path) -> None:
    write_set(tmp_path / "one", kind)
    assert list(find_sets(tmp_path / "one")) == []
    (report,) = validate_sets(tmp_path / "one")
    assert (report.path, report.format) == (str(tmp_path / "one"), kind)
    (above,) = validate_sets(tmp_path)
    assert above.path == report.path


def test_sets_of_others_need_no_field_of_ours(tmp_path: Path) -> None:
    sample = make_sample(1)
    ImageFolder(tmp_path).put(sample)
    negatives = {str(n): text for n, text in enumerate(sample.regions[0].negatives.texts)}  # type: ignore[union-attr]
    region = {
        "bbox": [0.1, 0.1, 0.5, 0.5],
        "short_expr": "a red cup",
        "long_expr": "a red cup",
        "flag_short_neg": 1,
        "short_expr_negs": negatives,
    }
    item = {
        "f_path": f"images/{sample.file_name}",
        "caption": "a",
        "short_caption": "a",
        "bbox_info": [region],
    }
    (tmp_path / "x.json").write_text(json.dumps([item]))
    assert validate_set(tmp_path, images="whole").broken == {}
    document = {
        "info": {"year": 2017},
        "images": [{"id": 1, "file_name": f"images/{sample.file_name}", "height": 8, "width": 16}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1.5, 1.5, 4, 4], "area": 16.0, "iscrowd": 0}
            | {"segmentation": [[1.5, 1.5, 5.5, 1.5, 5.5, 5.5]]}
        ],
        "categories": [{"id": 3, "name": "cup"}],
    }
    (tmp_path / "x.json").write_text(json.dumps(document))
    (report,) = validate_sets(tmp_path)
    assert (report.format, report.broken) == ("coco", {})
