"""Bytes to RGB pixels, or an error with a code; never grey pixels for what is missing. Axes: h w pixels.

JPEG, PNG and WebP, told by their magic bytes; the name of a file means nothing. Caps are checked from the
header before anything is decoded or inflated (`decode_config`), the EXIF turn is applied, of several frames
the first is taken.

    code            the image
    E_EMPTY         has no bytes
    E_MAGIC         is no JPEG, PNG or WebP
    E_TOO_LARGE     is over the cap on bytes, pixels or side
    E_TOO_COMPLEX   is over the cap on scans, segments or chunks
    E_BAD_HEADER    states something that no image has (a side of 0, an unknown bit depth)
    E_UNSUPPORTED   is a legal file of a kind that is not decoded (lossless or 12-bit JPEG)
    E_TRUNCATED     ends early, be it by one byte
    E_CORRUPT       is whole but damaged: checksum, entropy coding, order of parts
    E_MEMORY        needs more memory than a decode worker may have      (DecodePool)
    E_TIMEOUT       was not decoded in time                              (DecodePool)
    E_DECODER_CRASH took its decoder down, twice                         (DecodePool)

    note                  the image is decoded, and
    N_TRAILING_DATA:n     n bytes behind its end were ignored (a second JPEG, a ZIP)
    N_EXIF_ORIENTATION    its orientation is none of 1-8 and counts as 1
    N_EXIF_UNREADABLE     its EXIF block is broken; orientation 1
    N_EXIF_TOO_LARGE      its EXIF block is over the cap and was not read; orientation 1
    N_CMYK                was CMYK or YCCK, taken as Adobe writes it (inverted), without its colour profile
    N_ALPHA_ON_WHITE      had pixels that are not opaque and was laid on white
    N_16_BIT              had 16 bits a sample: grey is scaled and rounded, colour keeps its high byte
    N_TRANSPARENT_COLOR_IGNORED  one 16-bit colour was transparent; it is kept
    N_EXTRANEOUS_BYTES    is a JPEG with stray bytes before its end marker; every pixel is whole
    N_LENIENT_DECODER     is a JPEG of unusual subsampling that only Pillow decodes, which reports no damage

Colour profiles and gamma are not applied. Metadata other than the orientation goes nowhere.
"""

import io
import re
from dataclasses import dataclass

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ovsops.errors import ImageDecodeError, OvsopsError
from ovsops.images.decode_config import DecodeConfig
from ovsops.images.exif import apply_orientation, read_orientation
from ovsops.images.header import ImageHeader, check_num_bytes
from ovsops.images.jpeg_header import JPEG_MAGIC, JpegHeader, read_jpeg_header, without_metadata
from ovsops.images.png_header import GREY, PALETTE, PNG_MAGIC, RGB, PngHeader, read_png_header
from ovsops.images.png_pixels import stored_png
from ovsops.images.webp_header import is_webp, read_webp_header

__all__ = ["DecodeConfig", "DecodedImage", "decode_image", "read_header"]

_STRAY_BYTES_AT_END = re.compile(r"extraneous bytes before marker 0xd9")
_UNKNOWN_SAMPLING = re.compile(r"not determine subsampling")
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError)


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """The first image of a file, as a viewer shows it."""

    pixels: UInt8[np.ndarray, "h w 3"]
    """RGB with the EXIF turn applied; C-contiguous, writable."""
    exif_orientation: int
    """1-8, the turn that was applied."""
    num_frames: int
    """1, or the frames that the animation has."""
    format: str
    """`JPEG`, `PNG` or `WEBP`."""
    notes: tuple[str, ...]
    """Codes of the table above, in the order in which they came up."""


def decode_image(data: bytes | memoryview, config: DecodeConfig | None = None) -> DecodedImage:
    """Decode the first image in `data`. Raises ImageDecodeError with a code of the table above.

    A plain JPEG gives the pixels of Pillow bit for bit. A crash of a decoder library takes this process down;
    `DecodePool` confines it.
    """
    config = config or DecodeConfig()
    view = memoryview(data)
    header = read_header(view, config)
    notes = [f"N_TRAILING_DATA:{len(view) - header.end}"] if header.end < len(view) else []
    orientation, exif_notes = read_orientation(header.exif, config)
    notes.extend(exif_notes)
    match header:
        case JpegHeader():
            pixels = _decode_jpeg(view[: header.end], header, notes)
        case PngHeader():
            pixels = _decode_png(view, header, notes)
        case _:
            pixels = _decode_webp(view[: header.end], header, notes)
    if pixels.shape != (header.height, header.width, 3):
        raise ImageDecodeError(
            "E_CORRUPT",
            f"{header.format} decodes to {pixels.shape[1]}x{pixels.shape[0]} pixels, "
            f"its header says {header.width}x{header.height}",
        )
    return DecodedImage(
        pixels=apply_orientation(pixels, orientation),
        exif_orientation=orientation,
        num_frames=header.num_frames,
        format=header.format,
        notes=tuple(notes),
    )


def read_header(data: memoryview, config: DecodeConfig) -> ImageHeader:
    """Header of the first image in `data`, all caps checked; decodes nothing."""
    check_num_bytes(len(data), config)
    magic = bytes(data[:12])
    if magic.startswith(JPEG_MAGIC):
        return read_jpeg_header(data, config)
    if magic.startswith(PNG_MAGIC):
        return read_png_header(data, config)
    if is_webp(data):
        return read_webp_header(data, config)
    if any(prefix.startswith(magic) for prefix in (JPEG_MAGIC, PNG_MAGIC)):
        raise ImageDecodeError("E_TRUNCATED", f"the image ends after {len(data)} bytes; fetch it again")
    raise ImageDecodeError(
        "E_MAGIC", f"starts with {magic!r}: no JPEG, PNG or WebP; convert it or leave it out"
    )


