"""A training set against its contract, ours or anyone's.

Nothing here raises for what a file holds: damage is a finding. `ConfigError` is for a call that names no set.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ovsops.errors import ConfigError, StorageError
from pipelines.counted import counted
from pipelines.keys import escaped_name
from pipelines.training_sets.contract import Fault, type_name
from pipelines.validation.archives import shard_samples
from pipelines.validation.coco_set import CocoChecker
from pipelines.validation.files import SUFFIXES, SetFormat, check_card, check_index, data_files, detect_format
from pipelines.validation.images import PICTURES, ImageCheck, ImageChecker, image_faults
from pipelines.validation.items import PUBLISHED, SIDECAR, TABLE, TABLE_WITH_IMAGES, ItemChecker, ItemFields
from pipelines.validation.json_items import JsonItems
from pipelines.validation.rules import Report
from pipelines.validation.tables import table_rows
from pipelines.writers.finehard_parquet import FINEHARD, WITH_IMAGES

_FIELDS: dict[SetFormat, ItemFields] = {
    "finehard-json": PUBLISHED,
    "finehard-parquet": TABLE,
    "webdataset": SIDECAR,
    "coco": ItemFields(path="file_name"),
    "hf": TABLE_WITH_IMAGES,
}


def validate_set(
    path: Path,
    format_name: SetFormat | None = None,
    *,
    images: ImageCheck = "there",
    root: Path | None = None,
) -> Report:
    """Look at every item of the set in a folder or file.

    `format_name` None is found out from the files. Image paths are below `root`, by default the set's folder.
    """
    if not path.exists():
        raise StorageError(f"{path} is not there; give the folder of a training set, or one of its files")
    folder = path if path.is_dir() else path.parent
    files = list(data_files(path))
    found = format_name or detect_format(path, files)
    others = [file for file in files if _is_other(file, found)]
    files = [file for file in files if file.name.lower().endswith(SUFFIXES[found])]
    if not files:
        raise ConfigError(f"{path} holds no {' or '.join(SUFFIXES[found])} file: this is no {found} set")
    report = Report(path=str(path), format=found, pictures=PICTURES[images])
    if images == "none":
        report.not_checked.append("images: not looked at; --images there or --images whole does")
    if others:
        first = escaped_name(os.fsencode(others[0].relative_to(folder)), 80)
        report.not_checked.append(
            f"{counted(len(others), 'files')} of another format beside them, such as {first}"
        )
    if path.is_dir():
        check_index(folder, files, report)
    if found == "hf":
        check_card(folder, files, report)
    items = ItemChecker(report, _FIELDS[found], ImageChecker(root or folder, images))
    coco = CocoChecker(report, items)
    for file in files:
        name = file.relative_to(folder).as_posix()
        report.files += 1
        try:
            if not file.resolve().is_relative_to(folder.resolve()):
                report.add(Fault("path_link", "", "a link that leads out of the set: not read"), file=name)
            elif not file.is_file():
                report.add(Fault("file", "", "no regular file, or a broken link"), file=name)
            else:
                _check_file(found, file, name, items, coco)
        except (OSError, RuntimeError) as error:  # no right to read, a disk that fails, a loop of links
            report.add(Fault("file", "", f"cannot be read: {str(error)[:100]}"), file=name)
    if not report.images:
        report.add(Fault("empty", "", "no image with its texts in the whole set"), file="")
    return report


def _is_other(file: Path, found: SetFormat) -> bool:
    """A data file of another format, which the report is not about."""
    every = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    name = file.name.lower()
    return name.endswith(every) and not name.endswith(SUFFIXES[found])


def _check_file(found: SetFormat, file: Path, name: str, items: ItemChecker, coco: CocoChecker) -> None:
    match found:
        case "coco":
            coco.check(_opener(file), name)
        case "finehard-json":
            _check_json(file, name, items)
        case "webdataset":
            _check_shard(file, name, items)
        case _:
            _check_table(file, name, items, has_images=found == "hf")


def _check_json(file: Path, name: str, items: ItemChecker) -> None:
    with file.open("rb") as stream:
        read = JsonItems(stream)
        for item in read:
            if item.key or item.place < 0:
                fault = Fault("type", item.key, "the file is an object, expected one list of items")
                items.report.add(fault, file=name)
                return
            for fault in item.faults:
                items.report.add(fault, file=name, item=f"[{item.place}]")
            items.check(item.value, file=name, place=f"[{item.place}]")
    if read.fault is not None:
        items.report.add(read.fault, file=name)


def _check_table(file: Path, name: str, items: ItemChecker, *, has_images: bool) -> None:
    columns = tuple((WITH_IMAGES if has_images else FINEHARD).names)
    with file.open("rb") as stream:
        for number, row in enumerate(table_rows(stream, columns)):
            if isinstance(row, Fault):
                items.report.add(row, file=name)
                continue
            items.check(row, file=name, place=f"row {number}")
            if has_images:
                image = row.get("image")
                data = image.get("bytes") if isinstance(image, dict) else None
                for fault in _bytes_faults(data, row.get("sha256"), items):
                    items.report.add(fault, file=name, item=f"row {number}")


def _check_shard(file: Path, name: str, items: ItemChecker) -> None:
    with file.open("rb") as stream:
        for number, sample in enumerate(shard_samples(stream)):
            place = f"sample {number} {sample.key}" if sample.key else ""
            for fault in sample.faults:
                items.report.add(fault, file=name, item=place)
            if sample.item is not None:
                items.check(sample.item, file=name, place=place)
            if sample.image is not None:
                sha256 = sample.item.get("sha256") if isinstance(sample.item, dict) else None
                for fault in _bytes_faults(sample.image, sha256, items):
                    items.report.add(fault, file=name, item=place)


def _bytes_faults(data: object, sha256: object, items: ItemChecker) -> Iterator[Fault]:
    if not isinstance(data, bytes):
        yield Fault("image_missing", "image", f"{type_name(data)}, expected the image's bytes")
    elif items.images.check != "none":
        yield from image_faults(data, sha256, "image", is_whole=items.images.check == "whole")


def _opener(file: Path) -> Callable[[], BinaryIO]:
    return lambda: file.open("rb")
