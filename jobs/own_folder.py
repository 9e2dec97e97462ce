"""A folder that a demo writes into: its own to empty, nobody else's."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from jobs.places import check_place
from ovsops.errors import OutputError, StorageError


def claim_folder(out: Path, own: Sequence[str], *, marker: str, command: str) -> None:
    """Make the folder and put `marker` into it; remove `own`, what an earlier `command` wrote there.

    Raises `OutputError` where one of `own` is there without the marker, what `check_place` raises
    where no folder can be made, `StorageError` where nothing can be written.
    """
    check_place(str(out))
    taken = [name for name in own if (out / name).exists()]
    if taken and not (out / marker).exists():
        raise OutputError(
            f"{out} holds {', '.join(taken)} that no `{command}` wrote: choose another --out, or remove them"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / marker).touch()
        for name in taken:
            place = out / name
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink()
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error}; check space and rights") from error
