"""Which files a set has, which format they are of, and whether index and card are about them."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import yaml

from ovsops.errors import ConfigError
from pipelines.training_sets.contract import Fault, path_faults, type_name
from pipelines.validation.rules import Report
from pipelines.writers.whole_files import INDEX

SetFormat = Literal["finehard-json", "finehard-parquet", "webdataset", "coco", "hf"]
FORMATS: tuple[SetFormat, ...] = ("finehard-json", "finehard-parquet", "webdataset", "coco", "hf")
SUFFIXES: dict[SetFormat, tuple[str, ...]] = {
    "finehard-json": (".json",),
    "finehard-parquet": (".parquet",),
    "webdataset": (".tar", ".tar.gz", ".tgz"),
    "coco": (".json",),
    "hf": (".parquet",),
}
_MAX_SMALL_FILE = 64 * 2**20
"""Bytes of an index or a card."""


def data_files(path: Path) -> Iterator[Path]:
    """Files in the order of their names. Linked and hidden folders and the folder of images are not entered."""
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path, followlinks=False):
        is_top = Path(folder) == path
        folders[:] = sorted(name for name in folders if name[0] != "." and not (is_top and name == "images"))
        for name in sorted(names):
            if name[0] != "." and not (is_top and name == INDEX):
                yield Path(folder, name)


def detect_format(path: Path, files: list[Path]) -> SetFormat:
    """The format by index.json, else by the names and first bytes of the files."""
    said = said_format(path)
    if said is not None:
        return said
    names = [file.name.lower() for file in files]
    if any(name.endswith(SUFFIXES["webdataset"]) for name in names):
        return "webdataset"
    if any(name.endswith(".parquet") for name in names):
        return "hf" if path.is_dir() and (path / "README.md").is_file() else "finehard-parquet"
    for file in files:
        if file.name.lower().endswith(".json") and file.is_file():
            with file.open("rb") as stream:
                return "coco" if stream.read(4096).lstrip()[:1] == b"{" else "finehard-json"
    raise ConfigError(
        f"{path}: no .json, .parquet or .tar file; give the folder of a training set, or --format"
    )


def said_format(folder: Path) -> SetFormat | None:
    """The format that a folder's index.json names; None without an index or for a name that is not ours."""
    index = _small_json(folder / INDEX) if (folder / INDEX).is_file() else None
    said = index.get("format") if isinstance(index, dict) else None
    return next((name for name in FORMATS if said == name), None)


def check_index(folder: Path, files: list[Path], report: Report) -> None:
    """Files against index.json, where there is one."""
    if not (folder / INDEX).is_file():
        report.not_checked.append("index: the set has no index.json, so that missing files are not noticed")
        return
    index = _small_json(folder / INDEX)
    listed = index.get("files") if isinstance(index, dict) else None
    if not isinstance(listed, list):
        report.add(Fault("file", "files", "no JSON object with a list of files"), file=INDEX)
        return
    known = set()
    for number, entry in enumerate(listed):
        for fault in _entry_faults(folder, entry):
            report.add(fault, file=INDEX, item=f"files[{number}]")
        if isinstance(entry, dict) and isinstance(entry.get("path"), str):
            known.add(entry["path"])
    for name in (file.relative_to(folder).as_posix() for file in files):
        if name not in known:
            report.add(Fault("file_hash", "", "is not in index.json"), file=name)


def check_card(folder: Path, files: list[Path], report: Report) -> None:
    """README.md with a front matter whose `configs` match every file."""
    card = folder / "README.md"
    if not card.is_file() or card.stat().st_size > _MAX_SMALL_FILE:
        report.add(Fault("card", "", "there is no README.md, or it is far too large"), file="README.md")
        return
    head = card.read_bytes().decode("utf-8", "replace").split("---\n", 2)
    try:
        matter = yaml.safe_load(head[1]) if len(head) == 3 and not head[0] else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        report.add(Fault("card", "", f"the front matter is no YAML: {str(error)[:100]}"), file="README.md")
        return
    patterns = list(_patterns(matter))
    if not patterns:
        report.add(Fault("card", "configs", "no data_files with split and path"), file="README.md")
        return
    for name in (file.relative_to(folder) for file in files):
        if not any(name.match(pattern) for pattern in patterns):
            report.add(Fault("card", "configs", f"no path matches {name}"), file="README.md")


def _entry_faults(folder: Path, entry: object) -> Iterator[Fault]:
    if not isinstance(entry, dict):
        yield Fault("type", "", f"{type_name(entry)}, expected an object")
        return
    path = entry.get("path")
    found = list(path_faults(path, "path"))
    yield from found
    if found or not isinstance(path, str):
        return
    target = folder / path
    try:
        if not target.resolve().is_relative_to(folder.resolve()):
            yield Fault("path_link", "path", "leads out of the set")
            return
        with target.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = os.fstat(stream.fileno()).st_size
    except (OSError, RuntimeError) as error:
        yield Fault("file_hash", "path", f"{path} cannot be read: {str(error)[:100]}")
        return
    if (size, digest) != (entry.get("num_bytes"), entry.get("sha256")):
        yield Fault("file_hash", "sha256", f"{path} has other bytes than when the index was written")


def _patterns(matter: object) -> Iterator[str]:
    configs = matter.get("configs") if isinstance(matter, dict) else None
    for config in configs if isinstance(configs, list) else []:
        entries = config.get("data_files") if isinstance(config, dict) else None
        for entry in entries if isinstance(entries, list) else []:
            path = entry.get("path") if isinstance(entry, dict) else None
            paths = path if isinstance(path, list) else [path]
            yield from (one for one in paths if isinstance(one, str) and one)


def _small_json(path: Path) -> object:
    """A small JSON file; None for what is none: the caller says what is missing."""
    try:
        return json.loads(path.read_bytes()) if path.stat().st_size <= _MAX_SMALL_FILE else None
    except (OSError, ValueError, RecursionError):
        return None
