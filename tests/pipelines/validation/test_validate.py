"""The validator: our own sets are valid, every rule can be broken, and no file crashes it."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovsops.errors import ConfigError, StorageError
from pipelines.training_sets.counts import SetCounts
from pipelines.training_sets.drops import Drops
from pipelines.training_sets.record import TrainingSample
from pipelines.validation.items import split_of_file
from pipelines.validation.json_items import JsonItems
from pipelines.validation.rules import EXAMPLES_PER_RULE, RULES
from pipelines.validation.validate import validate_set
from pipelines.writers.card import dataset_card
from pipelines.writers.finehard_json import finehard_json_writer
from pipelines.writers.whole_files import ImageFolder, write_index
from tests.pipelines.made_samples import chinese_sample, make_sample
from tests.pipelines.writers.test_training_sets import WRITERS

SAMPLES = [make_sample(n) for n in range(4)] + [chinese_sample(4)]
HELD_OUT = make_sample(9, split="val")


def write_set(folder: Path, kind: str) -> Path:
    """A whole set in two splits, with images, index and card."""
    files = []
    counts = SetCounts()
    last_image, last_annotation = 1, 1
    for split, samples in (("train", SAMPLES), ("val", [HELD_OUT])):
        options = (
            {"first_image_id": last_image, "first_annotation_id": last_annotation} if kind == "coco" else {}
        )
        with WRITERS[kind](folder, split, **options) as writer:
            for sample in samples:
                writer.add(sample)
                counts.add(sample)
            files += writer.finish()
            last_image, last_annotation = (
                getattr(writer, "next_image_id", 1),
                getattr(writer, "next_annotation_id", 1),
            )
    if kind in ("finehard-json", "finehard-parquet", "coco"):
        for sample in (*SAMPLES, HELD_OUT):
            ImageFolder(folder).put(sample)
    if kind == "hf":
        card = dataset_card(counts, Drops(), name="Cups", provenance={}, made=[])
        (folder / "README.md").write_text(card, encoding="utf-8")
    write_index(folder, kind, files, {"counts": counts.to_plain()})
    return folder


@pytest.mark.parametrize("kind", WRITERS)
def test_our_own_sets_are_valid_and_found_out(kind: str, tmp_path: Path) -> None:
    for images in ("there", "whole"):
        report = validate_set(write_set(tmp_path, kind), images=images)  # type: ignore[arg-type]
        assert report.to_plain()["rules"] == {
            rule: {"says": says, "broken": 0} for rule, says in RULES.items()
        }
        assert report.format == kind
        assert (report.images, report.regions, report.regions_with_negatives) == (6, 11, 6)
        assert report.masks == 6
        assert report.splits == {"train": 5, "val": 1}
        assert report.licenses == {"(unknown)": 3, "cc0": 3}


@pytest.mark.parametrize("kind", WRITERS)
def test_without_an_index_the_format_is_found_all_the_same(kind: str, tmp_path: Path) -> None:
    write_set(tmp_path, kind)
    (tmp_path / "index.json").unlink()
    report = validate_set(tmp_path)
    assert report.format == kind
    assert report.is_valid
    assert any("index" in sentence for sentence in report.not_checked)


def broken(folder: Path, change: Callable[[list[Any]], Any]) -> dict[str, int]:
    """Rules that a FineHARD JSON set breaks after `change` of its items."""
    with finehard_json_writer(folder, "train") as writer:
        for sample in SAMPLES:
            writer.add(sample)
            ImageFolder(folder).put(sample)
        (file,) = writer.finish()
    items = json.loads((folder / file.path).read_text(encoding="utf-8"))
    change(items)
    (folder / file.path).write_text(json.dumps(items), encoding="utf-8")
    return dict(validate_set(folder).broken)


def region(items: list[Any]) -> dict[str, Any]:
    return items[0]["bbox_info"][0]  # type: ignore[no-any-return]


def negatives(items: list[Any]) -> dict[str, Any]:
    return region(items)["short_expr_negs"]  # type: ignore[no-any-return]


BROKEN: list[tuple[Callable[[list[Any]], Any], str]] = [
    (
        lambda i: (negatives(i).popitem(), region(i).pop("neg_types"), region(i).pop("neg_scores")),
        "negatives_count",
    ),
    (
        lambda i: (negatives(i).update(x="a x"), region(i).pop("neg_types"), region(i).pop("neg_scores")),
        "negatives_count",
    ),
    (lambda i: region(i).update(short_expr_negs={}, neg_types=[], neg_scores=[]), "negatives_count"),
    (lambda i: negatives(i).update({"3": negatives(i)["5"]}), "negatives_distinct"),
    (lambda i: negatives(i).update({"3": "a  green cup."}), "negatives_distinct"),
    (lambda i: negatives(i).update({"3": "a red cup"}), "negatives_positive"),
    (lambda i: region(i).update(short_expr_negs=list(negatives(i).values())), "type"),
    (lambda i: region(i).update(flag_short_neg=0), "negatives_flag"),
    (lambda i: region(i).update(flag_short_neg=True), "type"),
    (lambda i: region(i)["neg_types"].pop(), "negatives_columns"),
    (lambda i: region(i).update(bbox=[0.5, 0.1, 0.4, 0.2, 0.9], segmentation=None), "box_order"),
    (lambda i: region(i).update(bbox=[0.1, 0.1, 1.4, 0.2, 0.9], segmentation=None), "box_range"),
    (lambda i: region(i).update(bbox=[-0.1, 0.1, 0.4, 0.2, 0.9], segmentation=None), "box_range"),
    (lambda i: region(i).update(bbox=[0.1, 0.1, 0.1, 0.2, 0.9], segmentation=None), "box_area"),
    (lambda i: region(i).update(bbox=[0.1, 0.1, 0.2]), "box_length"),
    (lambda i: region(i).update(bbox=[0.1, float("nan"), 0.2, 0.3]), "finite"),
    (lambda i: region(i).update(bbox=[0.1, 10**400, 0.2, 0.3]), "finite"),
    (lambda i: region(i).update(bbox="0 0 1 1"), "type"),
    (lambda i: region(i).update(bbox=[0.25, 0.25, 0.5, 0.75, 7]), "score"),
    (lambda i: i[0]["bbox_info"].reverse(), "box_best_first"),
    (lambda i: region(i).pop("bbox"), "field"),
    (lambda i: region(i).pop("short_expr"), "field"),
    (lambda i: region(i).pop("flag_short_neg"), "field"),
    (lambda i: i[0].pop("caption"), "field"),
    (lambda i: i[0].pop("f_path"), "field"),
    (lambda i: i[0].pop("bbox_info"), "field"),
    (lambda i: i[0].update(bbox_info={}), "type"),
    (lambda i: i[0]["bbox_info"].append("x"), "type"),
    (lambda i: i.append(None), "type"),
    (lambda i: i[0].update(caption=" "), "text_empty"),
    (lambda i: region(i).update(long_expr=""), "text_empty"),
    (lambda i: negatives(i).update({"3": ""}), "text_empty"),
    (lambda i: region(i).update(short_expr="A red cup"), "text_case"),
    (lambda i: negatives(i).update({"3": "A teal cup"}), "text_case"),
    (lambda i: i[0].update(short_caption="a\u202ecup"), "text_control"),
    (lambda i: i[0].update(caption="a" * 20_000), "text_length"),
    (lambda i: i[0].update(caption=["a"]), "type"),
    (lambda i: i[0].update(is_cn=False), "is_cn"),
    (lambda i: i[4].pop("is_cn"), "language"),
    (lambda i: i[0].update(f_path="../../../etc/passwd"), "path"),
    (lambda i: i[0].update(f_path="/etc/passwd"), "path"),
    (lambda i: i[0].update(f_path="images\\x.png"), "path"),
    (lambda i: i[0].update(f_path="images/\x00.png"), "path"),
    (lambda i: i[0].update(f_path="images/none.png"), "image_missing"),
    (lambda i: i[0].update(f_path="images"), "image_broken"),
    (lambda i: i[0].update(f_path="/".join(["a" * 200] * 40)), "path"),
    (lambda i: i.append(i[0]), "image_twice"),
    (lambda i: i[0].update(split="val"), "split"),
    (lambda i: i[0].update(split="evening"), "split"),
    (lambda i: region(i)["segmentation"].update(size=[9, 16]), "rle"),
    (lambda i: region(i)["segmentation"].update(counts="~~"), "rle"),
    (lambda i: region(i).update(segmentation=[[1, 2, 3, 4]]), "type"),
    (lambda i: region(i).update(bbox=[0.6, 0.25, 0.9, 0.75, 0.9]), "rle_box"),
]


@pytest.mark.parametrize(("change", "rule"), BROKEN)
def test_every_rule_can_be_broken(change: Callable[[list[Any]], Any], rule: str, tmp_path: Path) -> None:
    found = broken(tmp_path, change)
    assert found.get(rule), found
    assert set(found) <= {rule, "language", "text_case", "box_range", "rle_box", "finite"}, found


def test_an_image_in_two_splits_and_its_group(tmp_path: Path) -> None:
    for split, sample in (("train", make_sample(1)), ("val", make_sample(1, split="val"))):
        with finehard_json_writer(tmp_path, split) as writer:  # type: ignore[arg-type]
            writer.add(sample)
            writer.finish()
    report = validate_set(tmp_path, images="none")
    assert report.broken == {"two_splits": 1}
    assert "is in train and val" in report.examples["two_splits"][0].message


def test_a_group_in_two_splits(tmp_path: Path) -> None:
    for split, number in (("train", 1), ("val", 2)):
        with finehard_json_writer(tmp_path, split) as writer:  # type: ignore[arg-type]
            writer.add(make_sample(number, split=split, group="same"))
            writer.finish()
    report = validate_set(tmp_path, images="none")
    assert report.broken == {"two_splits": 1}
    assert report.examples["two_splits"][0].field == "group"


def test_links_that_leave_the_set_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes(SAMPLES[0].data)
    folder = tmp_path / "set"
    write_set(folder, "finehard-json")
    image = next((folder / "images").rglob("*.png"))
    image.unlink()
    image.symlink_to(outside)
    (folder / "train" / "more.json").symlink_to(outside)
    loop = folder / "train" / "loop.json"
    loop.symlink_to(loop)
    report = validate_set(folder)
    assert report.broken["path_link"] == 2
    assert "file" in report.broken


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    write_set(tmp_path, "finehard-json")
    os.mkfifo(tmp_path / "train" / "pipe.json")
    image = next((tmp_path / "images").rglob("*.png"))
    image.unlink()
    os.mkfifo(image)
    report = validate_set(tmp_path)
    assert report.broken["file"] == 1
    assert report.broken["image_broken"] == 1


def test_changed_missing_and_extra_files_are_noticed(tmp_path: Path) -> None:
    write_set(tmp_path, "webdataset")
    shard = tmp_path / "train" / "train-00000.tar"
    (tmp_path / "train" / "extra.tar").write_bytes(shard.read_bytes())
    (tmp_path / "val" / "val-00000.tar").unlink()
    report = validate_set(tmp_path)
    assert report.broken["file_hash"] == 2
    assert report.broken["image_twice"] == 5


def test_a_changed_image_is_noticed_when_it_is_hashed(tmp_path: Path) -> None:
    write_set(tmp_path, "coco")
    image = tmp_path / "images" / SAMPLES[0].file_name
    image.write_bytes(SAMPLES[1].data)
    assert validate_set(tmp_path).is_valid
    assert validate_set(tmp_path, images="whole").broken == {"image_hash": 1}
    image.write_bytes(b"GIF89a")
    assert validate_set(tmp_path).broken == {"image_broken": 1}


def change_coco(folder: Path, change: Callable[[dict[str, Any]], Any]) -> dict[str, int]:
    write_set(folder, "coco")
    (folder / "index.json").unlink()
    path = folder / "annotations" / "instances_train-train-00000.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    return dict(validate_set(folder, "coco").broken)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda d: d["annotations"][0].update(id=2), "id_twice"),
        (lambda d: d["annotations"][0].update(id=0), "id_twice"),
        (lambda d: d["annotations"][0].update(image_id=77), "reference"),
        (lambda d: d["annotations"][0].update(category_id=[1]), "reference"),
        (lambda d: d["annotations"][0].update(bbox=[10, 2, 10, 4]), "box_range"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, -1, 4]), "box_order"),
        (lambda d: d["annotations"][0].update(bbox=None), "type"),
        (lambda d: d["annotations"][0]["negatives"].pop(), "negatives_count"),
        (lambda d: d["annotations"][0].update(caption="Upper"), "text_case"),
        (lambda d: d["annotations"][0]["segmentation"].update(counts="x"), "rle"),
        (lambda d: d["images"].append(d["images"][0]), "id_twice"),
        (lambda d: d["images"][0].update(width="16"), "type"),
        (lambda d: d.pop("categories"), "field"),
        (lambda d: d["categories"].append(d["categories"][0]), "id_twice"),
    ],
)
def test_broken_coco(change: Callable[[dict[str, Any]], Any], rule: str, tmp_path: Path) -> None:
    found = change_coco(tmp_path, change)
    assert found.get(rule), found


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (b"", "file"),
        (b"[", "file"),
        (b'[{"caption": "x"', "file"),
        (b"[1 2]", "file"),
        (b"[1,]", "file"),
        (b"[1] [2]", "file"),
        (b'{"a": 1}\n{"a": 2}', "type"),
        (b"nothing", "file"),
        (b"\xff\xfe[", "file"),
        (b"[" * 100_000, "file"),
        (b'["' + b"x" * 40_000_000 + b'"]', "too_large"),
        (b"[" + b"9" * 10_000 + b"]", "file"),
        (b"[1e999]", "type"),
        (b'{"a": []}', "type"),
        (b"\x80\x04\x95pickle", "file"),
    ],
)
def test_damaged_json_is_a_finding(text: bytes, rule: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(text)
    report = validate_set(tmp_path, "finehard-json")
    assert report.broken[rule] or (rule == "type" and report.images == 0), report.broken
    coco = validate_set(tmp_path, "coco")
    assert not coco.is_valid


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bytes_of_a_set_changed_anywhere_never_crash_it(data: st.DataObject, tmp_path: Path) -> None:
    kind = data.draw(st.sampled_from(sorted(WRITERS)))
    folder = tmp_path / kind
    if not folder.exists():
        write_set(folder, kind)
    (path,) = [p for p in folder.rglob("*") if p.is_file() and "train" in p.name]
    whole = path.read_bytes()
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    path.write_bytes(raw[:cut] if data.draw(st.booleans()) else raw)
    try:
        report = validate_set(folder, kind)  # type: ignore[arg-type]
        assert path.read_bytes() == whole or report.broken["file_hash"] == 1
    finally:
        path.write_bytes(whole)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("caption", "short_caption", "f_path", "bbox_info", "bbox", "short_expr", "long_expr"),
                    *(
                        "flag_short_neg",
                        "short_expr_negs",
                        "segmentation",
                        "size",
                        "counts",
                        "images",
                        "width",
                    ),
                    *(
                        "annotations",
                        "categories",
                        "id",
                        "image_id",
                        "license",
                        "licenses",
                        "sha256",
                        "is_cn",
                    ),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSON_VALUES)
def test_no_json_crashes_it(value: Any, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([value], ensure_ascii=True))
    assert not validate_set(tmp_path, "finehard-json").is_valid
    document = value if isinstance(value, dict) else {"images": [value], "annotations": [value]}
    (tmp_path / "x.json").write_text(json.dumps(document, ensure_ascii=True))
    validate_set(tmp_path, "coco")


def test_parquet_of_foreign_columns_is_a_finding(tmp_path: Path) -> None:
    pq.write_table(pa.table({"caption": [1, 2], "regions": ["x", None]}), tmp_path / "train.parquet")
    report = validate_set(tmp_path)
    assert report.format == "finehard-parquet"
    assert report.broken["type"] == 4
    assert report.broken["field"] == 4
    (tmp_path / "train.parquet").write_bytes(b"PAR1 no")
    assert validate_set(tmp_path).broken == {"file": 1, "empty": 1}


def test_broken_archives(tmp_path: Path) -> None:
    write_set(tmp_path, "webdataset")
    (tmp_path / "index.json").unlink()
    shard = tmp_path / "train" / "train-00000.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    assert validate_set(tmp_path).broken["file"] == 1
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("../../x.png", "alone.png", "b.json"):
            info = tarfile.TarInfo(name)
            info.size = len(SAMPLES[0].data)
            tar.addfile(info, io.BytesIO(SAMPLES[0].data))
        link = tarfile.TarInfo("l.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    shard.write_bytes(stream.getvalue())
    found = validate_set(tmp_path).broken
    assert found["sample"] == 3
    assert found["path_link"] == 1


def test_a_card_without_configs(tmp_path: Path) -> None:
    write_set(tmp_path, "hf")
    (tmp_path / "README.md").write_text("# Cups\n")
    assert validate_set(tmp_path).broken == {"card": 1}
    (tmp_path / "README.md").write_text("---\n: [\n---\n")
    assert validate_set(tmp_path).broken == {"card": 1}
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- data_files:\n  - {split: train, path: data/train-*.parquet}\n---\n"
    )
    assert validate_set(tmp_path).broken == {"card": 1}


def test_many_findings_keep_a_few_examples(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([{}] * 1000))
    report = validate_set(tmp_path)
    assert report.broken["field"] == 4000
    assert len(report.examples["field"]) == EXAMPLES_PER_RULE
    assert report.examples["field"][0].item == "[0]"


def test_calls_that_name_no_set(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not there"):
        validate_set(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"no \.json, \.parquet or \.tar"):
        validate_set(tmp_path)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ConfigError, match="this is no webdataset set"):
        validate_set(tmp_path, "webdataset")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train/a-00000.json", "train"),
        ("data/val-part-00000.parquet", "val"),
        ("annotations/instances_test-00000.json", "test"),
        ("dev/x.tar", "val"),
        ("train/val_scenes-00000.json", "train"),
        ("annotations/instances_train-val2017-00000.json", "train"),
        ("training_val/x.tar", ""),
        ("x.json", ""),
    ],
)
def test_splits_are_read_from_names(path: str, split: str) -> None:
    assert split_of_file(path) == split


@given(st.lists(JSON_VALUES, max_size=5), st.integers(1, 40))
def test_items_are_those_of_json_load_however_small_the_pieces(values: list[Any], chunk: int) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or chunk, chunk) if size != -1 else -1)

    text = json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass")
    items = JsonItems(Slow(text))
    found = [item.value for item in items]
    if items.fault is None:
        assert repr(found) == repr(json.loads(json.dumps(values)))
    else:
        assert b"\xed" in text  # a lone surrogate is no UTF-8


def test_a_large_file_is_read_in_little_memory(tmp_path: Path) -> None:
    import tracemalloc

    sample: TrainingSample = make_sample(0)
    with finehard_json_writer(tmp_path, "train") as writer:
        for _ in range(3000):
            writer.add(sample)
        (file,) = writer.finish()
    tracemalloc.start()
    with (tmp_path / file.path).open("rb") as stream:
        assert sum(1 for _ in JsonItems(stream)) == 3000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert file.num_bytes > 3_500_000
    assert peak < 3_000_000
