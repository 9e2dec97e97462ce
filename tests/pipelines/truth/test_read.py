"""Small trees in the published layouts, drawn here and read back exactly; what is wrong with them is said."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovsops.errors import ConfigError, ImageDecodeError, ShapeError, StorageError
from ovsops.metrics.segmentation import IGNORE, ConfusionCounts
from pipelines.truth.benchmarks import BENCHMARKS, find_benchmark
from pipelines.truth.read import TruthImage, read_truth

VALUES = np.array([[0, 1, 2], [19, 20, 255]], np.uint8)


def write_image(path: Path, size_hw: tuple[int, int] = (2, 3), *, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size_hw[::-1], (90, 120, 40)).save(path, exif=exif)


def write_labels(path: Path, values: np.ndarray, *, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    if palette:
        picture = Image.frombytes("P", picture.size, values.tobytes())
        picture.putpalette(bytes(range(256)) * 3)
    picture.save(path)


def write_list(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two validation images of VOC, and one that no list names."""
    for key in ("2007_000033", "2007_000042", "2011_000001"):
        write_image(tmp_path / "JPEGImages" / f"{key}.jpg")
        write_labels(tmp_path / "SegmentationClass" / f"{key}.png", VALUES, palette=True)
    write_list(tmp_path / "ImageSets/Segmentation/val.txt", "2007_000042", "2007_000033", "")
    write_list(tmp_path / "ImageSets/Segmentation/train.txt", "2011_000001")
    return tmp_path


def read(name: str, root: Path) -> list[TruthImage]:
    return list(read_truth(find_benchmark(name), root))


def test_voc_with_and_without_background(voc: Path) -> None:
    with_background, without = read("voc_21", voc), read("voc_20", voc)
    assert [image.key for image in with_background] == ["2007_000042", "2007_000033"]
    assert with_background[0].image_path == voc / "JPEGImages" / "2007_000042.jpg"
    assert with_background[0].labels.tolist() == [[0, 1, 2], [19, 20, 255]]
    assert without[0].labels.tolist() == [[255, 1, 2], [19, 20, 255]]
    assert [image.key for image in read_truth(find_benchmark("voc_21"), voc, split="train")] == [
        "2011_000001"
    ]


def test_context(tmp_path: Path) -> None:
    write_image(tmp_path / "JPEGImages/2008_000002.jpg")
    values = np.array([[0, 1, 59], [30, 5, 0]], np.uint8)
    write_labels(tmp_path / "SegmentationClassContext/2008_000002.png", values)
    write_list(tmp_path / "ImageSets/SegmentationContext/val.txt", "2008_000002")
    assert read("context_60", tmp_path)[0].labels.tolist() == values.tolist()
    assert read("context_59", tmp_path)[0].labels.tolist() == [[255, 1, 59], [30, 5, 255]]


def coco_tree(root: Path, suffix: str, values: np.ndarray) -> None:
    for key in ("000000000139", "000000000285"):
        write_image(root / f"images/val2017/{key}.jpg")
        write_labels(root / f"annotations/val2017/{key}{suffix}", values)


def test_coco_stuff_as_published_and_as_converted(tmp_path: Path) -> None:
    """By hand: value 0 is person (COCO id 1), 89 toothbrush (90, the 80th thing), 91 banner (92), 181 wood (182)."""
    coco_tree(tmp_path / "raw", ".png", np.array([[0, 12, 89], [91, 181, 255]], np.uint8))
    coco_tree(tmp_path / "converted", "_labelTrainIds.png", np.array([[0, 11, 79], [80, 170, 255]], np.uint8))
    raw, converted = read("coco_stuff_171", tmp_path / "raw"), read("coco_stuff_171", tmp_path / "converted")
    assert [image.key for image in raw] == ["000000000139", "000000000285"]
    assert raw[0].labels.tolist() == converted[0].labels.tolist() == [[1, 12, 80], [81, 171, 255]]
    names = find_benchmark("coco_stuff_171").class_names
    assert [names[i] for i in (1, 12, 80, 81, 171)] == ["person", "stop sign", "toothbrush", "banner", "wood"]


