"""The pixel data of a PNG, inflated once and shown to be whole.

A decoder stops in silence when the compressed stream ends early although all checksums are right, and leaves the
rest black. So the stream is inflated here, up to the bytes that the header promises and no further, and handed
on as stored blocks, which cost the decoder next to nothing.
"""

import struct
import zlib

from ovsops.errors import ImageDecodeError
from ovsops.images.png_header import PNG_MAGIC, PngHeader

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type: samples a pixel
_ADAM7 = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
"""First row, row step, first column, column step of each pass (PNG, section 8.2)."""


def stored_png(data: memoryview, header: PngHeader) -> bytes:
    """The same picture as a PNG of `IHDR`, `PLTE`, `tRNS` and stored pixels.

    Raises E_TRUNCATED when the pixels run out, E_CORRUPT when they do not inflate.
    """
    expected = num_raw_bytes(header)
    compressed = b"".join(data[chunk][8:-4] for chunk in header.chunks if data[chunk][4:8] == b"IDAT")
    try:
        raw = zlib.decompressobj().decompress(compressed, expected)
    except zlib.error as error:
        raise ImageDecodeError("E_CORRUPT", f"PNG pixels do not inflate: {error}; fetch it again") from error
    if len(raw) < expected:
        raise ImageDecodeError(
            "E_TRUNCATED",
            f"PNG of {header.width}x{header.height} holds {len(raw)} of {expected} bytes of pixels; fetch it again",
        )
    head = [data[chunk] for chunk in header.chunks if data[chunk][4:8] not in (b"IDAT", b"IEND")]
    return b"".join([PNG_MAGIC, *head, _chunk(b"IDAT", zlib.compress(raw, 0)), _chunk(b"IEND", b"")])


def num_raw_bytes(header: PngHeader) -> int:
    """Bytes of all rows before compression, filter bytes included."""
    bits = header.bit_depth * _SAMPLES[header.color_type]
    if not header.is_interlaced:
        return header.height * (1 + -(-header.width * bits // 8))
    total = 0
    for first_row, row_step, first_column, column_step in _ADAM7:
        height = -(-(header.height - first_row) // row_step)
        width = -(-(header.width - first_column) // column_step)
        if height > 0 and width > 0:
            total += height * (1 + -(-width * bits // 8))
    return total


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
    )
