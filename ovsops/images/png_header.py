"""Walk the chunks of a PNG, and keep only those that its pixels are made of (PNG, third edition)."""

import zlib
from dataclasses import dataclass

from ovsops.errors import ImageDecodeError
from ovsops.images.decode_config import DecodeConfig
from ovsops.images.header import ImageHeader, check_num_parts, check_size, truncated

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
"""Colour types."""

_BIT_DEPTHS = {
    GREY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGB_ALPHA: (8, 16),
}
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


@dataclass(frozen=True, kw_only=True)
class PngHeader(ImageHeader):
    """Header of a PNG."""

    bit_depth: int
    """Bits a sample: 1, 2, 4, 8 or 16."""
    color_type: int
    """0 grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGB + alpha."""
    is_interlaced: bool
    """Whether the rows come in the seven passes of Adam7."""
    transparency: bytes | None
    """Content of `tRNS`: alpha of palette entries, or the one transparent colour."""
    chunks: tuple[slice, ...]
    """Where the chunks of the pixels lie. Text, ICC and later frames are left out, so nothing inflates them."""


def read_png_header(data: memoryview, config: DecodeConfig) -> PngHeader:
    """Header of the PNG in `data`; the checksums of all pixel chunks are verified.

    The image of an APNG is the one of `IDAT`: its first frame, or its default image, which then counts as a
    frame. Raises E_TRUNCATED without a whole `IEND`, E_CORRUPT for a wrong checksum, E_BAD_HEADER and
    E_TOO_LARGE for what `IHDR` says, E_UNSUPPORTED for an unknown critical chunk, E_TOO_COMPLEX.
    """
    width, height, bit_depth, color_type, is_interlaced = _read_ihdr(data, config)
    transparency: bytes | None = None
    exif: memoryview | None = None
    chunks: list[slice] = []
    num_frame_controls = num_parts = 0
    is_animated = default_image_is_frame = False
    seen: set[bytes] = set()
    position, kind = len(PNG_MAGIC), b""
    while kind != b"IEND":
        num_parts += 1
        check_num_parts("PNG", "parts", num_parts, config.max_parts)
        length, kind = (
            int.from_bytes(data[position : position + 4], "big"),
            bytes(data[position + 4 : position + 8]),
        )
        end = position + 12 + length
        if end > len(data):
            raise truncated("PNG", len(data), f"the rest of chunk {kind!r} at byte {position}")
        content = data[position + 8 : end - 4]
        if kind in _PIXEL_CHUNKS:
            _check_crc(data, position, end, kind)
            chunks.append(slice(position, end))
            if kind == b"tRNS":
                transparency = bytes(content)
        elif not kind.isalpha():
            raise ImageDecodeError(
                "E_CORRUPT", f"PNG chunk at byte {position} is named {kind!r}, not four letters"
            )
        elif kind[:1].isupper():
            raise ImageDecodeError(
                "E_UNSUPPORTED", f"PNG with the critical chunk {kind.decode()}; re-encode it"
            )
        elif kind == b"acTL":
            is_animated = True
        elif kind == b"fcTL":
            num_frame_controls += 1
            default_image_is_frame |= b"IDAT" not in seen
        elif kind == b"eXIf":
            exif = content
        seen.add(kind)
        position = end
    if b"IDAT" not in seen or (color_type == PALETTE and b"PLTE" not in seen):
        raise ImageDecodeError("E_CORRUPT", "PNG without pixels (IDAT) or without its palette (PLTE)")
    num_frames = num_frame_controls + (not default_image_is_frame) if is_animated else 1
    return PngHeader(
        format="PNG",
        width=width,
        height=height,
        end=position,
        num_frames=max(num_frames, 1),
        exif=exif,
        bit_depth=bit_depth,
        color_type=color_type,
        is_interlaced=is_interlaced,
        transparency=transparency,
        chunks=tuple(chunks),
    )


def _read_ihdr(data: memoryview, config: DecodeConfig) -> tuple[int, int, int, int, bool]:
    """Width, height, bit depth, colour type, whether interlaced."""
    if len(data) < 33:
        raise truncated("PNG", len(data), "the rest of its header")
    if bytes(data[8:16]) != b"\0\0\0\x0dIHDR":
        raise ImageDecodeError(
            "E_BAD_HEADER", f"PNG starts with {bytes(data[8:16])!r}, expected IHDR of 13 bytes"
        )
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    check_size("PNG", width, height, config)
    bit_depth, color_type, compression, filtering, interlace = data[24:29]
    if (
        bit_depth not in _BIT_DEPTHS.get(color_type, ())
        or compression != 0
        or filtering != 0
        or interlace not in (0, 1)
    ):
        raise ImageDecodeError(
            "E_BAD_HEADER",
            f"PNG header says bit depth {bit_depth}, colour type {color_type}, compression {compression}, "
            f"filter {filtering}, interlace {interlace}: no such PNG exists",
        )
    return width, height, bit_depth, color_type, bool(interlace)


def _check_crc(data: memoryview, start: int, end: int, kind: bytes) -> None:
    expected, got = int.from_bytes(data[end - 4 : end], "big"), zlib.crc32(data[start + 4 : end - 4])
    if got != expected:
        raise ImageDecodeError(
            "E_CORRUPT",
            f"PNG chunk {kind.decode()} at byte {start}: checksum {got:08x}, expected {expected:08x}",
        )
