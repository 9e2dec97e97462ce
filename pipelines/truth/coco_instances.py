"""Objects of a COCO or LVIS file of instances: read whole, checked, kept by image. Axes: G objects.

Formats: cocodataset.org/#format-data; lvisdataset.org/dataset (images carry `neg_category_ids` and
`not_exhaustive_category_ids`, and a `coco_url` instead of a file name). Structure is checked at once; outlines are
drawn when their image is asked for, by pycocotools as COCO's own evaluation draws them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from pycocotools import mask as coco_masks

from ovsops.errors import ConfigError, RowError, ShapeError, StorageError, VocabularyError
from ovsops.masks.boxes import boxes_xywh_to_xyxy
from ovsops.masks.rle import Rle, merge_rles, rle_from_coco
from ovsops.metrics.objects import TrueObjects
from ovsops.text.importers import vocabulary_from_coco, vocabulary_from_lvis
from ovsops.text.vocabulary import Vocabulary
from pipelines.keys import folder_key

BAD_OBJECTS = "E_TRUTH"
"""Objects of an image that cannot be used."""
_MAX_ID = 2**53


@dataclass(frozen=True, kw_only=True)
class CocoReading:
    """Caps of the reader: the file is held in memory whole, some ten times its bytes while it is parsed."""

    max_bytes: int = 512 * 2**20
    """Of the file. LVIS' validation file has 192 MB, COCO's 20."""
    max_side: int = 20_000
    """Pixels of a side of an image."""
    max_objects: int = 2_000
    """Objects of an image."""
    max_corners: int = 200_000
    """Corners of the outlines of an object."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_side", "max_objects", "max_corners"):
            if getattr(self, name) < 1:
                raise ConfigError(f"truth.reading.{name} is {getattr(self, name)}: give 1 or more")


@dataclass(frozen=True, kw_only=True)
class CocoImage:
    """An image of the file with its annotations as they came."""

    name: str
    size_hw: tuple[int, int]
    annotations: tuple[Mapping[str, Any], ...]
    absent: frozenset[int] | None
    """Category ids that were looked for and are not there; None where all categories are annotated everywhere."""
    not_exhaustive: frozenset[int]
    """Category ids of which not all objects are marked."""


@dataclass(frozen=True, kw_only=True)
class CocoInstances:
    """A file of instances."""

    path: Path
    vocabulary: Vocabulary
    images: Mapping[str, CocoImage]
    """By file name without folder and extension."""
    is_federated: bool
    """LVIS: an image is annotated for some categories alone."""
    has_masks: bool
    """Whether every object has an outline."""
    reading: CocoReading

    def objects(self, image: CocoImage) -> TrueObjects:
        """Objects of an image; labels are category ids. Raises `RowError` that names the annotation."""
        if len(image.annotations) > self.reading.max_objects:
            raise RowError(
                BAD_OBJECTS,
                f"{image.name}: {len(image.annotations)} objects, truth.reading.max_objects is"
                f" {self.reading.max_objects}",
            )
        where = [f"{self.path.name}: annotation {a['id']} of {image.name}" for a in image.annotations]
        boxes = [_box(a, image.size_hw, w) for a, w in zip(image.annotations, where, strict=True)]
        masks = None
        if self.has_masks:
            masks = tuple(
                _mask(a["segmentation"], image.size_hw, self.reading, w)
                for a, w in zip(image.annotations, where, strict=True)
            )
        areas = [_area(a, box, w) for a, box, w in zip(image.annotations, boxes, where, strict=True)]
        return TrueObjects(
            labels=np.array([a["category_id"] for a in image.annotations], np.int64),
            boxes_xyxy=boxes_xywh_to_xyxy(np.array(boxes, np.float64).reshape(-1, 4)),
            masks=masks,
            is_crowd=np.array([a.get("iscrowd", 0) == 1 for a in image.annotations], bool),
            areas=np.array(areas, np.float64),
            verified_absent=image.absent,
            not_exhaustive=image.not_exhaustive,
        )


