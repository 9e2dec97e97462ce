"""Pictures of a training set, read when they are wanted: from its folder or bucket, never from beyond it.

Axes: h w pixels.
"""

import os
import stat
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8

from ovsops.errors import RowError, StorageError
from ovsops.images.decode import DecodeConfig, decode_image
from pipelines.storage import StorageOptions, local_path, open_storage, scheme_of


@dataclass(frozen=True, kw_only=True)
class SetImages:
    """Where the images of a set are. Pickles in bytes, so that it travels to workers."""

    root: str
    """Folder or bucket prefix that paths are below."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    decode: DecodeConfig = field(default_factory=DecodeConfig)

    def read(self, path: str) -> bytes:
        """Bytes of one image. RowError where there is none that may be read."""
        try:
            return self._read_local(path) if scheme_of(self.root) == "file" else self._read_stored(path)
        except FileNotFoundError:
            raise RowError("E_IMAGE_MISSING", f"{path} is not below {self.root}") from None
        except (
            StorageError,
            OSError,
            RuntimeError,
            ValueError,
        ) as error:  # no right, a loop of links, an odd name
            raise RowError("E_IMAGE_MISSING", f"{path} cannot be read: {str(error)[:200]}") from error

    def pixels(self, data: bytes) -> tuple[UInt8[np.ndarray, "_h _w 3"], int]:
        """The picture and the EXIF turn that was applied. ImageDecodeError (a RowError) with its code."""
        decoded = decode_image(data, self.decode)
        return decoded.pixels, decoded.exif_orientation

    def _read_local(self, path: str) -> bytes:
        folder = local_path(self.root).resolve()
        target = (folder / path).resolve()
        if not target.is_relative_to(folder):
            raise RowError("E_PATH_LINK", f"{path} leads out of {self.root}")
        with os.fdopen(os.open(target, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise RowError("E_IMAGE_MISSING", f"{path} is no file")
            return file.read(
                self.decode.max_bytes + 1
            )  # one more than is decoded: the decoder says too large

    def _read_stored(self, path: str) -> bytes:
        with open_storage(self.root, self.storage).open(path) as stream:
            return stream.read(self.decode.max_bytes + 1)
