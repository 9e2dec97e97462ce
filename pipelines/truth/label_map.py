"""A label map from the bytes of a PNG, its values unchanged. Axes: h w pixels.

A palette PNG holds indexes and a grey one levels; both are the labels. They are taken as stored: converting to
RGB, or scaling 2-bit grey to 0..255 as viewers do, would make other labels of them. The same caps and checks
hold as for images (`ovsops.images`): sizes before inflating, checksums, whole pixels.
"""

import io

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL.PngImagePlugin import PngImageFile

from ovsops.errors import ImageDecodeError
from ovsops.images.decode_config import DecodeConfig
from ovsops.images.header import check_num_bytes
from ovsops.images.png_header import GREY, PALETTE, PNG_MAGIC, read_png_header
from ovsops.images.png_pixels import stored_png

_GREY_STEP = {2: 85, 4: 17}
"""Bit depth of grey: what Pillow multiplies levels with to fill 0..255."""


def decode_label_map(
    data: bytes, config: DecodeConfig | None = None
) -> UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]:
    """Values of the PNG in `data`.

    Raises `ImageDecodeError` with the codes of `ovsops.images.decode`: E_MAGIC for another format,
    E_UNSUPPORTED for a PNG in colour or with alpha, which holds no labels.
    """
    config = config or DecodeConfig()
    check_num_bytes(len(data), config)
    if not data.startswith(PNG_MAGIC):
        raise ImageDecodeError(
            "E_MAGIC", f"starts with {data[:8]!r}: a label map is a PNG (JPEG would blur labels)"
        )
    view = memoryview(data)
    header = read_png_header(view, config)
    if header.color_type not in (GREY, PALETTE):
        raise ImageDecodeError(
            "E_UNSUPPORTED",
            f"PNG of colour type {header.color_type}: colours are no labels; give the index map (palette or grey)"
            " as published, not a rendering of it",
        )
    try:
        picture = PngImageFile(io.BytesIO(stored_png(view, header)))
        picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageDecodeError("E_CORRUPT", f"PNG: {error}; fetch it again") from error
    values = np.array(picture)
    if header.bit_depth == 16:
        return values.astype(np.uint16)
    if header.color_type == GREY and header.bit_depth in _GREY_STEP:
        values //= _GREY_STEP[header.bit_depth]
    return values.astype(np.uint8)
