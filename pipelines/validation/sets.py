"""Which sets lie in a folder: itself one, or the folder above several, as the dataset job writes them.

A set is a folder with an index.json that names a format of ours, or one that is called as a format is and holds its
files. What lies beside such sets is not looked at, and is said.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ovsops.errors import ConfigError
from pipelines.keys import escaped_name
from pipelines.manifest import MANIFEST
from pipelines.validation.files import FORMATS, SUFFIXES, SetFormat, data_files, detect_format, said_format
from pipelines.validation.images import ImageCheck
from pipelines.validation.rules import Report
from pipelines.validation.validate import validate_set

_ALL_SUFFIXES = tuple({suffix for suffixes in SUFFIXES.values() for suffix in suffixes})
_NAMED = 5


def validate_sets(
    path: Path,
    format_name: SetFormat | None = None,
    *,
    images: ImageCheck = "there",
    root: Path | None = None,
) -> list[Report]:
    """`validate_set` of the set at `path`, or of every set below it. With `format_name`, of those of that format.

    ConfigError where it is open what the sets are: folders of several formats without an index.json, or data files
    beside sets that no job of ours wrote there.
    """
    found = dict(find_sets(path))
    if not found:
        _refuse_mixture(path, format_name)
        return [validate_set(path, format_name, images=images, root=root)]
    wanted = {folder: kind for folder, kind in found.items() if format_name in (None, kind)}
    if not wanted:
        listed = _listed([f"{folder.relative_to(path)} ({kind})" for folder, kind in found.items()])
        raise ConfigError(
            f"{path} holds no {format_name} set but {listed}; give one of them, or another --format"
        )
    beside = _beside(path, list(found))
    if beside and not (path / MANIFEST).is_file():
        sets = _listed([str(folder.relative_to(path)) for folder in found])
        raise ConfigError(
            f"{path} holds sets ({sets}), and files that are of none of them ({_listed(beside)}); give one set's folder"
        )
    reports = [validate_set(folder, kind, images=images, root=root) for folder, kind in wanted.items()]
    if beside:
        reports[0].not_checked.append(f"beside the sets, of the job that wrote them: {_listed(beside)}")
    return reports


def find_sets(path: Path) -> Iterator[tuple[Path, SetFormat]]:
    """Sets below a folder that is none itself, in the order of their names. Links are not followed."""
    if not path.is_dir() or said_format(path) is not None:
        return
    for folder, folders, _ in os.walk(path, followlinks=False):
        folders[:] = sorted(name for name in folders if name[0] != "." and name != "images")
        for name in list(folders):
            kind = _format_of(Path(folder, name))
            if kind is not None:
                folders.remove(name)
                yield Path(folder, name), kind


def _format_of(folder: Path) -> SetFormat | None:
    if folder.is_symlink():
        return None
    said = said_format(folder)
    named = next((kind for kind in FORMATS if kind == folder.name), None)
    if said is not None or named is None:
        return said
    holds = any(file.name.lower().endswith(SUFFIXES[named]) for file in data_files(folder))
    return named if holds else None


def _refuse_mixture(path: Path, format_name: SetFormat | None) -> None:
    """Folders with files of different formats are several sets, and no verdict may be about one of them alone."""
    if format_name is not None or not path.is_dir() or said_format(path) is not None:
        return
    by_folder: dict[str, list[Path]] = {}
    for file in data_files(path):
        parts = file.relative_to(path).parts
        if len(parts) > 1 and _is_data(file) and file.is_file():
            by_folder.setdefault(parts[0], []).append(file)
    kinds = {name: detect_format(path / name, files) for name, files in by_folder.items()}
    if len({"parquet" if kind in ("hf", "finehard-parquet") else kind for kind in kinds.values()}) > 1:
        listed = _listed([f"{name} ({kind})" for name, kind in kinds.items()])
        raise ConfigError(
            f"{path} holds files of several formats: {listed}; give the folder of one set, or --format for those alone"
        )


def _beside(path: Path, sets: list[Path]) -> list[str]:
    """Entries that are in no set and lead to none, with files of a set's kinds; links to folders, too."""
    found = []
    for folder, folders, names in os.walk(path, followlinks=False):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in list(folders):
            entry = Path(folder, name)
            if entry in sets:
                folders.remove(name)
            elif not any(one.is_relative_to(entry) for one in sets):
                folders.remove(name)
                if entry.is_symlink() or any(map(_is_data, data_files(entry))):
                    found.append(entry.relative_to(path).as_posix() + "/")
        for name in sorted(names):
            if name[0] != "." and _is_data(Path(name)) and name != MANIFEST:
                found.append(Path(folder, name).relative_to(path).as_posix())
    return found


def _is_data(file: Path) -> bool:
    return file.name.lower().endswith(_ALL_SUFFIXES)


def _listed(names: list[str]) -> str:
    some = ", ".join(escaped_name(name.encode("utf-8", "surrogatepass"), 80) for name in names[:_NAMED])
    return some if len(names) <= _NAMED else f"{some}, and {len(names) - _NAMED} more"