def read_coco_instances(path: Path, reading: CocoReading | None = None) -> CocoInstances:
    """A file of instances, its structure checked.

    Raises `StorageError` for a file that cannot be read, is too large, or is no such JSON, naming the entry.
    """
    reading = reading or CocoReading()
    document = _load(path, reading)
    is_federated = any("neg_category_ids" in entry for entry in _entries(document, "images", path))
    make = vocabulary_from_lvis if is_federated else vocabulary_from_coco
    try:
        vocabulary = make(document, name=path.stem)
    except VocabularyError as error:
        raise StorageError(f"{path}: {error}") from error
    known = {spec.id for spec in vocabulary.classes}
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for number, entry in enumerate(_entries(document, "annotations", path)):
        where = f"{path}: annotations[{number}]"
        annotation = _annotation(entry, known, where)
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    images: dict[str, CocoImage] = {}
    ids: set[int] = set()
    for number, entry in enumerate(_entries(document, "images", path)):
        where = f"{path}: images[{number}]"
        image_id = _whole(entry, "id", where)
        if image_id in ids:
            _fail(where, f"has the id {image_id} of an earlier image")
        ids.add(image_id)
        image = _image(entry, by_image.get(image_id, ()), is_federated, known, reading, where)
        if image.name in images:
            _fail(where, f"has the file name {image.name!r} of an earlier image, by which images are matched")
        images[image.name] = image
    if orphans := sorted(by_image.keys() - ids):
        _fail(f"{path}: annotations", f"speak of images {orphans[:5]}, which the file does not list")
    return CocoInstances(
        path=path,
        vocabulary=vocabulary,
        images=images,
        is_federated=is_federated,
        has_masks=all(a["segmentation"] is not None for found in by_image.values() for a in found),
        reading=reading,
    )


def _load(path: Path, reading: CocoReading) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(reading.max_bytes + 1)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be read ({error.strerror}); truth.annotations names a COCO or LVIS JSON file"
        ) from error
    if len(data) > reading.max_bytes:
        raise StorageError(
            f"{path}: over {reading.max_bytes} bytes (truth.reading.max_bytes); take the validation file, or raise it"
            " where memory allows some ten times the file"
        )
    try:
        document = json.loads(data.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path}: no JSON of instances: {error}") from error
    if not isinstance(document, dict):
        _fail(f"{path}", "is no object with images, annotations and categories")
    return document


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _entries(document: Mapping[str, Any], field: str, path: Path) -> list[Mapping[str, Any]]:
    found = document.get(field)
    if not isinstance(found, list):
        _fail(
            f"{path}",
            f"has no list {field!r}; give a file of instances, not of captions or panoptic segments",
        )
    for number, entry in enumerate(found):
        if not isinstance(entry, dict):
            _fail(f"{path}: {field}[{number}]", f"is {_shown(entry)}, expected an object")
    return found


def _annotation(entry: Mapping[str, Any], known: set[int], where: str) -> dict[str, Any]:
    """The fields that are used; outlines stay as they came."""
    category_id = _whole(entry, "category_id", where)
    if category_id not in known:
        _fail(f"{where}.category_id", f"is {category_id}, which is no category of the file")
    iscrowd = entry.get("iscrowd", 0)
    if iscrowd not in (0, 1):
        _fail(f"{where}.iscrowd", f"is {_shown(iscrowd)}, expected 0 or 1")
    segmentation = entry.get("segmentation")
    if segmentation is not None and not isinstance(segmentation, list | dict):
        _fail(f"{where}.segmentation", f"is {_shown(segmentation)}, expected polygons or RLE")
    return {
        "id": entry["id"] if isinstance(entry.get("id"), int) else where,
        "image_id": _whole(entry, "image_id", where),
        "category_id": category_id,
        "bbox": entry.get("bbox"),
        "area": entry.get("area"),
        "iscrowd": int(iscrowd),
        "segmentation": segmentation or None,
    }


