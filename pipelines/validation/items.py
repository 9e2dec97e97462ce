"""One item of a training set against the contract, whatever file it came from. Values may be anything."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.training_sets.build import language_of
from pipelines.training_sets.contract import (
    Fault,
    is_finite,
    is_number,
    shown,
    text_faults,
    type_name,
)
from pipelines.validation.images import ImageChecker
from pipelines.validation.numbers import finite_faults, size_faults, size_hw
from pipelines.validation.regions import region_faults, region_notes
from pipelines.validation.rules import Report

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}


@dataclass(frozen=True, kw_only=True)
class ItemFields:
    """How a format names what an item has."""

    caption: str = "caption"
    short_caption: str = "short_caption"
    regions: str = "regions"
    path: str = ""
    """Field with the image's path; "" where images are not files."""
    is_published: bool = False
    """FineHARD JSON: negatives are an object, the score is the box's fifth number, `is_cn` says the language."""


PUBLISHED = ItemFields(regions="bbox_info", path="f_path", is_published=True)
TABLE = ItemFields(path="f_path")
TABLE_WITH_IMAGES = ItemFields()
SIDECAR = ItemFields(caption="caption_long", short_caption="caption_short")


@dataclass(kw_only=True)
class Known:
    """What was seen before, as 8 bytes each: some hundred bytes of memory an image."""

    _splits: dict[bytes, str] = field(default_factory=dict)

    def before(self, kind: str, name: str, split: str) -> str | None:
        """The split of the first of this name; None for a new one. `kind` tells names of different things apart."""
        text = f"{kind}\0{name}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(text, digest_size=8).digest()
        found = self._splits.get(digest)
        if found is None:
            self._splits[digest] = split
        return found


def split_of_file(path: str) -> str:
    """The split that a file's path says: its folders from the outside in, then its name; "" where none says one."""
    *folders, name = path.lower().split("/")
    words = [*folders, *re.split(r"[^a-z]+", name.rsplit(".", 1)[0])]
    return next((_SPLIT_NAMES[word] for word in words if word in _SPLIT_NAMES), "")


class ItemChecker:
    """Checks items one by one into a report."""

    def __init__(self, report: Report, fields: ItemFields, images: ImageChecker) -> None:
        self.report, self.fields, self.images, self.known = report, fields, images, Known()

    def check(self, item: object, *, file: str, place: str) -> None:
        """Everything that one item can break."""
        if not isinstance(item, dict):
            fault = Fault("type", "", f"{type_name(item)}, expected an object")
            self.report.add(fault, file=file, item=place)
            return
        name = item.get("image_uid", item.get("f_path"))
        where = f"{place} {name[:120]}" if isinstance(name, str) else place
        self.report.images += 1
        finite = False
        for fault in self._faults(item, split_of_file(file)):
            finite = finite or fault.rule == "finite"
            self.report.add(fault, file=file, item=where)
        for fault in finite_faults(item) if not finite else ():
            self.report.add(fault, file=file, item=where)

    def identity_faults(self, item: Mapping[str, Any], split: str) -> Iterator[Fault]:
        """An image twice or in two splits, by its bytes, its path or its id; its group in two splits."""
        faults = []
        for name in dict.fromkeys(("sha256", self.fields.path or "image_uid", "image_uid")):
            value = item.get(name)
            if not isinstance(value, str) or not value:
                continue
            before = self.known.before(name, value, split)
            if before is not None and before != split:
                faults.append(_two_splits(name, value, before, split))
            elif before is not None:
                faults.append(Fault("image_twice", name, f"{shown(value)} came before"))
        yield from faults[:1]  # the others are the same image by another name
        group = item.get("group")
        if isinstance(group, str) and group and not faults:
            before = self.known.before("group", group, split)
            if before is not None and before != split:
                yield _two_splits("group", group, before, split)

    def _faults(self, item: Mapping[str, Any], file_split: str) -> Iterator[Fault]:
        fields = self.fields
        for name in (fields.caption, fields.short_caption):
            if name not in item:
                yield Fault("field", name, "is missing")
            else:
                yield from text_faults(item[name], name)
        yield from self._language_faults(item)
        yield from self._split_faults(item, file_split)
        if fields.path and fields.path not in item:
            yield Fault("field", fields.path, "is missing")
        elif fields.path:
            yield from self.images.faults(item[fields.path], item.get("sha256"), fields.path)
        self.report.count_license(item.get("license"))
        yield from size_faults(item)
        regions = item.get(fields.regions)
        if fields.regions not in item:
            yield Fault("field", fields.regions, "is missing")
        elif not isinstance(regions, list):
            yield Fault("type", fields.regions, f"{type_name(regions)}, expected a list")
        else:
            yield from self._regions_faults(regions, size_hw(item))

    def _language_faults(self, item: Mapping[str, Any]) -> Iterator[Fault]:
        said = item.get("language")
        if self.fields.is_published:
            said = "zh" if "is_cn" in item else "en"
            if "is_cn" in item and not item["is_cn"]:
                value = shown(item["is_cn"])
                yield Fault(
                    "is_cn", "is_cn", f"{value}: its presence alone makes the item Chinese; leave it out"
                )
        elif said not in ("en", "zh"):
            yield Fault("language", "language", f"{shown(said)}, expected en or zh")
            return
        self.report.languages[str(said)] += 1
        text = item.get(self.fields.short_caption)
        if isinstance(text, str) and text.strip() and language_of(text) != said:
            yield Fault("language", self.fields.short_caption, f"{shown(text)} in an item of language {said}")

    def _split_faults(self, item: Mapping[str, Any], file_split: str) -> Iterator[Fault]:
        said = item.get("split")
        named = _SPLIT_NAMES.get(said) if isinstance(said, str) else None
        if said is not None and named is None:
            yield Fault("split", "split", f"{shown(said)}, expected train, val or test")
        elif named is not None and file_split and named != file_split:
            yield Fault("split", "split", f"{named} in a file of {file_split}")
        split = file_split or named or ""
        self.report.splits[split or "(none)"] += 1
        yield from self.identity_faults(item, split)

    def _regions_faults(self, regions: Sequence[object], size_hw: tuple[int, int] | None) -> Iterator[Fault]:
        scores: list[float] = []
        for number, region in enumerate(regions):
            at = f"{self.fields.regions}[{number}]"
            self.report.regions += 1
            if not isinstance(region, dict):
                yield Fault("type", at, f"{type_name(region)}, expected an object")
                continue
            self.report.masks += region.get("segmentation") is not None
            self.report.regions_with_negatives += region.get("flag_short_neg") == 1
            yield from region_faults(region, size_hw, at, is_published=self.fields.is_published)
            yield from region_notes(region, at)
            score = _score(region, is_published=self.fields.is_published)
            if score is None:
                continue
            if not is_number(score) or not is_finite(score):
                yield Fault("finite" if is_number(score) else "type", at, f"score {shown(score)}")
                continue
            scores.append(score)
            if not 0 <= score <= 1:
                yield Fault("score", at, f"score {shown(score)} is not in 0..1")
        if scores != sorted(scores, reverse=True):
            message = f"scores {shown(scores)}: a trainer reads the first four alone"
            yield Fault("box_best_first", self.fields.regions, message)


def _two_splits(name: str, value: str, before: str, split: str) -> Fault:
    return Fault("two_splits", name, f"{shown(value)} is in {before or 'no split'} and {split or 'no split'}")


def _score(region: Mapping[str, Any], *, is_published: bool) -> Any:
    if not is_published:
        return region.get("score")
    box = region.get("bbox")
    return box[4] if isinstance(box, list) and len(box) == 5 else None
