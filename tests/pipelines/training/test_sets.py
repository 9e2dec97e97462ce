"""Training sets as the train job reads them: three formats, hostile items, and a training that is stopped."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovsops.errors import ConfigError, OutputError, TrainingError
from ovsops.images.decode import DecodeConfig
from ovsops.training.fgclip2_sets import SetBank
from ovsops.training.loop import LoopConfig
from pipelines.runner import InlineEngine
from pipelines.schemas import SCHEMA_VERSION
from pipelines.storage import StorageOptions
from pipelines.summary import Limits
from pipelines.training.job import TrainJob, run_train
from pipelines.training.set_files import SetInput, find_set
from pipelines.training.set_table import SetTable
from pipelines.training.sets import SetRows, read_set
from tests.pipelines.training.set_world import (
    NUM_IMAGES,
    TinySetRecipe,
    drawn_sample,
    drawn_scenes,
    write_set,
)
from tests.pipelines.training.tiny_program import TinyRecipe

SCENES = drawn_scenes()
FORMATS = ("finehard-json", "finehard-parquet", "webdataset")


def read(url: Path, **changes: Any) -> SetRows:
    given, options = SetInput(url=str(url), **changes), StorageOptions()
    return read_set(find_set(given, options), given, options, DecodeConfig())


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    samples = [drawn_sample(scene) for scene in SCENES]
    return {name: write_set(tmp_path_factory.mktemp(name), name, samples) for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_a_set_is_read_whole_in_every_format(sets: dict[str, Path], name: str) -> None:
    rows = read(sets[name])
    assert rows.totals() == {"read": NUM_IMAGES, "used": NUM_IMAGES, "failed": 0}
    num_regions = sum(len(scene.things) for scene in SCENES)
    assert rows.regions == {
        "read": num_regions,
        "used": num_regions,
        "with_negatives": NUM_IMAGES,
        "failed": 0,
    }
    assert rows.identity == read(sets["finehard-json"]).identity  # the same set, whatever it is written in
    bank = SetTable(rows.table, rows.images)
    assert isinstance(bank, SetBank)
    assert bank.languages == ("en",) * NUM_IMAGES
    for place, scene in enumerate(SCENES):
        sample, found = drawn_sample(scene), bank.image(place)
        assert np.array_equal(bank.pixels(place), scene.image)
        assert bank.sizes_hw[place].tolist() == list(scene.image.shape[:2])
        assert (found.caption_short, found.caption_long) == (sample.caption_short, sample.caption_long)
        for region, written in zip(found.regions, sample.regions, strict=True):
            assert (region.short_expr, region.long_expr) == (written.short_expr, written.long_expr)
            assert region.box == pytest.approx(written.box, abs=1e-7)
            assert region.negatives == (written.negatives.texts if written.negatives else ())
            assert region.label == written.category
    assert bank.is_labelled


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_told_without_an_index_and_a_file_stands_for_a_set(
    sets: dict[str, Path], name: str, tmp_path: Path
) -> None:
    write_set(tmp_path, name, [drawn_sample(SCENES[0])])
    (tmp_path / "index.json").unlink()
    assert find_set(SetInput(url=str(tmp_path)), StorageOptions()).format == name
    file = next(path for path in sorted((tmp_path / "train").iterdir()))
    assert read(file, images=str(tmp_path)).totals()["used"] == 1


def test_other_splits_are_passed_by(tmp_path: Path) -> None:
    write_set(tmp_path, "finehard-json", [drawn_sample(SCENES[0])])
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "val-00000.json").write_bytes((tmp_path / "train" / "train-00000.json").read_bytes())
    assert read(tmp_path).totals()["read"] == 1
    items = json.loads((tmp_path / "train" / "train-00000.json").read_text())
    loose = tmp_path / "items.json"
    loose.write_text(json.dumps([items[0], items[0] | {"split": "test"}]))
    rows = read(loose, images=str(tmp_path))
    assert (rows.totals()["read"], rows.other_splits) == (1, 1)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no .json, .parquet or .tar file"),
        ({"index.json": '{"format": "coco"}'}, "format coco, which is not trained from"),
        ({"val/a.json": "[]"}, r"no \.json file of split train"),
        ({"index.json": "{"}, "is no JSON"),
    ],
)
def test_what_is_no_set_is_said(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read(tmp_path)


Items = list[dict[str, Any]]


def first_region(items: Items) -> dict[str, Any]:
    region: dict[str, Any] = items[1]["bbox_info"][0]
    return region


def without(items: Items, name: str) -> None:
    del items[1][name]


REGION_FAULTS: dict[str, Callable[[Items], object]] = {
    "R_NEGATIVES_COUNT": lambda items: first_region(items)["short_expr_negs"].pop("3"),
    "R_NEGATIVES_DISTINCT": lambda items: first_region(items)["short_expr_negs"].update(
        {"1": "a", "2": "A."}
    ),
    "R_NEGATIVES_POSITIVE": lambda items: first_region(items)["short_expr_negs"].update(
        {"1": first_region(items)["short_expr"].upper()}
    ),
    "R_NEGATIVES_FLAG": lambda items: first_region(items).update(flag_short_neg=0),
    "R_BOX_RANGE": lambda items: first_region(items).update(bbox=[0.5, 0.5, 1.5, 0.75]),
    "R_BOX_ORDER": lambda items: first_region(items).update(bbox=[0.5, 0.5, 0.25, 0.75]),
    "R_BOX_AREA": lambda items: first_region(items).update(bbox=[0.5, 0.5, 0.5, 0.75]),
    "R_BOX_LENGTH": lambda items: first_region(items).update(bbox=[0.5, 0.5]),
    "R_FINITE": lambda items: first_region(items).update(bbox=[0.5, 0.5, float("nan"), 0.75]),
    "R_FIELD": lambda items: first_region(items).pop("long_expr"),
    "R_TEXT_EMPTY": lambda items: first_region(items).update(short_expr="  "),
    "R_TEXT_CONTROL": lambda items: first_region(items).update(long_expr="a\u202eb"),
    "R_TYPE": lambda items: items[1]["bbox_info"].__setitem__(0, "a region"),
}
IMAGE_FAULTS: dict[str, Callable[[Items], object]] = {
    "E_FIELD": lambda items: without(items, "short_caption"),
    "E_TYPE": lambda items: items[1].update(bbox_info={"a": 1}),
    "E_TEXT_LENGTH": lambda items: items[1].update(caption="x" * 100_001),
    "E_IMAGE_MISSING": lambda items: items[1].update(f_path="images/none.png"),
    "E_PATH": lambda items: items[1].update(f_path="../outside.png"),
    "E_SIZE": lambda items: items[1].update(width=77),
}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set", "finehard-json", [drawn_sample(scene) for scene in SCENES[:3]])


def spoil(folder: Path, change: Callable[[Items], object]) -> Items:
    file = folder / "train" / "train-00000.json"
    items: Items = json.loads(file.read_text())
    change(items)
    file.write_text(json.dumps(items))
    return items


@pytest.mark.parametrize("code", REGION_FAULTS)
def test_a_broken_region_costs_itself_alone(code: str, written: Path) -> None:
    whole = read(written)
    spoil(written, REGION_FAULTS[code])
    rows = read(written)
    assert rows.totals() == {"read": 3, "used": 3, "failed": 0}
    assert rows.regions["failed"] == 1
    assert rows.regions["used"] == whole.regions["used"] - 1
    told = rows.told()["regions"]
    assert told["failures_by_code"] == {code: 1}
    failure = told["failures"][0]
    assert (failure["shard"], failure["key"]) == ("train/train-00000.json", "[1]")
    assert failure["message"].startswith("bbox_info[0]")
    banks = [SetTable(one.table, one.images) for one in (whole, rows)]
    assert banks[0].image(1).regions[1:] == banks[1].image(1).regions
    assert all(banks[0].image(place) == banks[1].image(place) for place in (0, 2))


@pytest.mark.parametrize("code", IMAGE_FAULTS)
def test_a_broken_image_costs_itself_alone(code: str, written: Path) -> None:
    spoil(written, IMAGE_FAULTS[code])
    rows = read(written)
    assert rows.totals() == {"read": 3, "used": 2, "failed": 1}
    assert [(f["shard"], f["key"], f["code"]) for f in rows.failures] == [
        ("train/train-00000.json", "[1]", code)
    ]


def image_of(folder: Path) -> Path:
    items = json.loads((folder / "train" / "train-00000.json").read_text())
    return folder / items[1]["f_path"]


def test_a_damaged_picture_a_link_and_a_turned_one_are_told_apart(written: Path, tmp_path: Path) -> None:
    target = image_of(written)
    whole = target.read_bytes()
    target.write_bytes(whole[:-40])
    assert read(written).failures[0]["code"] == "E_TRUNCATED"
    outside = tmp_path.with_name(f"{tmp_path.name}-outside.png")
    outside.write_bytes(whole)
    target.unlink()
    target.symlink_to(outside)
    assert read(written).failures[0]["code"] == "E_PATH_LINK"
    target.unlink()
    turned, stream = Image.fromarray(SCENES[1].image), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(stream, "JPEG", exif=exif)
    target.write_bytes(stream.getvalue())
    spoil(written, lambda items: [items[1].pop(name) for name in ("width", "height")])
    assert read(written).failures[0]["code"] == "E_EXIF_TURNED"


def test_texts_are_read_in_lower_case_so_that_case_gives_nothing_away(written: Path) -> None:
    before = SetTable(read(written).table, read(written).images).image(1)
    spoil(
        written,
        lambda items: first_region(items).update(short_expr=first_region(items)["short_expr"].upper()),
    )
    rows = read(written)
    assert SetTable(rows.table, rows.images).image(1) == before


def test_a_set_of_others_may_have_no_categories(written: Path) -> None:
    spoil(written, lambda items: first_region(items).pop("category"))
    rows = read(written)
    assert rows.regions["failed"] == 0
    assert not SetTable(rows.table, rows.images).is_labelled


def test_a_presence_of_is_cn_makes_an_image_chinese(written: Path) -> None:
    spoil(written, lambda items: items[1].update(is_cn=False, caption="草地", short_caption="草地"))
    assert read(written).table.column("language").to_pylist() == ["en", "zh", "en"]


@pytest.mark.parametrize(
    ("text", "code"), [('{"a": [1]}', "E_TYPE"), ('[{"f_path": "a"', "E_FILE"), ("", "E_FILE")]
)
def test_a_damaged_file_is_named_and_others_are_read(text: str, code: str, written: Path) -> None:
    (written / "train" / "train-00001.json").write_text(text)
    rows = read(written)
    assert rows.totals()["used"] == 3
    assert list(rows.damaged) == ["train/train-00001.json"]
    assert rows.damaged["train/train-00001.json"].startswith(code)


def test_a_sample_of_an_archive_that_is_broken_costs_itself_alone(tmp_path: Path) -> None:
    samples = [drawn_sample(scene) for scene in SCENES[:3]]
    samples[1] = drawn_sample(SCENES[1], data=samples[1].data[:-40])
    rows = read(write_set(tmp_path, "webdataset", samples))
    assert rows.totals() == {"read": 3, "used": 2, "failed": 1}
    assert rows.failures[0]["code"] == "E_TRUNCATED"
    assert samples[1].image_uid in rows.failures[0]["key"]


LOOP = LoopConfig(
    num_steps=6, learning_rate=0.001, warmup_steps=1, save_every=2, log_every=2, precision="float32"
)


def job(folder: Path, url: Path, **changes: Any) -> TrainJob:
    fields: dict[str, Any] = {
        "output": folder / "out",
        "training_set": SetInput(url=str(url)),
        "cache": folder / "cache",
        "program": TinySetRecipe(),
        "loop": LOOP,
        "checkpoint": folder / "out" / "checkpoint",
        "manifest": {"schema_version": SCHEMA_VERSION, "recipe": {"loop": {"num_steps": 6}}},
    }
    return TrainJob(**(fields | changes))


def engine() -> InlineEngine:
    return InlineEngine(StorageOptions())


def left(out: Path) -> dict[str, bytes]:
    names = (
        "curve.csv",
        "data.json",
        "checkpoint/model.safetensors",
        "states/state-00000006/state.safetensors",
    )
    return {name: (out / name).read_bytes() for name in names}


def test_a_training_that_is_stopped_goes_on_to_the_same_bytes(sets: dict[str, Path], tmp_path: Path) -> None:
    told = run_train(job(tmp_path / "a", sets["finehard-parquet"]), engine())
    assert (told["state"], told["scenes"]["used"], told["scenes"]["regions"]["with_negatives"]) == (
        "done",
        8,
        8,
    )
    stopped = job(
        tmp_path / "b",
        sets["finehard-parquet"],
        program=TinySetRecipe(signal_at=2, marker=str(tmp_path / "fired")),
    )
    with pytest.raises(KeyboardInterrupt):
        run_train(stopped, engine())
    told = run_train(stopped, engine())
    assert told["this_run"]["worker"]["start"] == 3
    assert left(tmp_path / "a" / "out") == left(tmp_path / "b" / "out")

    again = run_train(stopped, engine())  # is done: the set is found, and not read
    assert again["this_run"]["worker"] is None
    moved = write_set(tmp_path / "moved", "webdataset", [drawn_sample(scene) for scene in SCENES])
    assert run_train(job(tmp_path / "a", moved), engine())["state"] == "done"  # the same content elsewhere
    other = write_set(tmp_path / "other", "webdataset", [drawn_sample(scene) for scene in SCENES[:4]])
    with pytest.raises(OutputError, match="has learned from other scenes"):
        run_train(job(tmp_path / "a", other), engine())


def test_too_many_broken_regions_stop_the_run_before_it_learns(written: Path, tmp_path: Path) -> None:
    spoil(written, REGION_FAULTS["R_NEGATIVES_COUNT"])
    told = run_train(job(tmp_path / "a", written), engine())
    assert told["state"] == "over limits"
    assert "regions are broken" in told["over_limits"][0]
    limits = Limits(max_failed_share=0.5)
    loop = LoopConfig(num_steps=1, precision="float32")
    assert run_train(job(tmp_path / "b", written, limits=limits, loop=loop), engine())["state"] == "done"


def test_a_picture_that_vanishes_while_it_is_learned_from_is_an_error_with_the_way_out(written: Path) -> None:
    rows = read(written)
    image_of(written).unlink()
    with pytest.raises(TrainingError, match="image 1 of the set cannot be read any more: E_IMAGE_MISSING"):
        SetTable(rows.table, rows.images).pixels(1)


def test_a_program_that_learns_from_scenes_is_refused(sets: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TinyRecipe learns from scenes"):
        run_train(job(tmp_path, sets["webdataset"], program=TinyRecipe()), engine())


def test_an_item_with_a_key_twice_is_left_out(sets: dict[str, Path], tmp_path: Path) -> None:
    (path,) = sets["finehard-json"].rglob("train*.json")
    target = tmp_path / "train" / "x.json"
    target.parent.mkdir()
    target.write_text(path.read_text().replace('"caption":', '"caption":"other","caption":', 1))
    rows = read(tmp_path, images=str(sets["finehard-json"]))
    assert rows.totals() == {"read": NUM_IMAGES, "used": NUM_IMAGES - 1, "failed": 1}
    assert rows.failures[0]["code"] == "E_KEY_TWICE"
