"""Writes a PNG whose bytes depend on the pixels alone.

What a compressor writes depends on its version; so the pixels are stored, not compressed: filter 0, deflate blocks of
type 0 (RFC 1951, 3.2.4) in a zlib stream (RFC 1950). Any PNG reader takes it (W3C PNG, third edition).
"""

import struct
import zlib

import numpy as np
from jaxtyping import UInt8

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BLOCK = 65_535
"""Most bytes of one stored block."""


def image_to_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """8-bit RGB PNG."""
    height, width = image.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # the leading 0 of a row: no filter
    rows[:, 1:] = image.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        [_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", _stored(rows.tobytes())), _chunk(b"IEND", b"")]
    )


def _stored(data: bytes) -> bytes:
    """A zlib stream of stored blocks."""
    parts = [b"\x78\x01"]
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        is_last = start + _BLOCK >= len(data)
        parts += [struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block]
    parts.append(struct.pack(">I", zlib.adler32(data)))
    return b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join(
        [struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))]
    )
