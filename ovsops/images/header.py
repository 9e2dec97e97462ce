"""What an image file says about itself before it is decoded: kind, size, frames, where it ends.

The walkers (`jpeg_header`, `png_header`, `webp_header`) step over the parts of a file by their lengths.
They inflate nothing and decode nothing; they find truncation, because a file whose last part is missing ends
early.
"""

from dataclasses import dataclass

from ovsops.errors import ImageDecodeError
from ovsops.images.decode_config import DecodeConfig


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """One file's header. Sides are as stored: the EXIF turn is not applied."""

    format: str
    """`JPEG`, `PNG` or `WEBP`."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    end: int
    """Bytes of the first image in the file; what lies behind them is trailing data."""
    num_frames: int
    """1, or the frames of an animation, the first included."""
    exif: bytes | memoryview | None
    """The TIFF structure of the EXIF block, or None."""


def check_num_bytes(num_bytes: int, config: DecodeConfig) -> None:
    """Refuse an empty or too long file (E_EMPTY, E_TOO_LARGE)."""
    if num_bytes == 0:
        raise ImageDecodeError("E_EMPTY", "the image has 0 bytes; fetch it again")
    if num_bytes > config.max_bytes:
        raise ImageDecodeError(
            "E_TOO_LARGE", f"{num_bytes} bytes are over the cap of {config.max_bytes} (decode.max_bytes)"
        )


def check_size(image_format: str, width: int, height: int, config: DecodeConfig) -> None:
    """Refuse an image without pixels (E_BAD_HEADER) or with too many (E_TOO_LARGE)."""
    size = f"{image_format} header says {width}x{height} pixels"
    if width < 1 or height < 1:
        raise ImageDecodeError("E_BAD_HEADER", f"{size}: an image has at least 1x1")
    if max(width, height) > config.max_side:
        raise ImageDecodeError(
            "E_TOO_LARGE", f"{size}; the longest side is {config.max_side} (decode.max_side)"
        )
    if width * height > config.max_pixels:
        raise ImageDecodeError("E_TOO_LARGE", f"{size}; the cap is {config.max_pixels} (decode.max_pixels)")


def check_num_parts(image_format: str, what: str, num_parts: int, cap: int) -> None:
    """Refuse a file cut in absurdly many parts (E_TOO_COMPLEX)."""
    if num_parts > cap:
        raise ImageDecodeError(
            "E_TOO_COMPLEX", f"{image_format} of more than {cap} {what} (decode.max_{what})"
        )


def truncated(image_format: str, num_bytes: int, missing: str) -> ImageDecodeError:
    """The error of a file that ends early."""
    return ImageDecodeError(
        "E_TRUNCATED", f"{image_format} ends after {num_bytes} bytes, {missing} is missing; fetch it again"
    )