def test_coco_object_makes_background_of_stuff_and_of_what_is_not_labelled(tmp_path: Path) -> None:
    coco_tree(tmp_path / "raw", ".png", np.array([[0, 12, 89], [91, 181, 255]], np.uint8))
    coco_tree(tmp_path / "converted", "_instanceTrainIds.png", np.array([[1, 12, 80], [0, 0, 0]], np.uint8))
    for name in ("raw", "converted"):
        assert read("coco_object_81", tmp_path / name)[0].labels.tolist() == [[1, 12, 80], [0, 0, 0]]
    assert find_benchmark("coco_object_81").class_names[80] == "toothbrush"


def test_a_converted_map_is_preferred_to_the_published_one(tmp_path: Path) -> None:
    coco_tree(tmp_path, ".png", np.full((2, 3), 91, np.uint8))
    coco_tree(tmp_path, "_labelTrainIds.png", np.full((2, 3), 5, np.uint8))
    assert (read("coco_stuff_171", tmp_path)[0].labels == 6).all()


def test_ade20k(tmp_path: Path) -> None:
    write_image(tmp_path / "images/validation/ADE_val_00000001.jpg")
    values = np.array([[0, 1, 150], [7, 0, 3]], np.uint8)
    write_labels(tmp_path / "annotations/validation/ADE_val_00000001.png", values)
    (tmp_path / "images/validation/._ADE_val_00000001.jpg").write_bytes(b"left by an archiver")
    (image,) = read("ade20k_150", tmp_path)
    assert image.key == "ADE_val_00000001"
    assert image.labels.tolist() == [[255, 1, 150], [7, 255, 3]]


def test_cityscapes_with_full_and_with_train_ids(tmp_path: Path) -> None:
    """Full ids 7 road, 11 building, 33 bicycle; 0-6 and 29-30 (caravan, trailer) are not evaluated."""
    full = np.array([[7, 11, 33], [0, 29, 30]], np.uint8)
    short = np.array([[0, 2, 18], [255, 255, 255]], np.uint8)
    for city, key in (("munster", "munster_000000_000019"), ("frankfurt", "frankfurt_000000_000294")):
        write_image(tmp_path / f"leftImg8bit/val/{city}/{key}_leftImg8bit.png")
        write_labels(tmp_path / f"gtFine/val/{city}/{key}_gtFine_labelIds.png", full)
    short_path = "gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelTrainIds.png"
    write_labels(tmp_path / short_path, short)
    images = read("cityscapes_19", tmp_path)
    assert [image.key for image in images] == ["frankfurt_000000_000294", "munster_000000_000019"]
    for image in images:
        assert image.labels.tolist() == [[1, 3, 19], [255, 255, 255]]
    assert find_benchmark("cityscapes_19").class_names[3] == "building"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_value_of_an_encoding_is_an_id_of_the_vocabulary(name: str) -> None:
    benchmark = find_benchmark(name)
    num_classes = len(benchmark.vocabulary.classes)
    assert benchmark.vocabulary.name == name
    assert benchmark.vocabulary.ids == tuple(range(1, num_classes + 1))
    assert int(name.rsplit("_", 1)[1]) == len(benchmark.counted_ids)
    assert bool(benchmark.vocabulary.background) == benchmark.has_background
    for spec in benchmark.vocabulary.classes:
        assert benchmark.vocabulary.prompts_of(spec, "en")
        assert all("\u4e00" <= c <= "\u9fff" for c in "".join(spec.prompts["zh"]))
    for encoding in benchmark.encodings:
        assert set(encoding.ids.values()) - {IGNORE} == set(benchmark.counted_ids)


def test_the_lists_of_names_that_published_figures_need() -> None:
    voc = find_benchmark("voc_21").vocabulary
    assert voc.prompts_of(voc.by_name["tvmonitor"], "en")[:2] == ("television monitor", "tv monitor")
    assert len(voc.prompts_of(voc.by_name["person"], "en")) == 7
    assert voc.prompts_of(voc.by_name["boat"], "en") == ("ship",)
    assert len(voc.background["en"]) == len(voc.background["zh"]) == 26
    assert find_benchmark("context_60").vocabulary.background["en"] == ("background",)
    objects = find_benchmark("coco_object_81").vocabulary
    assert len(objects.prompts_of(objects.by_name["person"], "en")) == 8
    assert objects.background == voc.background


