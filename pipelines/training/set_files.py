"""Which files a training set has, of which format and split. Nothing is read but an index."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ovsops.errors import ConfigError
from pipelines.shards import TAR_SUFFIXES
from pipelines.storage import Storage, StorageOptions, open_storage, split_url
from pipelines.training_sets.record import Split
from pipelines.validation.items import split_of_file
from pipelines.writers.whole_files import INDEX

SetFormat = Literal["finehard-json", "finehard-parquet", "webdataset"]
_SUFFIXES: Mapping[SetFormat, tuple[str, ...]] = {
    "webdataset": TAR_SUFFIXES,
    "finehard-parquet": (".parquet",),
    "finehard-json": (".json",),
}


@dataclass(frozen=True, kw_only=True)
class SetInput:
    """Which training set, and where its images are."""

    url: str
    """Its folder, or one of its files."""
    format: Literal["auto"] | SetFormat = "auto"
    split: Split = "train"
    """Items of other splits are passed by; an item is of the split that its folder, file or field names, and of every
    split where nothing names one."""
    images: str | None = None
    """Folder that paths of images are below; the set's own where it is not given."""


@dataclass(frozen=True, kw_only=True)
class SetFiles:
    """The files of a set, found but not read."""

    folder: str
    format: SetFormat
    names: tuple[str, ...]
    identity: str
    """SHA-256 over names, sizes and content tags."""


def find_set(given: SetInput, options: StorageOptions) -> SetFiles:
    """The files of a set that may hold items of its split. ConfigError where there is none."""
    folder, names = given.url.rstrip("/"), None
    if given.url.lower().endswith(tuple(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)):
        folder, name = split_url(given.url)
        names = [name]
    storage = open_storage(folder, options)
    infos = (
        [storage.info(name) for name in names if storage.exists(name)]
        if names is not None
        else [info for info in storage.list() if not _is_beside(info.path)]
    )
    found = (
        given.format
        if given.format != "auto"
        else _format_of(storage, [info.path for info in infos], given.url)
    )
    kept = [
        info
        for info in sorted(infos, key=lambda info: info.path)
        if info.path.lower().endswith(_SUFFIXES[found]) and split_of_file(info.path) in ("", given.split)
    ]
    if not kept:
        raise ConfigError(
            f"input.set: {given.url} has no {' or '.join(_SUFFIXES[found])} file of split {given.split} "
            f"(format {found}): "
            "give the folder of a training set, or another input.split or input.format"
        )
    told = json.dumps([(info.path, info.size, info.tag) for info in kept])
    return SetFiles(
        folder=folder,
        format=found,
        names=tuple(info.path for info in kept),
        identity=hashlib.sha256(told.encode()).hexdigest(),
    )


def _is_beside(path: str) -> bool:
    """Hidden files, the index, and the folder of images."""
    parts = path.split("/")
    return path == INDEX or parts[0] == "images" or any(part.startswith(".") for part in parts)


def _format_of(storage: Storage, names: list[str], url: str) -> SetFormat:
    """By index.json, else by the names."""
    if storage.exists(INDEX):
        try:
            index = json.loads(storage.read(INDEX))
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"input.set: {url}/{INDEX} is no JSON ({str(error)[:80]}); say input.format"
            ) from error
        said = index.get("format") if isinstance(index, dict) else None
        if said in ("coco", "hf"):
            raise ConfigError(
                f"input.set: {url} is a set in format {said}, which is not trained from: write it as "
                f"{', '.join(_SUFFIXES)}"
            )
        for name in _SUFFIXES:
            if said == name:
                return name
    for name, suffixes in _SUFFIXES.items():
        if any(path.lower().endswith(suffixes) for path in names):
            return name
    raise ConfigError(
        f"input.set: {url} holds no .json, .parquet or .tar file, or is not there: give the folder of a training set"
    )
