import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ovsops.images.decode import decode_image
from ovsops.miniature.png import image_to_png


def test_bytes_by_hand() -> None:
    """One red pixel: IDAT is 78 01, one last stored block of 4 bytes, and Adler-32 of 00 ff 00 00."""
    data = image_to_png(np.array([[[255, 0, 0]]], np.uint8))
    assert data[:33].hex() == "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    assert data[33:56].hex() == "0000000f49444154" + "7801" + "010400fbff" + "00ff0000" + "03010100"
    assert data[-12:].hex() == "0000000049454e44ae426082"


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_readers_get_the_pixels_back(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = image_to_png(image)
    assert (np.asarray(Image.open(io.BytesIO(data))) == image).all()
    assert (decode_image(data).pixels == image).all()


@pytest.mark.parametrize("size_hw", [(128, 128), (300, 257), (5, 65_535 // 15)])
def test_more_than_one_block(size_hw: tuple[int, int]) -> None:
    image = np.arange(size_hw[0] * size_hw[1] * 3, dtype=np.int64).astype(np.uint8).reshape(*size_hw, 3)
    assert (np.asarray(Image.open(io.BytesIO(image_to_png(image)))) == image).all()
