"""Writers of training sets: what foreign readers find in them, equal bytes, capped sizes, whole files or none."""

import hashlib
import json
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pycocotools.coco import COCO

from ovsops.errors import ConfigError, StorageError
from pipelines.readers import ReaderConfig
from pipelines.training_sets.counts import SetCounts
from pipelines.training_sets.drops import Drops
from pipelines.training_sets.record import TrainingSample
from pipelines.writers.card import dataset_card
from pipelines.writers.coco_set import CocoSetWriter
from pipelines.writers.finehard_json import finehard_json_writer
from pipelines.writers.finehard_parquet import finehard_parquet_writer
from pipelines.writers.hf_folder import hf_writer
from pipelines.writers.webdataset import webdataset_writer
from pipelines.writers.whole_files import ImageFolder, SetWriter, write_index
from tests.pipelines.made_samples import CATEGORIES, chinese_sample, image_bytes, make_region, make_sample

SAMPLES = [make_sample(n) for n in range(4)] + [chinese_sample(4)]
Writer = SetWriter | CocoSetWriter


def coco_writer(folder: Path, split: Any, **options: Any) -> CocoSetWriter:
    return CocoSetWriter(folder, split, categories=CATEGORIES, info={}, **options)


WRITERS: dict[str, Callable[..., Writer]] = {
    "finehard-json": finehard_json_writer,
    "finehard-parquet": finehard_parquet_writer,
    "webdataset": webdataset_writer,
    "coco": coco_writer,
    "hf": hf_writer,
}


def write(folder: Path, kind: str, samples: list[TrainingSample] = SAMPLES, **options: Any) -> list[Path]:
    with WRITERS[kind](folder, "train", **options) as writer:
        for sample in samples:
            writer.add(sample)
        files = writer.finish()
    return [folder / file.path for file in files]


def load_as_the_trainer(path: Path) -> list[dict[str, Any]]:
    """What the published trainer takes from a file, and where it would break. Written from its list of fields alone."""
    batch = []
    for item in json.loads(path.read_text(encoding="utf-8")):
        captions = item["caption"].lower(), item["short_caption"].lower()
        if "is_cn" not in item:
            captions = captions[0], "a photo of " + captions[1]
        boxes, texts, groups = [], [], []
        regions = [] if "is_cn" in item else item["bbox_info"][:4]
        for region in regions:
            x1, y1, x2, y2 = region["bbox"][:4]
            if x1 > x2 or y1 > y2:
                raise ValueError("box is upside down")
            boxes.append((x1, y1, x2, y2))
            texts.append((region["short_expr"], region["long_expr"]))
            if region["flag_short_neg"] == 1:
                group = [region["short_expr"], *(text.lower() for text in region["short_expr_negs"].values())]
                if len(group) != 11:
                    raise ValueError(f"cannot reshape {len(group)} texts to 11")
                groups.append(group)
        batch.append(
            {"path": item["f_path"], "captions": captions, "boxes": boxes, "texts": texts, "groups": groups}
        )
    return batch


def test_the_published_trainers_loader_reads_the_json(tmp_path: Path) -> None:
    (path,) = write(tmp_path, "finehard-json")
    images = ImageFolder(tmp_path)
    assert [images.put(sample) for sample in SAMPLES] == [item["path"] for item in load_as_the_trainer(path)]
    first, chinese = load_as_the_trainer(path)[0], load_as_the_trainer(path)[4]
    assert (tmp_path / first["path"]).read_bytes() == SAMPLES[0].data
    assert first["boxes"] == [(0.25, 0.25, 0.5, 0.75)] * 2
    assert len(first["groups"]) == 1
    assert first["groups"][0][0] == "a red cup"
    assert first["groups"][0][1] == "a green cup"
    assert chinese["boxes"] == []
    assert chinese["captions"][1] == "桌上有杯子"
    items = json.loads(path.read_text(encoding="utf-8"))
    assert ["is_cn" in item for item in items] == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["short_expr_negs"].popitem(), "reshape 10"),
        (lambda r: r["short_expr_negs"].update({"10": "one more"}), "reshape 12"),
        (lambda r: r.update(bbox=[0.5, 0.1, 0.4, 0.2]), "upside down"),
        (lambda r: r.pop("short_expr"), "short_expr"),
        (lambda r: r.pop("flag_short_neg"), "flag_short_neg"),
    ],
)
def test_that_loader_fails_where_the_trainer_does(tmp_path: Path, change: Any, message: str) -> None:
    (path,) = write(tmp_path, "finehard-json")
    items = json.loads(path.read_text(encoding="utf-8"))
    change(items[0]["bbox_info"][0])
    path.write_text(json.dumps(items), encoding="utf-8")
    with pytest.raises((ValueError, KeyError), match=message):
        load_as_the_trainer(path)


