"""`ovsops export` as a user calls it, on a run that was really labelled."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

Call = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]
INLINE = ("--engine", "inline")


@pytest.fixture
def labelled(write_recipe: Write, ovsops: Call, tmp_path: Path) -> Path:
    """An output of six images in two shards."""
    code, _, err = ovsops("run", write_recipe(broken_every=6), *INLINE)
    assert code == 0, err
    return tmp_path / "out"


def test_formats_are_chosen_by_name(labelled: Path, ovsops: Call, tmp_path: Path) -> None:
    rows = sum(pq.read_table(path).num_rows for path in (labelled / "instances").iterdir())
    for name, file in (("yolo-seg", "data.yaml"), ("cvat", "annotations.xml"), ("hf", "README.md")):
        code, out, err = ovsops("export", labelled, "--to", name, "--out", tmp_path / name)
        assert code == 0, err
        assert f"5 images and {rows} annotations as {name} in {tmp_path / name}" in out
        assert "1 image has no labels because they failed" in err
        assert (tmp_path / name / file).is_file()
        document = json.loads((tmp_path / name / "export.json").read_text("utf-8"))
        assert document["lost"]["images_failed"]["count"] == 1
        assert [c["id"] for c in document["categories"]] == [1, 7]


def test_an_export_is_not_written_over(labelled: Path, ovsops: Call, tmp_path: Path) -> None:
    words = ("export", labelled, "--out", tmp_path / "coco")
    assert ovsops(*words)[0] == 0
    code, _, err = ovsops(*words)
    assert (code, "holds a finished export" in err) == (5, True)
    assert ovsops(*words, "--replace")[0] == 0
    code, _, err = ovsops("export", labelled, "--out", tmp_path)
    assert (code, "holds other files" in err) == (5, True)


def test_shards_that_are_gone_end_with_3_and_can_be_named(
    labelled: Path, ovsops: Call, tmp_path: Path
) -> None:
    words = ("export", labelled, "--to", "webdataset", "--out")
    (tmp_path / "in").rename(tmp_path / "moved")
    code, out, err = ovsops(*words, tmp_path / "x")
    assert code == 3
    assert "0 images and 0 annotations" in out
    assert "2 shards are not where they were read" in err
    assert "5 images were left out with their regions: their bytes are not there any more" in err
    code, out, err = ovsops(*words, tmp_path / "y", "--shards", tmp_path / "moved" / "*.tar")
    assert code == 0, err
    assert "5 images" in out
    (tmp_path / "other").mkdir()
    (tmp_path / "moved" / "shard-000000.tar").rename(tmp_path / "other" / "no.tar")
    code, _, err = ovsops(*words, tmp_path / "z", "--shards", tmp_path / "other" / "*.tar")
    assert code == 2
    assert "no shard of that name was labelled; those of the output are called shard-000000.tar" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "hf", "--images", "reference"), "hf is nothing without its images"),
        (("--to", "cvat", "--per-shard"), "are for coco, not for cvat"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    words: tuple[str, ...], message: str, ovsops: Call, tmp_path: Path
) -> None:
    code, _, err = ovsops("export", tmp_path / "out", "--out", tmp_path / "x", *words)
    assert code == 2
    assert message in err