def _image(
    entry: Mapping[str, Any],
    annotations: Any,
    is_federated: bool,
    known: set[int],
    reading: CocoReading,
    where: str,
) -> CocoImage:
    name = entry.get("file_name") or entry.get("coco_url")
    if not isinstance(name, str) or not folder_key(name.rsplit("/", 1)[-1]):
        _fail(where, f"has the file name {_shown(name)}; images are matched by `file_name` (or `coco_url`)")
    height, width = (_whole(entry, side, where) for side in ("height", "width"))
    if not (1 <= height <= reading.max_side and 1 <= width <= reading.max_side):
        _fail(where, f"is {height}x{width} pixels (h x w); expected sides of 1 to {reading.max_side}")
    absent = _ids(entry, "neg_category_ids", known, where)
    return CocoImage(
        name=folder_key(name.rsplit("/", 1)[-1]),
        size_hw=(height, width),
        annotations=tuple(annotations),
        absent=absent if is_federated else None,
        not_exhaustive=_ids(entry, "not_exhaustive_category_ids", known, where),
    )


def _ids(entry: Mapping[str, Any], field: str, known: set[int], where: str) -> frozenset[int]:
    found = entry.get(field, [])
    if not isinstance(found, list) or any(isinstance(i, bool) or not isinstance(i, int) for i in found):
        _fail(f"{where}.{field}", f"is {_shown(found)}, expected a list of category ids")
    if strangers := sorted(set(found) - known):
        _fail(f"{where}.{field}", f"names {strangers[:5]}, which are no categories of the file")
    return frozenset(found)


def _box(annotation: Mapping[str, Any], size_hw: tuple[int, int], where: str) -> list[float]:
    box = annotation["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise RowError(BAD_OBJECTS, f"{where}: bbox is {_shown(box)}, expected four finite numbers x y w h")
    x, y, width, height = (float(value) for value in box)
    most = 2.0 * max(size_hw)
    if (
        width < 0
        or height < 0
        or not (-most <= x <= most and -most <= y <= most)
        or max(width, height) > 2 * most
    ):
        raise RowError(
            BAD_OBJECTS,
            f"{where}: bbox {box} (x y w h) is no box in an image of {size_hw[0]}x{size_hw[1]} (h x w)",
        )
    return [x, y, width, height]


def _area(annotation: Mapping[str, Any], box: list[float], where: str) -> float:
    """Pixels by which COCO tells small from large; the box's where the file has none."""
    area = annotation["area"]
    if area is None:
        return box[2] * box[3]
    if not _is_number(area) or area < 0:
        raise RowError(BAD_OBJECTS, f"{where}: area is {_shown(area)}, expected pixels, 0 or more")
    return float(area)


def _mask(segmentation: Any, size_hw: tuple[int, int], reading: CocoReading, where: str) -> Rle:
    """Polygons or RLE as RLE of the image's size."""
    try:
        if isinstance(segmentation, dict):
            rle = rle_from_coco(segmentation)
            if rle.size_hw != size_hw:
                raise ShapeError(f"RLE of {rle.size_hw} in an image of {size_hw} (h x w)")
            return rle
        _check_polygons(segmentation, size_hw, reading)
        drawn = coco_masks.frPyObjects(segmentation, *size_hw)
        return merge_rles([rle_from_coco(each) for each in drawn])
    except ShapeError as error:
        raise RowError(BAD_OBJECTS, f"{where}: segmentation: {error}") from error


def _check_polygons(polygons: Any, size_hw: tuple[int, int], reading: CocoReading) -> None:
    """The drawer walks along every edge: corners far outside would cost memory without end."""
    if not isinstance(polygons, list) or not polygons:
        raise ShapeError(f"{_shown(polygons)} is no list of polygons")
    if sum(len(p) if isinstance(p, list) else 0 for p in polygons) > 2 * reading.max_corners:
        raise ShapeError(f"more than {reading.max_corners} corners (truth.reading.max_corners)")
    most = 2.0 * max(size_hw)
    for number, polygon in enumerate(polygons):
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ShapeError(
                f"polygon {number} is {_shown(polygon)}, expected x and y of three corners or more"
            )
        if not all(_is_number(value) and -most <= value <= most for value in polygon):
            raise ShapeError(f"polygon {number} has corners that are no numbers near the image")


def _is_number(value: Any) -> bool:
    """Finite, and small enough that no sum of them is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15


def _whole(entry: Mapping[str, Any], field: str, where: str) -> int:
    value = entry.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_ID:
        _fail(f"{where}.{field}", f"is {_shown(value)}, expected a whole number from 0 to 2**53")
    return value


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}..."


def _fail(where: str, what: str) -> NoReturn:
    raise StorageError(f"{where} {what}")