def test_a_constant_map_scores_where_theory_says(voc: Path) -> None:
    """Five known pixels of five classes: a map of one class has IoU 1/5 there and 0 in the other four."""
    benchmark = find_benchmark("voc_21")
    counts = ConfusionCounts.zeros(benchmark.num_ids)
    for image in read_truth(benchmark, voc):
        counts = counts.update(image.labels, np.full_like(image.labels, 2))
    figures = counts.compute(benchmark.counted_ids)
    assert figures.mean_iou == pytest.approx(1 / 25)
    assert figures.pixel_accuracy == pytest.approx(1 / 5)


def test_a_turned_image_must_match_as_it_is_shown(voc: Path) -> None:
    write_image(voc / "JPEGImages/2007_000033.jpg", (3, 2), orientation=6)
    assert len(read("voc_21", voc)) == 2
    write_image(voc / "JPEGImages/2007_000033.jpg", (2, 3), orientation=6)
    with pytest.raises(ShapeError, match=r"2007_000033.png is 3x2 pixels, but .*2007_000033.jpg is 2x3"):
        read("voc_21", voc)


def rewrite(path: str, content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / path).write_bytes(content)


def remove(path: str) -> Callable[[Path], object]:
    return lambda root: (root / path).unlink()


def coloured() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("break_it", "error", "message"),
    [
        (remove("JPEGImages/2007_000033.jpg"), StorageError, r"there is no image .*2007_000033\.jpg"),
        (
            remove("SegmentationClass/2007_000042.png"),
            StorageError,
            r"has no label map: looked in .*SegmentationClass for 2007_000042\.png; expected JPEGImages",
        ),
        (remove("ImageSets/Segmentation/val.txt"), StorageError, r"val\.txt: cannot be read \(No such file"),
        (rewrite("ImageSets/Segmentation/val.txt", b"\n"), StorageError, "lists no key"),
        (
            rewrite("ImageSets/Segmentation/val.txt", b"../../etc/passwd\n"),
            StorageError,
            "line 1 is '../../etc",
        ),
        (rewrite("ImageSets/Segmentation/val.txt", b"2007_000033  1\n"), StorageError, "expected one key"),
        (rewrite("ImageSets/Segmentation/val.txt", b"\xff\xfe"), StorageError, "not UTF-8 at byte 0"),
        (
            rewrite("ImageSets/Segmentation/val.txt", b"2007_000033\n2007_000033\n"),
            StorageError,
            "key '2007_000033' comes twice",
        ),
        (
            rewrite("SegmentationClass/2007_000033.png", coloured()),
            ImageDecodeError,
            r"label map .*2007_000033\.png: .*colours are no labels",
        ),
        (
            rewrite("JPEGImages/2007_000033.jpg", b"text"),
            ImageDecodeError,
            r"image .*2007_000033\.jpg: starts",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    voc: Path, break_it: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    break_it(voc)
    with pytest.raises(error, match=message):
        read("voc_21", voc)


def test_a_wrong_root_says_what_was_looked_for(voc: Path) -> None:
    with pytest.raises(StorageError, match=r"no folder JPEGImages in it .*such as VOCdevkit/VOC2012"):
        read("voc_21", voc.parent)
    with pytest.raises(StorageError, match=r"no folder images/val2017 in it"):
        read("coco_stuff_171", voc)
    (voc / "images/validation").mkdir(parents=True)
    (voc / "annotations/validation").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"holds no file \*\.jpg"):
        read("ade20k_150", voc)


def test_values_of_another_data_set_are_refused(voc: Path) -> None:
    write_labels(voc / "SegmentationClass/2007_000033.png", np.full((2, 3), 33, np.uint8))
    with pytest.raises(ShapeError, match=r"has values \[33\], which no class has \(22 values from 0 to 255"):
        read("voc_21", voc)
    write_labels(voc / "SegmentationClass/2007_000033.png", np.full((2, 3), 700, np.uint16))
    with pytest.raises(ShapeError, match=r"has values \[700\]"):
        read("voc_21", voc)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no truth 'voc21' \(did you mean 'voc_21'\?\)"):
        find_benchmark("voc21")
