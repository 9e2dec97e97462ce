"""COCO files of a set: ids, references, boxes, masks, expressions. Each file is read twice, item by item."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from pipelines.training_sets.contract import (
    Fault,
    is_finite,
    is_number,
    is_whole,
    negatives_faults,
    segmentation_faults,
    shown,
    source_faults,
    text_faults,
    type_name,
)
from pipelines.validation.items import ItemChecker, split_of_file
from pipelines.validation.json_items import JsonItems
from pipelines.validation.numbers import finite_faults, size_faults, size_hw
from pipelines.validation.regions import language_faults, order_notes
from pipelines.validation.rules import Report

_EDGE = 0.01
"""Pixels by which rounded boxes may leave their image."""
_Sizes = dict[int, tuple[int, int] | None]


class CocoChecker:
    """Checks the files of one set; ids are unique over all of them."""

    def __init__(self, report: Report, items: ItemChecker) -> None:
        self.report, self.items = report, items
        self._annotation_ids: set[int] = set()
        self._image_ids: set[int] = set()

    def check(self, open_stream: Callable[[], BinaryIO], file: str) -> None:
        """One file. Annotations may come before their images, so that they are read in a second pass."""
        sizes: _Sizes = {}
        categories: set[int] = set()
        licenses: dict[int, str] = {}
        lists = set()
        with open_stream() as stream:
            items = JsonItems(stream)
            for item in items:
                lists.add(item.key)
                at = f"{item.key}[{item.place}]" if item.place >= 0 else item.key
                self._add_all(iter(item.faults), file, at)
                if item.key == "categories":
                    faults = self._category_faults(item.value, categories)
                    self._add_all(faults, file, at, of=item.value)
                elif item.key == "images":
                    faults = self._image_faults(item.value, sizes, split_of_file(file))
                    self._add_all(faults, file, at, of=item.value)
                elif item.key == "licenses" and isinstance(item.value, dict):
                    number = item.value.get("id")
                    if is_whole(number):
                        licenses[number] = str(item.value.get("name", ""))[:200]
        if items.fault is not None:
            self.report.add(items.fault, file=file)
            return
        with open_stream() as stream:
            for item in JsonItems(stream):
                if item.key == "annotations":
                    faults = self._annotation_faults(item.value, sizes, categories)
                    self._add_all(faults, file, f"annotations[{item.place}]", of=item.value)
                elif item.key == "images" and isinstance(item.value, dict):
                    number = item.value.get("license")
                    self.report.count_license(licenses.get(number) if isinstance(number, int) else None)
        if "annotations" not in items.keys:
            self.report.add(Fault("field", "annotations", "is missing: the file has no regions"), file=file)
        for name in ("images", "categories"):
            if name not in lists:
                self.report.add(Fault("field", name, "the list is missing or empty"), file=file)

    def _add_all(self, faults: Iterator[Fault], file: str, item: str, *, of: object = None) -> None:
        """`of` is a record whose numbers must be finite, wherever they stand."""
        rules = set()
        for fault in faults:
            rules.add(fault.rule)
            self.report.add(fault, file=file, item=item)
        for fault in finite_faults(of) if "finite" not in rules else ():
            self.report.add(fault, file=file, item=item)

    def _category_faults(self, value: object, categories: set[int]) -> Iterator[Fault]:
        if not isinstance(value, dict) or not is_whole(value.get("id")):
            yield _no_id(value)
            return
        if value["id"] in categories:
            yield Fault("id_twice", "id", f"category {value['id']} is there twice")
        categories.add(value["id"])
        if not isinstance(value.get("name"), str) or not value["name"].strip():
            yield Fault("field", "name", "the category has no name")

    def _image_faults(self, value: object, sizes: _Sizes, split: str) -> Iterator[Fault]:
        self.report.images += 1
        if not isinstance(value, dict) or not is_whole(value.get("id")):
            yield _no_id(value)
            return
        number = value["id"]
        if number in self._image_ids or number < 1:
            yield Fault("id_twice", "id", f"image id {number} is there twice, or is below 1")
        self._image_ids.add(number)
        sizes[number] = size_hw(value)
        yield from size_faults(value)
        for name in ("height", "width"):
            if value.get(name) is None:
                yield Fault("type", name, "is missing: boxes are in pixels")
        self.report.splits[split or "(none)"] += 1
        yield from self.items.identity_faults(value, split)
        if "file_name" not in value:
            yield Fault("field", "file_name", "is missing")
        else:
            yield from self.items.images.faults(value["file_name"], value.get("sha256"), "file_name")
        for name in ("caption", "short_caption"):
            if name in value:
                yield from text_faults(value[name], name)

    def _annotation_faults(self, value: object, sizes: _Sizes, categories: set[int]) -> Iterator[Fault]:
        self.report.regions += 1
        if not isinstance(value, dict) or not is_whole(value.get("id")):
            yield _no_id(value)
            return
        number, image_id, category_id = value["id"], value.get("image_id"), value.get("category_id")
        if number in self._annotation_ids or number < 1:
            yield Fault(
                "id_twice", "id", f"annotation id {number} is there twice, or is below 1: 0 means no match"
            )
        self._annotation_ids.add(number)
        if not is_whole(image_id) or image_id not in sizes:
            yield Fault("reference", "image_id", f"{shown(image_id)} is no image of this file")
        if not is_whole(category_id) or category_id not in categories:
            yield Fault("reference", "category_id", f"{shown(category_id)} is no category of this file")
        size = sizes.get(image_id) if is_whole(image_id) else None
        yield from _box_faults(value.get("bbox"), size)
        if is_number(value.get("area")) and not is_finite(value["area"]):
            yield Fault("finite", "area", "is not finite")
        elif not is_number(value.get("area")):
            yield Fault("type", "area", f"{shown(value.get('area'))}, expected a number")
        rle = value.get("segmentation")
        if isinstance(rle, dict) and isinstance(rle.get("counts"), str):  # polygons are not checked
            self.report.masks += 1
            yield from segmentation_faults(rle, size, "segmentation")
        yield from self._text_faults(value)

    def _text_faults(self, value: Mapping[str, Any]) -> Iterator[Fault]:
        for name in ("caption", "long_caption"):
            if name in value:
                yield from text_faults(value[name], name)
        negatives = value.get("negatives")
        if negatives is None:
            return
        if not isinstance(negatives, list):
            yield Fault("type", "negatives", f"{type_name(negatives)}, expected a list")
            return
        self.report.regions_with_negatives += 1
        yield from negatives_faults(value.get("caption"), negatives, "negatives")
        yield from language_faults(value.get("caption"), negatives, "negatives")
        yield from order_notes(value.get("caption"), negatives, "negatives")
        for name in ("negative_types", "negative_sources"):
            column = value.get(name)
            if column is not None and (not isinstance(column, list) or len(column) != len(negatives)):
                yield Fault("negatives_columns", name, f"not one for each of {len(negatives)} negatives")
            elif column is not None and name == "negative_sources":
                yield from source_faults(column, name)


def _no_id(value: object) -> Fault:
    return Fault("type", "", f"{type_name(value)}, expected an object with a whole id")


def _box_faults(box: object, size_hw: tuple[int, int] | None) -> Iterator[Fault]:
    """COCO's `x y width height` in pixels."""
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
        yield Fault("type", "bbox", f"{shown(box)}, expected 4 numbers")
        return
    if not all(is_finite(value) for value in box):
        yield Fault("finite", "bbox", shown(box))
        return
    x, y, w, h = box
    if w < 0 or h < 0:
        yield Fault("box_order", "bbox", f"{shown(box)} has a negative side")
    elif w == 0 or h == 0:
        yield Fault("box_area", "bbox", f"{shown(box)} has no area")
    if size_hw is None:
        return
    if min(x, y) < -_EDGE or x + w > size_hw[1] + _EDGE or y + h > size_hw[0] + _EDGE:
        yield Fault("box_range", "bbox", f"{shown(box)} leaves the image of {size_hw[1]}x{size_hw[0]} pixels")