def _decode_jpeg(data: memoryview, header: JpegHeader, notes: list[str]) -> np.ndarray:
    num_channels, colorspace = (4, "CMYK") if header.num_components == 4 else (3, "RGB")
    samples = np.empty((header.height, header.width, num_channels), np.uint8)
    try:
        samples = simplejpeg.decode_jpeg(data, colorspace, buffer=samples)
    except ValueError as error:
        message = str(error)
        if _STRAY_BYTES_AT_END.search(message):
            # The strict decoder stops at the first complaint, and this one comes after the last block.
            notes.append("N_EXTRANEOUS_BYTES")
            samples = simplejpeg.decode_jpeg(data, colorspace, buffer=samples, strict=False)
        elif _UNKNOWN_SAMPLING.search(message):
            notes.append("N_LENIENT_DECODER")
            return _decode_with_pillow(JpegImageFile, without_metadata(data, header), "JPEG", notes)
        else:
            raise ImageDecodeError(
                "E_CORRUPT", f"JPEG of {header.width}x{header.height}: {message}; fetch it again"
            ) from error
    if num_channels == 3:
        return samples
    notes.append("N_CMYK")
    ink = Image.frombuffer(
        "CMYK", (header.width, header.height), np.invert(samples, out=samples), "raw", "CMYK", 0, 1
    )
    return _writable(ink.convert("RGB"))


def _decode_png(data: memoryview, header: PngHeader, notes: list[str]) -> np.ndarray:
    if header.bit_depth == 16:
        notes.append("N_16_BIT")
    picture = _load(PngImageFile, stored_png(data, header), "PNG")
    if header.color_type == GREY:
        return _grey_to_rgb(picture, header, notes)
    if header.color_type == RGB and header.transparency is not None:
        picture.info.pop("transparency", None)
        if header.bit_depth == 16:
            notes.append("N_TRANSPARENT_COLOR_IGNORED")
            return _writable(picture)
        hidden = np.frombuffer(header.transparency[:6], ">u2")
        return _on_white(_writable(picture), (np.asarray(picture) != hidden).any(axis=2), notes)
    if header.color_type == PALETTE and header.transparency is not None:
        picture = picture.convert("RGBA")
    return _to_rgb(picture, notes)


def _decode_webp(data: memoryview, header: ImageHeader, notes: list[str]) -> np.ndarray:
    return _decode_with_pillow(WebPImageFile, bytes(data), header.format, notes)


def _decode_with_pillow(
    plugin: type[ImageFile.ImageFile], data: bytes, image_format: str, notes: list[str]
) -> np.ndarray:
    picture = _load(plugin, data, image_format)
    if picture.mode == "CMYK":
        notes.append("N_CMYK")
    return _to_rgb(picture, notes)


def _load(plugin: type[ImageFile.ImageFile], data: bytes, image_format: str) -> Image.Image:
    """First frame. The plugin is called by its name, so no other can be picked by sniffing."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise OvsopsError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on, which turns missing pixels grey in silence; "
            "turn it off, or decode in a DecodePool"
        )
    try:
        picture = plugin(io.BytesIO(data))
        picture.load()
    except Image.DecompressionBombError as error:
        raise ImageDecodeError("E_TOO_LARGE", f"{image_format}: {error}") from error
    except _PILLOW_ERRORS as error:
        reason = str(error) or type(error).__name__
        code = "E_TRUNCATED" if "truncated" in reason else "E_CORRUPT"
        raise ImageDecodeError(code, f"{image_format}: {reason}; fetch it again") from error
    return picture


def _grey_to_rgb(picture: Image.Image, header: PngHeader, notes: list[str]) -> np.ndarray:
    """Grey of 1 to 16 bits. Pillow would clip 16 bits at 255."""
    levels = np.asarray(picture if header.bit_depth == 16 else picture.convert("L"))
    grey = (levels.astype(np.uint32) * 255 + 32767) // 65535 if header.bit_depth == 16 else levels
    rgb = np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if header.transparency is None:
        return rgb
    hidden = int.from_bytes(header.transparency[:2], "big")
    if header.bit_depth < 16:
        hidden = hidden * 255 // (2**header.bit_depth - 1)
    return _on_white(rgb, levels != hidden, notes)


def _on_white(rgb: np.ndarray, is_opaque: np.ndarray, notes: list[str]) -> np.ndarray:
    if not is_opaque.all():
        notes.append("N_ALPHA_ON_WHITE")
        rgb[~is_opaque] = 255
    return rgb


def _to_rgb(picture: Image.Image, notes: list[str]) -> np.ndarray:
    """RGB of any mode; what has alpha is laid on white, so that colours under it stay hidden."""
    if picture.mode in ("LA", "PA", "RGBA"):
        rgba = picture.convert("RGBA")
        alpha = rgba.getchannel("A")
        if alpha.getextrema() != (255, 255):
            notes.append("N_ALPHA_ON_WHITE")
            picture = Image.new("RGB", rgba.size, (255, 255, 255))
            picture.paste(rgba, mask=alpha)
    return _writable(picture.convert("RGB"))


def _writable(picture: Image.Image) -> np.ndarray:
    return np.array(picture)
