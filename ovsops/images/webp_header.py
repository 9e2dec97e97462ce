"""Walk the chunks of a WebP (RFC 9649)."""

from ovsops.errors import ImageDecodeError
from ovsops.images.decode_config import DecodeConfig
from ovsops.images.header import ImageHeader, check_num_parts, check_size, truncated
from ovsops.images.jpeg_header import EXIF_MAGIC


def is_webp(data: memoryview) -> bool:
    """Whether the magic bytes are those of a WebP."""
    return bytes(data[:4]) == b"RIFF" and bytes(data[8:12]) == b"WEBP"


def read_webp_header(data: memoryview, config: DecodeConfig) -> ImageHeader:
    """Header of the WebP in `data`; the sides of an animation are those of its canvas.

    Raises E_TRUNCATED when the file is shorter than its RIFF length, E_CORRUPT when a chunk crosses that
    length, E_BAD_HEADER and E_TOO_LARGE for its sizes, E_TOO_COMPLEX for too many chunks.
    """
    if len(data) < 30:
        raise truncated("WEBP", len(data), "the rest of its header")
    width, height = _read_size(data)
    check_size("WEBP", width, height, config)
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise truncated("WEBP", len(data), f"the rest of {end} bytes")
    exif: memoryview | None = None
    num_frames = num_parts = 0
    has_pixels = False
    position = 12
    while position + 8 <= end:
        num_parts += 1
        check_num_parts("WEBP", "parts", num_parts, config.max_parts)
        kind, length = (
            bytes(data[position : position + 4]),
            int.from_bytes(data[position + 4 : position + 8], "little"),
        )
        if position + 8 + length > end:
            raise ImageDecodeError(
                "E_CORRUPT",
                f"WebP chunk {kind!r} at byte {position} ends {position + 8 + length - end} bytes too late",
            )
        if kind == b"EXIF":
            content = data[position + 8 : position + 8 + length]
            exif = content[6:] if bytes(content[:6]) == EXIF_MAGIC else content
        num_frames += kind == b"ANMF"
        has_pixels |= kind in (b"VP8 ", b"VP8L", b"ANMF")
        position += 8 + length + length % 2
    if not has_pixels:
        raise ImageDecodeError("E_CORRUPT", f"WebP of {end} bytes without pixels (VP8, VP8L or ANMF)")
    return ImageHeader(
        format="WEBP", width=width, height=height, end=end, num_frames=max(num_frames, 1), exif=exif
    )


def _read_size(data: memoryview) -> tuple[int, int]:
    """Width and height that the first chunk states."""
    kind = bytes(data[12:16])
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8 " and bytes(data[23:26]) == b"\x9d\x01\x2a":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise ImageDecodeError("E_BAD_HEADER", f"WebP starts with {kind!r}: no key frame of VP8, VP8L or VP8X")
