"""A folder that is whole or not there: it is written beside its place and gets its name at the end.

What a killed export left behind lies beside the folder under `.NAME.partial`, and the next export of that name
removes it. A finished export says so by its `export.json`.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ovsops.errors import OutputError, StorageError

EXPORT = "export.json"


@contextmanager
def staged(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to write to, which becomes `out` when the block ends well, and is removed when it does not.

    OutputError where `out` holds something: only an export (it has `export.json`) is replaced, when that is asked
    for, and as a whole.
    """
    out = Path(os.path.abspath(out))
    _check_place(out, replace=replace)
    partial = out.with_name(f".{out.name}.partial")
    try:
        if partial.exists():
            os.close(_claim(partial, out))
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        claim = _claim(partial, out)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written ({error.strerror}); choose another folder") from error
    try:
        yield partial
        _publish(partial, out)
    except OSError as error:
        raise StorageError(
            f"{out}: {error.strerror or error}; make room, or choose another folder"
        ) from error
    finally:
        _remove(partial)
        os.close(claim)


def _claim(partial: Path, out: Path) -> int:
    """A lock on the folder, which ends with this process."""
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OutputError(f"another export is writing {out}: wait for it, or choose another --out") from None
    return descriptor


def _check_place(out: Path, *, replace: bool) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out} is no folder: choose another --out")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / EXPORT).is_file():
        raise OutputError(f"{out} holds other files: choose an empty or new folder for --out")
    if not replace:
        raise OutputError(
            f"{out} holds a finished export: choose another --out, or say --replace to put the new one in its place"
        )


def _publish(partial: Path, out: Path) -> None:
    earlier = out.with_name(f".{out.name}.replaced")
    _remove(earlier)
    if out.exists():
        os.rename(out, earlier)
    os.rename(partial, out)
    _remove(earlier)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
