"""Truth, image by image: labels in the ids of the evaluation, checked against the image. Axes: h w pixels.

    benchmark = find_benchmark("voc_21")
    for image in read_truth(benchmark, "VOCdevkit/VOC2012"):
        counts = counts.update(image.labels, predicted[image.key])

What is wrong is an error that names the file, never an image less: a figure on fewer images is another figure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from ovsops.errors import ImageDecodeError, ShapeError, StorageError
from ovsops.images.decode import read_header
from ovsops.images.decode_config import DecodeConfig
from ovsops.images.exif import read_orientation
from pipelines.truth.benchmarks import Benchmark
from pipelines.truth.label_map import decode_label_map
from pipelines.truth.layout import Split, TruthFiles, list_truth

_NO_ID = -1
_FIRST_TURNED = 5
"""EXIF orientations from here on swap the sides."""


@dataclass(frozen=True, kw_only=True)
class TruthImage:
    """One image's truth."""

    key: str
    """Name of the image without folder and suffix (Cityscapes: city_sequence_frame)."""
    image_path: Path
    labels: UInt8[np.ndarray, "h w"]
    """Ids of the benchmark's vocabulary, 0 background, 255 ignored; as large as the image as it is shown."""


def read_truth(
    benchmark: Benchmark, root: str | Path, *, split: Split = "val", config: DecodeConfig | None = None
) -> Iterator[TruthImage]:
    """Truth of a split, in the order of its list or of names; the listing is checked before the first one.

    Raises `StorageError` for the layout, `ImageDecodeError` for a damaged or coloured label map, `ShapeError`
    for values that no class has and for sizes that differ.
    """
    for files in list_truth(benchmark.layout, benchmark.encodings, Path(root), split):
        yield read_truth_image(files, config=config)


def read_truth_image(files: TruthFiles, *, config: DecodeConfig | None = None) -> TruthImage:
    """Truth of one image; errors as in `read_truth`."""
    config = config or DecodeConfig()
    values = _decoded(files.label_path, config)
    image_hw = _image_size(files.image_path, config)
    if values.shape != image_hw:
        raise ShapeError(
            f"{files.label_path} is {values.shape[1]}x{values.shape[0]} pixels, but {files.image_path} is"
            f" {image_hw[1]}x{image_hw[0]}: one of them was resized or turned; use both as published"
        )
    return TruthImage(
        key=files.key,
        image_path=files.image_path,
        labels=_to_ids(values, files.encoding.ids, where=files.label_path),
    )


def _decoded(path: Path, config: DecodeConfig) -> Integer[np.ndarray, "h w"]:
    try:
        return decode_label_map(_read(path, config), config)
    except ImageDecodeError as error:
        raise ImageDecodeError(error.code, f"label map {path}: {error}") from error


def _image_size(path: Path, config: DecodeConfig) -> tuple[int, int]:
    """Height and width as shown, from the header."""
    try:
        header = read_header(memoryview(_read(path, config)), config)
    except ImageDecodeError as error:
        raise ImageDecodeError(error.code, f"image {path}: {error}") from error
    orientation, _ = read_orientation(header.exif, config)
    sides = header.height, header.width
    return (sides[1], sides[0]) if orientation >= _FIRST_TURNED else sides


def _read(path: Path, config: DecodeConfig) -> bytes:
    """The file, or a byte more than a decoder takes."""
    try:
        with path.open("rb") as file:
            return file.read(config.max_bytes + 1)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror})") from error


def _to_ids(
    values: Integer[np.ndarray, "h w"], ids: Mapping[int, int], *, where: Path
) -> UInt8[np.ndarray, "h w"]:
    table = np.full(max(int(values.max()), max(ids)) + 1, _NO_ID, np.int64)
    table[list(ids)] = list(ids.values())
    labels = table[values]
    if (labels == _NO_ID).any():
        wrong = np.unique(values[labels == _NO_ID])[:5].tolist()
        known = sorted(ids)
        raise ShapeError(
            f"{where} has values {wrong}, which no class has ({len(known)} values from {known[0]} to"
            f" {known[-1]} are known): the file is of another data set, or in another encoding than its name says"
        )
    return labels.astype(np.uint8)
