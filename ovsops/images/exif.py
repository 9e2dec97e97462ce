"""The EXIF orientation: read it from its block and nothing else, turn pixels by it. Axes: h w pixels.

Only IFD 0 is read, so maker notes, GPS and thumbnails are never touched. Orientation in XMP is ignored, as
browsers do.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from ovsops.images.decode_config import DecodeConfig

_ORIENTATION = 0x0112
_SIZES = {1: 1, 3: 2, 4: 4}  # BYTE, SHORT, LONG: bytes of one value
_MAX_ENTRIES = 1024

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels[::-1].transpose(1, 0, 2),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels[:, ::-1].transpose(1, 0, 2),
}


def read_orientation(exif: bytes | memoryview | None, config: DecodeConfig) -> tuple[int, tuple[str, ...]]:
    """Orientation 1-8 and notes. What cannot be read or is no orientation counts as 1, with a note.

    Notes: `N_EXIF_TOO_LARGE`, `N_EXIF_UNREADABLE`, `N_EXIF_ORIENTATION` (0, 9 or another value outside 1-8).
    """
    if exif is None or len(exif) == 0:
        return 1, ()
    if len(exif) > config.max_exif_bytes:
        return 1, ("N_EXIF_TOO_LARGE",)
    byte_order = {b"II*\0": "little", b"MM\0*": "big"}.get(bytes(exif[:4]))
    if byte_order is None:
        return 1, ("N_EXIF_UNREADABLE",)

    def number(position: int, num_bytes: int) -> int:
        return int.from_bytes(exif[position : position + num_bytes], byte_order)  # type: ignore[arg-type]

    start = number(4, 4)
    if start < 8 or start + 2 > len(exif):
        return 1, ("N_EXIF_UNREADABLE",)
    for entry in range(min(number(start, 2), _MAX_ENTRIES)):
        position = start + 2 + 12 * entry
        if position + 12 > len(exif):
            return 1, ("N_EXIF_UNREADABLE",)
        if number(position, 2) != _ORIENTATION:
            continue
        size = _SIZES.get(number(position + 2, 2))
        value = number(position + 8, size) if size is not None and number(position + 4, 4) == 1 else 0
        return (value, ()) if value in _TURNS else (1, ("N_EXIF_ORIENTATION",))
    return 1, ()


def apply_orientation(pixels: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Pixels as a viewer shows them (EXIF 2.32, tag 0x0112); 5 to 8 swap the sides."""
    return np.ascontiguousarray(_TURNS[orientation](pixels))
