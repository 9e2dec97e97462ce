"""Image files that a set names: in the set, no links out of it, there, and what they claim to be.

Nothing is followed out of the folder. Nothing is decoded but where pictures are looked at whole.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from ovsops.errors import ImageDecodeError
from ovsops.images.decode import DecodeConfig, decode_image, read_header
from pipelines.training_sets.build import image_extension
from pipelines.training_sets.contract import Fault, path_faults, shown

ImageCheck = Literal["none", "there", "whole"]
"""How far images are looked at: not at all, their first bytes (in archives: their header), or decoded and hashed."""
PICTURES: Mapping[ImageCheck, str] = {
    "none": "pictures: not looked at; --images whole decodes them",
    "there": "pictures: headers only; --images whole decodes them",
    "whole": "pictures: every one decoded",
}
"""Said beside every verdict."""


class ImageChecker:
    """Checks paths below one folder."""

    def __init__(self, folder: Path, check: ImageCheck) -> None:
        self.folder, self.check = folder.resolve(), check

    def faults(self, path: object, sha256: object, field: str) -> Iterator[Fault]:
        """What is wrong with the image at `path`."""
        found = list(path_faults(path, field))
        yield from found
        if found or not isinstance(path, str) or self.check == "none":
            return
        try:
            target = (self.folder / path).resolve()
            if not target.is_relative_to(self.folder):
                yield Fault("path_link", field, f"{shown(path)} leads out of the set")
            elif not stat.S_ISREG(target.stat().st_mode):
                yield Fault("image_broken", field, f"{shown(path)} is no file")
            else:
                yield from self._content_faults(target, path, sha256, field)
        except FileNotFoundError:
            yield Fault("image_missing", field, f"{shown(path)} is not there")
        except (OSError, RuntimeError, ValueError) as error:  # no right to read, a loop of links, an odd name
            yield Fault("image_missing", field, f"{shown(path)} cannot be opened: {str(error)[:100]}")

    def _content_faults(self, target: Path, path: str, sha256: object, field: str) -> Iterator[Fault]:
        with os.fdopen(os.open(target, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            data = file.read(64 if self.check == "there" else DecodeConfig().max_bytes + 1)
        if self.check == "whole":
            yield from image_faults(data, sha256, field, is_whole=True)
        elif image_extension(data) is None:
            yield Fault("image_broken", field, f"{shown(path)} is no JPEG, PNG or WebP")


def image_faults(data: bytes, sha256: object, field: str, *, is_whole: bool) -> Iterator[Fault]:
    """What is wrong with the bytes of an image: with its header or, where it is looked at whole, with all of it."""
    try:
        if is_whole:
            decode_image(data, DecodeConfig())
        else:
            read_header(memoryview(data), DecodeConfig())
    except ImageDecodeError as error:
        yield Fault("image_broken", field, f"{error.code}: {error}")
        return
    except MemoryError:
        yield Fault("image_broken", field, "E_MEMORY: needs more memory than there is")
        return
    if is_whole and isinstance(sha256, str) and hashlib.sha256(data).hexdigest() != sha256:
        yield Fault("image_hash", field, "the bytes are not those whose SHA-256 is recorded")
