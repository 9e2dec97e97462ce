"""Where a recipe's paths lead: whatever folder a worker runs in, and whether an output can be made there."""

import errno
import os
import tempfile
from pathlib import Path

from ovsops.errors import ConfigError, StorageError
from pipelines.storage import local_path, scheme_of
from pipelines.storage_local import TEMPORARY

_WRONG_PATH = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EINVAL,
)
"""What an operating system says of a path that was chosen badly; a full or broken disk is none of them."""


def absolute_url(url: str) -> str:
    """A local path whatever folder a worker runs in; other URLs as they are. What ends with `/` still does."""
    if scheme_of(url) != "file":
        return url
    return str(local_path(url)) + ("/" if url.endswith("/") else "")


def output_problem(output: str) -> str:
    """Why a local output cannot be written, without writing; a bucket is tried by `doctor`."""
    if scheme_of(output) != "file":
        return ""
    place = local_path(output)
    existing = _existing(place)
    if not existing.is_dir():
        return f"output {place}: {existing} is a file; choose another folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        return (
            f"output {place}: {existing} is not writable for you; choose another folder or change its rights"
        )
    return ""


def check_place(output: str) -> None:
    """Raise ConfigError where a local output cannot be made, StorageError where its disk does not take a folder.

    A folder is made and removed in the nearest one that exists: rights alone do not tell what a mount refuses.
    """
    if problem := output_problem(output):
        raise ConfigError(problem)
    if scheme_of(output) != "file":
        return
    place = local_path(output)
    existing = _existing(place)
    try:
        Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=existing)).rmdir()
    except OSError as error:
        told = f"output {place}: no folder can be made in {existing} ({error.strerror})"
        if error.errno in _WRONG_PATH:
            raise ConfigError(f"{told}; choose another folder") from error
        raise StorageError(f"{told}; check its space") from error


def _existing(place: Path) -> Path:
    """The place, or the nearest folder above it that is there. A folder that may not be looked into ends the search."""
    for folder in (place, *place.parents):
        try:
            folder.lstat()
        except OSError:  # not there, not ours to look into, or no name at all: what is above it says why
            continue
        return folder
    return Path(place.anchor)