def test_pandas_reads_the_parquet(tmp_path: Path) -> None:
    (path,) = write(tmp_path, "finehard-parquet")
    frame = pd.read_parquet(path)
    assert frame["caption"].tolist() == [sample.caption_long for sample in SAMPLES]
    region = frame["regions"][0][0]
    assert len(region["short_expr_negs"]) == len(region["neg_types"]) == len(region["neg_scores"]) == 10
    assert region["segmentation"]["size"].tolist() == [8, 16]
    assert frame["regions"][0][1]["segmentation"] is None
    assert len(frame["regions"][0][1]["short_expr_negs"]) == 0


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset", reason="webdataset is in the dev extra")
    paths = write(tmp_path, "webdataset", max_file_bytes=4000)
    assert len(paths) > 1
    read = list(wds.WebDataset([str(path) for path in paths], shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in read] == [sample.image_uid for sample in SAMPLES]
    assert read[0]["png"].size == (16, 8)
    assert read[0]["json"]["regions"][0]["bbox"] == [0.25, 0.25, 0.5, 0.75]
    raw = list(wds.WebDataset([str(path) for path in paths], shardshuffle=False))
    assert [sample["png"] for sample in raw] == [sample.data for sample in SAMPLES]


def test_the_label_job_reads_the_shards_again(tmp_path: Path) -> None:
    from pipelines.readers import read_shard
    from pipelines.shards import expand_inputs
    from pipelines.storage import StorageOptions

    write(tmp_path, "webdataset")
    (shard,) = expand_inputs([str(tmp_path / "train" / "*.tar")], StorageOptions())
    rows = [row for batch in read_shard(shard, ReaderConfig(), StorageOptions()) for row in batch.to_pylist()]
    assert [row["image"] for row in rows[:-1]] == [sample.data for sample in SAMPLES]
    assert [row["caption_long"] for row in rows[:-1]] == [sample.caption_long for sample in SAMPLES]
    assert [row["license"] for row in rows[:-1]] == [sample.license for sample in SAMPLES]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_the_coco_files(tmp_path: Path) -> None:
    (path,) = write(tmp_path, "coco")
    coco = COCO(str(path))
    assert coco.getImgIds() == [1, 2, 3, 4, 5]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert [a["id"] for a in annotations] == [1, 2]
    assert annotations[0]["bbox"] == [4.0, 2.0, 4.0, 4.0]
    assert coco.annToMask(annotations[0]).sum() == annotations[0]["area"] == 16
    assert annotations[1]["bbox"] == [4.0, 2.0, 4.0, 4.0]
    assert "segmentation" not in annotations[1]


def test_coco_ids_go_on_over_files_and_writers(tmp_path: Path) -> None:
    paths = write(tmp_path, "coco", max_file_bytes=1)
    assert len(paths) == len(SAMPLES)
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    assert [d["images"][0]["id"] for d in documents] == [1, 2, 3, 4, 5]
    ids = [a["id"] for d in documents for a in d["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    with coco_writer(tmp_path, "val", first_image_id=6, first_annotation_id=10) as writer:
        writer.add(make_sample(9, split="val"))
        (file,) = writer.finish()
    document = json.loads((tmp_path / file.path).read_text())
    assert document["images"][0]["id"] == 6
    assert document["annotations"][0]["id"] == 10


def test_datasets_opens_the_folder(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is in the dev extra")
    folder = tmp_path / "set"
    write(folder, "hf", SAMPLES, max_file_bytes=1)
    with hf_writer(folder, "val") as writer:
        writer.add(make_sample(7, split="val"))
        writer.finish()
    counts = counted([*SAMPLES, make_sample(7, split="val")])
    (folder / "README.md").write_text(
        dataset_card(counts, Drops(), name="Cups", provenance={}, made=[]), encoding="utf-8"
    )
    read = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in read.items()} == {"train": 5, "val": 1}
    row = read["train"][0]
    assert row["image"].size == (16, 8)
    assert row["regions"][0]["short_expr_negs"][0] == "a green cup"
    assert row["regions"][0]["bbox"] == [0.25, 0.25, 0.5, 0.75]
    raw = read["train"].cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in raw] == [sample.data for sample in SAMPLES]


def counted(samples: list[TrainingSample]) -> SetCounts:
    counts = SetCounts()
    for sample in samples:
        counts.add(sample)
    return counts


def test_the_card_counts_what_there_is() -> None:
    counts = counted(SAMPLES)
    drops = Drops()
    drops.add("D_LICENSE", 3)
    card = dataset_card(
        counts, drops, name="Cups", provenance={"recipe": "ab12"}, made=["Labelled.", "Cut\n# by hash."]
    )
    assert "| cc0 | 2 |" in card
    assert "| (unknown) | 3 |" in card
    assert "3 of 5 images came without a licence" in card
    assert "| D_LICENSE | 3 |" in card
    assert "2. Cut # by hash." in card
    assert "recipe: ab12" in card
    assert "9 regions, 5 of them with 10 negatives" in card
    assert card == dataset_card(
        counts, drops, name="Cups", provenance={"recipe": "ab12"}, made=["Labelled.", "Cut\n# by hash."]
    )


def test_hostile_licences_stay_in_their_cell() -> None:
    counts = counted([make_sample(1, license="a | b <script> ![x](http://y)")])
    card = dataset_card(counts, Drops(), name="x", provenance={}, made=[])
    assert "a \\| b &lt;script> !\\[x](http://y)" in card


def test_counts_of_shards_add_up() -> None:
    whole, parts = counted(SAMPLES), counted(SAMPLES[:2])
    parts.merge(SetCounts.from_plain(json.loads(json.dumps(counted(SAMPLES[2:]).to_plain()))))
    assert parts.to_plain() == whole.to_plain()


@pytest.mark.parametrize("kind", WRITERS)
def test_equal_samples_give_equal_bytes(kind: str, tmp_path: Path) -> None:
    paths = [write(tmp_path / name, kind, max_file_bytes=3000) for name in ("a", "b")]
    assert [p.name for p in paths[0]] == [p.name for p in paths[1]]
    assert [p.read_bytes() for p in paths[0]] == [p.read_bytes() for p in paths[1]]


@pytest.mark.parametrize("kind", WRITERS)
def test_files_are_hashed_counted_and_indexed(kind: str, tmp_path: Path) -> None:
    with WRITERS[kind](tmp_path, "train", max_file_bytes=1) as writer:
        for sample in SAMPLES:
            writer.add(sample)
        files = writer.finish()
    for file in files:
        data = (tmp_path / file.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.num_bytes, file.sha256)
    assert sum(file.num_images for file in files) == 5
    assert sum(file.num_regions for file in files) == 9
    index = json.loads(write_index(tmp_path, kind, reversed(files), {"seed": 1}).read_text())
    assert [file["path"] for file in index["files"]] == [file.path for file in files]
    assert index["seed"] == 1


@pytest.mark.parametrize("kind", WRITERS)
def test_a_failure_leaves_no_file(kind: str, tmp_path: Path) -> None:
    def fail() -> None:
        with WRITERS[kind](tmp_path, "train") as writer:
            writer.add(SAMPLES[0])
            raise KeyError("elsewhere")

    with pytest.raises(KeyError):
        fail()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_written_and_another_split(kind: str, tmp_path: Path) -> None:
    with WRITERS[kind](tmp_path, "val") as writer:
        with pytest.raises(ConfigError, match="of split train, this writer's is val"):
            writer.add(SAMPLES[0])
        assert writer.finish() == []


@pytest.mark.parametrize("kind", WRITERS)
def test_shards_of_a_split_have_names_of_their_own(kind: str, tmp_path: Path) -> None:
    paths = [*write(tmp_path, kind, stem="a{}*-1"), *write(tmp_path, kind, stem="b")]
    assert len(set(paths)) == 2
    assert paths[0].stem.endswith("a{}*-1-00000")
    for stem in ("a/b", "..", "", "a\n"):
        with pytest.raises(ConfigError, match="is no file name"):
            write(tmp_path, kind, stem=stem)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        write(tmp_path / "file", "finehard-json")


def test_numbers_are_short_and_finite(tmp_path: Path) -> None:
    sample = make_sample(0, regions=(make_region(1, box=(0.1, 0.2, 0.30000001192092896, 1.0)),))
    (path,) = write(tmp_path, "finehard-json", [sample])
    box = json.loads(path.read_text())[0]["bbox_info"][0]["bbox"]
    assert box == [0.1, 0.2, 0.3, 1.0, 0.9]
    assert all(map(math.isfinite, box))


def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    sample = make_sample(0, data=image_bytes(0, "BMP", size_wh=(256, 256)), extension="png")

    def peak(count: int) -> int:
        tracemalloc.start()
        with hf_writer(tmp_path / str(count), "train", max_file_bytes=2**30) as writer:
            for _ in range(count):
                writer.add(sample)
            writer.finish()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(1500) < 4 * peak(400)
