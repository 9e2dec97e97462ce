"""Where bytes come from: shards that are gone, changed, moved; folders that are written whole or not at all."""

import fcntl
import json
import os
import shutil
import tracemalloc
from hashlib import sha256
from pathlib import Path

import pytest

from ovsops.errors import ConfigError, OutputError, StorageError
from pipelines.exporters.format import FORMATS, FormatName
from pipelines.exporters.options import ExportOptions
from pipelines.exporters.run import copied_name, export_run
from pipelines.exporters.sources import Inputs
from pipelines.storage import open_storage
from tests.pipelines.exporters.made_run import (
    MadeRun,
    blob,
    image,
    make_run,
    picture,
    put_manifest,
    put_shard,
    region,
)
from tests.pipelines.tars import make_tar

COPYING = [name for name in FORMATS if name != "coco"]


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    return make_run(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", COPYING)
def test_a_shard_that_is_gone_is_counted(name: FormatName, run: MadeRun, tmp_path: Path) -> None:
    (run.inputs / "a.tar").unlink()
    shutil.rmtree(run.inputs / "photos")
    report = export_run(run.storage, tmp_path / "x", ExportOptions(format=name))
    assert (report.images, report.annotations) == (1, 7)
    assert (report.lost["shards_gone"], report.lost["images_gone"]) == (2, 4)
    assert report.is_incomplete
    assert any(line.startswith("2 shards are not where") for line in report.sentences())


def test_images_whose_bytes_changed_are_left_out(run: MadeRun, tmp_path: Path) -> None:
    (run.inputs / "photos" / "two.png").write_bytes(picture(99, "PNG", (48, 32)))
    (run.inputs / "photos" / "a.b" / "one.jpg").unlink()
    (run.inputs / "b.tar").write_bytes(make_tar([("x/0.webp", picture(5, "WEBP", (33, 27)))]))
    report = export_run(run.storage, tmp_path / "x", ExportOptions(format="webdataset"))
    assert report.images == 2
    assert (report.lost["images_changed"], report.lost["images_gone"]) == (2, 1)


def test_a_damaged_archive_gives_what_can_be_read(run: MadeRun, tmp_path: Path) -> None:
    data = (run.inputs / "a.tar").read_bytes()
    (run.inputs / "a.tar").write_bytes(data[: data.index(b"1.JPEG") + 600])
    report = export_run(run.storage, tmp_path / "x", ExportOptions(format="hf"))
    assert (report.images, report.lost["images_gone"]) == (4, 1)


def test_shards_that_moved_are_found_where_they_are_said_to_be(run: MadeRun, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (run.inputs).rename(elsewhere)
    moved = {"a.tar": str(elsewhere / "a.tar"), "b.tar": str(elsewhere / "b.tar")}
    moved["photos/folder-000000"] = str(elsewhere / "photos")
    report = export_run(run.storage, tmp_path / "x", ExportOptions(format="cvat"), Inputs(moved=moved))
    assert (report.images, report.lost["images_gone"]) == (5, 0)
    report = export_run(run.storage, tmp_path / "y", ExportOptions(format="coco"), Inputs(moved=moved))
    assert report.lost["file_names_without_extension"] == 0


@pytest.mark.parametrize("name", FORMATS)
def test_a_killed_export_leaves_no_trace_under_its_name(
    name: FormatName, run: MadeRun, tmp_path: Path
) -> None:
    """What a kill leaves lies under another name; the next export removes it and gives the bytes of one undisturbed."""
    export_run(run.storage, tmp_path / "x" / "first", ExportOptions(format=name))
    leftover = tmp_path / "x" / ".second.partial"
    (leftover / "images").mkdir(parents=True)
    (leftover / "images" / "half.jpg").write_bytes(b"half")
    export_run(run.storage, tmp_path / "x" / "second", ExportOptions(format=name))
    assert contents(tmp_path / "x" / "first") == contents(tmp_path / "x" / "second")
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["first", "second"]


def test_an_export_that_fails_leaves_nothing(run: MadeRun, tmp_path: Path) -> None:
    put_shard(run.storage, "z.tar", [image(0, "z", [])], publish=False)
    for name in FORMATS:
        with pytest.raises(OutputError, match=r"shard z\.tar is committed"):
            export_run(run.storage, tmp_path / "x" / name, ExportOptions(format=name))
    assert list((tmp_path / "x").iterdir()) == []


def test_folders_of_others_and_finished_exports_are_left_alone(run: MadeRun, tmp_path: Path) -> None:
    coco = ExportOptions(format="coco")
    (tmp_path / "x").mkdir()
    export_run(run.storage, tmp_path / "x", coco)
    before = contents(tmp_path / "x")
    with pytest.raises(OutputError, match=r"holds a finished export.*--replace"):
        export_run(run.storage, tmp_path / "x", coco)
    with pytest.raises(OutputError, match="holds other files"):
        export_run(run.storage, tmp_path, ExportOptions(format="coco", replace=True))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is no folder"):
        export_run(run.storage, tmp_path / "file", coco)
    with pytest.raises(StorageError, match="cannot be written"):
        export_run(run.storage, tmp_path / "file" / "below", coco)
    assert contents(tmp_path / "x") == before
    export_run(run.storage, tmp_path / "x", ExportOptions(format="cvat", replace=True))
    assert (tmp_path / "x" / "annotations.xml").is_file()
    assert not (tmp_path / "x" / "instances.json").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "in", "out", "x"]


def test_two_exports_into_one_folder_are_kept_apart(run: MadeRun, tmp_path: Path) -> None:
    partial = tmp_path / ".x.partial"
    partial.mkdir()
    claim = os.open(partial, os.O_RDONLY)
    fcntl.flock(claim, fcntl.LOCK_EX)
    try:
        with pytest.raises(OutputError, match="another export is writing"):
            export_run(run.storage, tmp_path / "x", ExportOptions(format="coco"))
    finally:
        os.close(claim)
    assert partial.is_dir()


def test_names_of_copies_stay_below_the_folder() -> None:
    jpeg = picture(0, "JPEG", (4, 4))
    for key in ("../../etc/passwd", "a/../b", "/abs", "..", "", "a\nb", "猫", "C:\\x", "x" * 300, "-rf"):
        name = copied_name({"key": key, "image_uid": "0123456789abcdef0123"}, jpeg, "images")
        folder, _, file = name.rpartition("/")
        assert folder == "images"
        assert file.isascii()
        assert len(file) < 90
        assert not set(file) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
        assert file.endswith("-0123456789abcdef.jpg")
        assert not file.startswith((".", "-"))


@pytest.mark.parametrize("name", ["yolo-seg", "fiftyone", "webdataset", "hf"])
def test_formats_that_are_nothing_without_images_say_so(name: FormatName) -> None:
    with pytest.raises(ConfigError, match=f"{name} is nothing without its images"):
        ExportOptions(format=name, images="reference")


def test_options_of_coco_are_refused_elsewhere() -> None:
    with pytest.raises(ConfigError, match="are for coco, not for cvat"):
        ExportOptions(format="cvat", segmentation="polygon")


def test_tasks_and_masks_can_name_images_instead_of_copying_them(run: MadeRun, tmp_path: Path) -> None:
    options = ExportOptions(format="labelstudio", images="reference", image_prefix="s3://bucket/")
    export_run(run.storage, tmp_path / "x", options)
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == [
        "export.json",
        "label_config.xml",
        "tasks-00000.json",
    ]
    tasks = json.loads((tmp_path / "x" / "tasks-00000.json").read_text("utf-8"))
    assert [task["data"]["image"] for task in tasks][:2] == [
        "s3://bucket/a/x/0.jpg",
        "s3://bucket/a/%E7%8C%AB%20%3Dx.png",
    ]


@pytest.mark.parametrize("name", ["coco", "webdataset"])
def test_memory_does_not_grow_with_the_run(name: FormatName, tmp_path: Path) -> None:
    """4 times the shards, no more memory (1.5 times allowed)."""
    peaks = []
    data = picture(0, "JPEG", (64, 48))
    regions = [region(blob(seed, (48, 64)), 17, 0.5) for seed in range(2)]
    size = {"width": 64, "height": 48, "sha256": sha256(data).hexdigest()}
    for num_shards in (2, 8):
        storage = open_storage(str(tmp_path / f"out{num_shards}"))
        put_manifest(storage)
        for number in range(num_shards):
            shard = f"{number:03d}.tar"
            (tmp_path / shard).write_bytes(make_tar([(f"{n}.jpg", data) for n in range(30)]))
            records = [image(n, str(n), regions, **size) for n in range(30)]
            put_shard(storage, shard, records, url=str(tmp_path / shard))
        tracemalloc.start()
        export_run(storage, tmp_path / f"x{num_shards}", ExportOptions(format=name))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
