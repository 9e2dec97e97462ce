"""Truth of images: from sidecars, from other shards, from published folders; and which vocabulary fits it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovsops.errors import ConfigError, RowError
from ovsops.images.decode import DecodeConfig
from ovsops.miniature.scene import draw_scene
from ovsops.text.vocabulary import Vocabulary, load_vocabulary
from pipelines.evaluation.classes import Classes, check_same_classes
from pipelines.evaluation.labelled import LabelledImage, labelled_images
from pipelines.evaluation.truths import WORLD_CLASSES, BenchmarkTruth, WorldShardsTruth, WorldTruth
from pipelines.readers import ReaderConfig
from pipelines.shards import expand_inputs
from pipelines.storage import StorageOptions, open_storage
from pipelines.truth.benchmarks import find_benchmark
from tests.tiny.world import SEEDS, SMALL, WORLD, label_world, write_world


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "in")
    label_world(folder / "in", folder / "out", lambda truth: truth)
    return folder


def images_of(folder: Path) -> list[LabelledImage]:
    return list(labelled_images(open_storage(str(folder / "out"))))


def test_sidecars_hold_the_truth_of_every_scene(labelled: Path) -> None:
    images = images_of(labelled)
    assert [int(image.key) for image in images] == list(SEEDS)
    for image, seed in zip(images, SEEDS, strict=True):
        assert np.array_equal(WorldTruth().places(image), draw_scene(seed, SMALL).semantic)


def test_truth_in_other_shards_is_found_by_shard_and_key(labelled: Path) -> None:
    shards = expand_inputs([str(labelled / "in" / "*.tar")])
    truth = WorldShardsTruth(shards, ReaderConfig(), StorageOptions())
    for image in reversed(images_of(labelled)):
        assert np.array_equal(truth.places(image), WorldTruth().places(image))
    stranger = LabelledImage(**{**vars(images_of(labelled)[0]), "shard": "other.tar"})
    with pytest.raises(RowError, match=r"no shard of this name \(they have world-000000\.tar"):
        truth.places(stranger)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sidecar": None}, "no truth JSON beside"),
        ({"sidecar": "{}"}, "has no field 'format'"),
        ({"size_hw": (20, 48)}, r"truth is 48x48 pixels \(h x w\), the labelled image 20x48"),
    ],
)
def test_truth_that_cannot_be_used_is_a_row_error(
    labelled: Path, changes: dict[str, object], message: str
) -> None:
    image = LabelledImage(**{**vars(images_of(labelled)[0]), **changes})
    with pytest.raises(RowError, match=message):
        WorldTruth().places(image)


def test_the_worlds_vocabulary_is_that_of_its_truth() -> None:
    vocabulary = load_vocabulary(WORLD)
    check_same_classes(WORLD_CLASSES, vocabulary, run="r", truth="world")
    assert Classes.of_vocabulary(vocabulary, has_background=False) == WORLD_CLASSES


def test_a_vocabulary_with_shuffled_or_missing_names_is_refused_naming_both() -> None:
    plain = load_vocabulary(WORLD).to_mapping()
    names = {spec["id"]: spec["name"] for spec in plain["classes"]}
    for spec in plain["classes"]:
        spec["name"] = names[{1: 2, 2: 1}.get(spec["id"], spec["id"])]
    plain["classes"] = plain["classes"][:-1]
    with pytest.raises(
        ConfigError,
        match=r"id 1 is 'box' in the run and 'ball' in the truth; .*id 20 is no class in the run and 'stone'",
    ):
        check_same_classes(WORLD_CLASSES, Vocabulary.from_mapping(plain), run="r", truth="world")


def test_published_truth_is_found_by_the_name_of_the_image(labelled: Path, tmp_path: Path) -> None:
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("2007_000033\n")
    Image.new("RGB", (6, 4)).save(tmp_path / "JPEGImages/2007_000033.jpg")
    labels = np.array([[0, 1, 1, 255, 20, 20]] * 4, np.uint8)
    Image.fromarray(labels).save(tmp_path / "SegmentationClass/2007_000033.png")
    image = LabelledImage(
        **{**vars(images_of(labelled)[0]), "key": "JPEGImages/2007_000033", "size_hw": (4, 6)}
    )
    found = {
        name: BenchmarkTruth.open(find_benchmark(name), tmp_path, "val", DecodeConfig())
        for name in ("voc_21", "voc_20")
    }
    assert found["voc_21"].places(image)[0].tolist() == [0, 1, 1, -1, 20, 20]
    assert found["voc_20"].places(image)[0].tolist() == [-1, 1, 1, -1, 20, 20]
    assert 0 in found["voc_21"].classes.counted
    assert 0 not in found["voc_20"].classes.counted
    other = LabelledImage(**{**vars(image), "key": "2007_000032"})
    with pytest.raises(RowError, match="the split of voc_21 has no image '2007_000032'"):
        found["voc_21"].places(other)
