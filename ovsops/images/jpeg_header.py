"""Walk the segments of a JPEG up to its end-of-image marker (ITU-T T.81, annex B)."""

import re
from dataclasses import dataclass

from ovsops.errors import ImageDecodeError
from ovsops.images.decode_config import DecodeConfig
from ovsops.images.header import ImageHeader, check_num_parts, check_size, truncated

JPEG_MAGIC = b"\xff\xd8\xff"
EXIF_MAGIC = b"Exif\0\0"

_SOI, _EOI, _SOS, _APP1, _TEM = 0xD8, 0xD9, 0xDA, 0xE1, 0x01
_METADATA = frozenset(range(0xE0, 0xF0)) - {0xE0, 0xEE} | {0xFE}  # APP0-15 without JFIF, Adobe; comment
_RESTARTS = range(0xD0, 0xD8)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0-15 without DHT, JPG, DAC
_DCT_FRAMES = frozenset(
    {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
)  # baseline, extended, progressive; Huffman, arithmetic
_MARKER = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class JpegHeader(ImageHeader):
    """Header of a JPEG."""

    num_components: int
    """1 grey, 3 colour, 4 CMYK or YCCK."""
    num_scans: int
    """1 to 4 of a baseline JPEG, about 10 of a progressive one."""
    metadata: tuple[slice, ...]
    """Where application data and comments lie that no pixel depends on (all but JFIF and Adobe)."""


def read_jpeg_header(data: memoryview, config: DecodeConfig) -> JpegHeader:
    """Header of the first JPEG in `data`.

    Thumbnails lie inside APP segments and are stepped over. Raises E_TRUNCATED without an end-of-image
    marker, E_UNSUPPORTED for lossless, hierarchical, 12-bit and two-component JPEGs, E_BAD_HEADER and
    E_TOO_LARGE for their sizes, E_TOO_COMPLEX for too many scans or segments.
    """
    width = height = num_components = num_scans = num_parts = 0
    exif: memoryview | None = None
    metadata: list[slice] = []
    position, pattern = 2, _MARKER
    while True:
        match = pattern.search(data, position)
        if match is None:
            raise truncated("JPEG", len(data), "the end-of-image marker")
        marker, position, pattern = data[match.end() - 1], match.end(), _MARKER
        if marker == _EOI:
            break
        if marker in _RESTARTS or marker == _TEM:
            continue
        if marker == _SOI:
            raise ImageDecodeError(
                "E_CORRUPT", f"a second JPEG starts at byte {position - 2}, inside the first"
            )
        num_parts += 1
        check_num_parts("JPEG", "parts", num_parts, config.max_parts)
        segment = _segment(data, position, marker)
        if marker in _METADATA:
            metadata.append(slice(position - 2, position + 2 + len(segment)))
        position += 2 + len(segment)
        if marker in _FRAMES and not num_components:
            width, height, num_components = _read_frame(segment, marker)
            check_size("JPEG", width, height, config)
        elif marker == _APP1 and exif is None and bytes(segment[:6]) == EXIF_MAGIC:
            exif = segment[6:]
        elif marker == _SOS:
            num_scans += 1
            check_num_parts("JPEG", "scans", num_scans, config.max_scans)
            pattern = _MARKER_AFTER_SCAN
    if not num_components or not num_scans:
        missing = "frame header" if not num_components else "scan"
        raise ImageDecodeError("E_BAD_HEADER", f"JPEG of {position} bytes without a {missing}")
    return JpegHeader(
        format="JPEG",
        width=width,
        height=height,
        end=position,
        num_frames=1,
        exif=exif,
        num_components=num_components,
        num_scans=num_scans,
        metadata=tuple(metadata),
    )


def without_metadata(data: memoryview, header: JpegHeader) -> bytes:
    """The same picture without EXIF, XMP, profiles and comments, for a decoder that would parse them."""
    starts = [0, *(skipped.stop for skipped in header.metadata)]
    stops = [*(skipped.start for skipped in header.metadata), header.end]
    return b"".join(data[start:stop] for start, stop in zip(starts, stops, strict=True))


def _segment(data: memoryview, position: int, marker: int) -> memoryview:
    """Content of the segment whose length field is at `position`."""
    length = int.from_bytes(data[position : position + 2], "big")
    if position + 2 > len(data) or position + length > len(data):
        raise truncated("JPEG", len(data), f"the rest of segment 0x{marker:02x} at byte {position - 2}")
    if length < 2:
        raise ImageDecodeError(
            "E_CORRUPT",
            f"JPEG segment 0x{marker:02x} at byte {position - 2} has length {length}, at least 2 is legal",
        )
    return data[position + 2 : position + length]


def _read_frame(segment: memoryview, marker: int) -> tuple[int, int, int]:
    """Width, height and number of components of a frame header."""
    if len(segment) < 6:
        raise ImageDecodeError(
            "E_BAD_HEADER", f"JPEG frame header of {len(segment)} bytes, at least 9 are needed"
        )
    precision, height, width, num_components = (
        segment[0],
        int.from_bytes(segment[1:3], "big"),
        int.from_bytes(segment[3:5], "big"),
        segment[5],
    )
    if marker not in _DCT_FRAMES:
        raise ImageDecodeError(
            "E_UNSUPPORTED", f"lossless or hierarchical JPEG (SOF{marker - 0xC0}); re-encode it"
        )
    if precision != 8:
        raise ImageDecodeError("E_UNSUPPORTED", f"JPEG of {precision} bits a sample; re-encode it with 8")
    if num_components not in (1, 3, 4):
        raise ImageDecodeError("E_UNSUPPORTED", f"JPEG of {num_components} components; 1, 3 and 4 are known")
    return width, height, num_components
