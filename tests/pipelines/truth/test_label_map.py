"""Label maps: values come back as they were stored, in every encoding a PNG has; hostile files do not."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ovsops.errors import ImageDecodeError
from ovsops.images.decode_config import DecodeConfig
from pipelines.truth.label_map import decode_label_map


def png(labels: np.ndarray, *, mode: str = "L", **options: object) -> bytes:
    picture = Image.fromarray(labels)
    if mode == "P":
        picture = Image.frombytes("P", picture.size, labels.tobytes())
        picture.putpalette(bytes(255 - i // 3 for i in range(768)))
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def raw_png(rows: bytes, width: int, height: int, *, depth: int, color: int) -> bytes:
    """A PNG of packed rows, each with its filter byte."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(3 * 2**depth)) if color == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), palette, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


label_maps = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


@given(label_maps, st.sampled_from(["L", "P"]))
def test_grey_and_palette_come_back_exactly(labels: np.ndarray, mode: str) -> None:
    found = decode_label_map(png(labels, mode=mode))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels)


def test_a_palette_with_transparent_entries_keeps_its_indexes() -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(decode_label_map(png(labels, mode="P", transparency=0)), labels)


def test_sixteen_bits_come_back_exactly() -> None:
    labels = np.array([[0, 300], [65535, 7]], np.uint16)
    found = decode_label_map(png(labels))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("color", [0, 3])
def test_less_than_eight_bits_are_labels_not_brightness(color: int) -> None:
    """By hand: 2 bits 0,1,2,3 are the byte 00 01 10 11 = 0x1b; 4 bits 1,15 are 0x1f; 1 bit 1,0,1 is 0xa0."""
    assert decode_label_map(raw_png(b"\0\x1b", 4, 1, depth=2, color=color)).tolist() == [[0, 1, 2, 3]]
    assert decode_label_map(raw_png(b"\0\x1f", 2, 1, depth=4, color=color)).tolist() == [[1, 15]]
    assert decode_label_map(raw_png(b"\0\xa0", 3, 1, depth=1, color=color)).tolist() == [[1, 0, 1]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_no_labels(mode: str) -> None:
    file = io.BytesIO()
    Image.new(mode, (3, 3)).save(file, "PNG")
    with pytest.raises(ImageDecodeError, match="colours are no labels") as caught:
        decode_label_map(file.getvalue())
    assert caught.value.code == "E_UNSUPPORTED"


def test_hostile_files_are_refused_before_they_are_inflated() -> None:
    good = png(np.zeros((8, 8), np.uint8))
    rows = zlib.compress(bytes(100))
    cases = {
        "E_EMPTY": b"",
        "E_MAGIC": b"\xff\xd8\xff\xe0 a JPEG",
        "E_TRUNCATED": good[:-20],
        "E_CORRUPT": good[:45] + bytes([good[45] ^ 255]) + good[46:],
        "E_TOO_LARGE": raw_png(rows, 60_000, 60_000, depth=8, color=0),
    }
    for code, data in cases.items():
        with pytest.raises(ImageDecodeError) as caught:
            decode_label_map(data)
        assert caught.value.code == code
    with pytest.raises(ImageDecodeError, match="holds 100 of 4160 bytes"):
        decode_label_map(raw_png(bytes(100), 64, 64, depth=8, color=0))
    with pytest.raises(ImageDecodeError, match="over the cap"):
        decode_label_map(good, DecodeConfig(max_bytes=10))
