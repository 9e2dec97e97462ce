"""Images with known content, and files that are wrong in one known way."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

GPS_TEXT = b"SECRET-PLACE"


def photo_pixels(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth colours with some noise: compresses like a photo, no two corners alike."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    phases = generator.uniform(0, 6, (3, 2))
    planes = [
        128
        + 60 * np.sin(y / 7 + phases[c, 0])
        + 50 * np.cos(x / 9 + phases[c, 1])
        + 40 * (x / width - y / height)
        for c in range(3)
    ]
    noisy = np.stack(planes, axis=-1) + generator.normal(0, 4, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def corners_pixels(height: int = 48, width: int = 64) -> np.ndarray:
    """Red, green / blue, white quarters: after a turn one sees which one it was."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return pixels


def encode(picture: np.ndarray | Image.Image, image_format: str = "JPEG", **options: Any) -> bytes:
    """Encode with Pillow."""
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture)
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def jpeg(height: int = 48, width: int = 64, seed: int = 0, **options: Any) -> bytes:
    """A JPEG like a photo's, quality 85."""
    return encode(photo_pixels(height, width, seed), "JPEG", **({"quality": 85} | options))


def exif_block(
    orientation: int | None, *, kind: int = 3, byte_order: str = "<", extra: tuple[bytes, ...] = ()
) -> bytes:
    """A TIFF structure with one IFD. `extra` are whole 12-byte entries put before the orientation."""
    entries = list(extra)
    if orientation is not None:
        value = struct.pack(byte_order + {1: "B3x", 3: "H2x", 4: "I"}[kind], orientation)
        entries.append(struct.pack(byte_order + "HHI", 0x0112, kind, 1) + value)
    magic = b"II*\0" if byte_order == "<" else b"MM\0*"
    ifd = struct.pack(byte_order + "IH", 8, len(entries)) + b"".join(entries) + b"\0\0\0\0"
    return magic + ifd


def jpeg_segment(marker: int, content: bytes) -> bytes:
    """One segment, with its marker and length."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_exif(data: bytes, exif: bytes) -> bytes:
    """A JPEG with an EXIF block in front."""
    return data[:2] + jpeg_segment(0xE1, b"Exif\0\0" + exif) + data[2:]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk with a right checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int, height: int, depth: int, color: int, rows: bytes, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG written by hand; `rows` holds a filter byte (0) before each row, `before` chunks before IDAT."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows)) + after
    return b"\x89PNG\r\n\x1a\n" + header + before + body + png_chunk(b"IEND", b"")


def png_bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A 1-bit PNG of some kilobytes whose header claims gigabytes."""
    return png(width, height, 1, 0, b"\0" * 100_000)


def png_text_bomb(inflated_bytes: int = 1 << 28) -> bytes:
    """A 2x2 grey PNG (value 7) whose text and colour profile inflate to `inflated_bytes` each."""
    packer = zlib.compressobj(9)
    block = b"A" * (1 << 20)
    packed = b"".join(packer.compress(block) for _ in range(inflated_bytes >> 20)) + packer.flush()
    before = png_chunk(b"iCCP", b"icc\0\0" + packed) + png_chunk(b"zTXt", b"Comment\0\0" + packed)
    return png(2, 2, 8, 0, b"\0\7\7\0\7\7", before)


def animated(num_frames: int, image_format: str = "PNG", size: int = 8) -> bytes:
    """An APNG or animated WebP; frame k is grey of level 20 + k mod 200."""
    frames = [Image.new("RGB", (size, size), (20 + k % 200,) * 3) for k in range(num_frames)]
    options = {"lossless": True} if image_format == "WEBP" else {}
    return encode(
        frames[0], image_format, save_all=True, append_images=frames[1:], duration=10, loop=0, **options
    )


def apng_of_many(num_frames: int) -> bytes:
    """An APNG of 2x2, grey 9 in its first frame, 30 in the later ones, written by hand so that it is quick."""
    control = [
        png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", max(2 * k - 1, 0), 2, 2, 0, 0, 1, 100, 0, 0))
        for k in range(num_frames)
    ]
    packed = zlib.compress(b"\0\x1e\x1e\0\x1e\x1e")
    later = b"".join(
        control[k] + png_chunk(b"fdAT", struct.pack(">I", 2 * k) + packed) for k in range(1, num_frames)
    )
    before = png_chunk(b"acTL", struct.pack(">II", num_frames, 0)) + control[0]
    return png(2, 2, 8, 0, b"\0\x09\x09\0\x09\x09", before, later)


def jpeg_of_many_scans(num_scans: int, side: int = 4096) -> bytes:
    """A legal progressive JPEG of plain grey 128 whose coefficient 1 is sent `num_scans` - 1 times.

    Each of those scans takes some 40 bytes (runs of 16384 empty blocks) and a pass over the whole image.
    `side` is a multiple of 1024.
    """
    num_blocks = (side // 8) ** 2
    plain = encode(Image.new("L", (8, 8), 128), "JPEG", quality=90)
    tables, frame = plain[: plain.find(b"\xff\xc0")], struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0)
    standard_dc = plain[plain.find(b"\xff\xc4") : plain.find(b"\xff\xda")]
    run_of_16384 = jpeg_segment(0xC4, b"\x11\x01" + bytes(15) + b"\xe0")  # the one code "0": 2^14 and 14 bits
    first = jpeg_segment(0xDA, b"\x01\x01\x00\x00\x00\x00") + bytes(num_blocks // 4)  # "00": difference 0
    again = jpeg_segment(0xDA, b"\x01\x01\x01\x01\x01\x00") + bytes(-(-num_blocks // 16384 * 15 // 8))
    return b"".join(
        [
            tables,
            jpeg_segment(0xC2, frame),
            standard_dc,
            run_of_16384,
            first,
            again * (num_scans - 1),
            b"\xff\xd9",
        ]
    )


def jpeg_with_sampling(horizontal: int, vertical: int, width: int = 24, height: int = 16) -> bytes:
    """A colour JPEG of plain grey 128, with a luma sampling of `horizontal` x `vertical` and chroma 1x1."""
    plain = encode(Image.new("RGB", (width, height), (128, 128, 128)), "JPEG", quality=90, subsampling=0)
    frame, scan = plain.find(b"\xff\xc0"), plain.find(b"\xff\xda")
    head = bytearray(plain[: scan + 2 + int.from_bytes(plain[scan + 2 : scan + 4], "big")])
    head[frame + 11] = horizontal << 4 | vertical
    num_units = -(-width // (8 * horizontal)) * -(-height // (8 * vertical))
    luma, chroma = "00" + "1010", "00" + "00"  # difference 0, end of block: the standard Huffman tables
    bits = (luma * (horizontal * vertical) + chroma * 2) * num_units
    bits += "1" * (-len(bits) % 8)
    return bytes(head) + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)) + b"\xff\xd9"


def impostors() -> dict[str, bytes]:
    """Files that are no JPEG, PNG or WebP, whatever their name says."""
    picture = Image.fromarray(photo_pixels(8, 8))
    return {
        "tiff": encode(picture, "TIFF"),
        "gif": encode(picture, "GIF"),
        "bmp": encode(picture, "BMP"),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/canary) (w) file closefile\n%%EOF\n",
        "fits": b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800),
        "psd": b"8BPS\0\1" + bytes(40),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
    }
