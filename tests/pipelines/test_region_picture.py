import io

import numpy as np
import pytest
from PIL import Image

from ovsops.errors import ConfigError, ShapeError
from pipelines.region_picture import PictureConfig, region_picture


def image() -> np.ndarray:
    pixels = np.full((100, 200, 3), 255, np.uint8)
    pixels[20:60, 50:130] = (0, 128, 0)
    return pixels


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_a_crop_shows_the_region_and_its_margin() -> None:
    alone = decoded(region_picture(image(), (50, 20, 130, 60), PictureConfig(crop_margin=0.0, min_side=1)))
    assert alone.shape == (40, 80, 3)
    assert abs(alone - (0, 128, 0)).max() < 12
    wide = decoded(region_picture(image(), (50, 20, 130, 60), PictureConfig(crop_margin=0.1, min_side=1)))
    assert wide.shape == (48, 96, 3)


def test_small_crops_grow_and_large_ones_shrink() -> None:
    assert decoded(region_picture(image(), (50, 20, 60, 30), PictureConfig(crop_margin=0.0))).shape == (
        64,
        64,
        3,
    )
    large = np.zeros((2000, 1000, 3), np.uint8)
    assert decoded(region_picture(large, (0, 0, 1000, 2000), PictureConfig(max_side=100))).shape == (
        100,
        50,
        3,
    )
    thin = decoded(region_picture(large, (0, 0, 1, 2000), PictureConfig(crop_margin=0.0)))
    assert thin.shape == (768, 1, 3)


def test_a_box_is_drawn_around_the_region() -> None:
    found = decoded(region_picture(image(), (50, 20, 130, 60), PictureConfig(view="box")))
    assert found.shape == (100, 200, 3)
    red = (abs(found - (255, 0, 0)).sum(axis=2) < 120).nonzero()
    assert (red[0].min(), red[0].max() + 1) == pytest.approx((18, 62), abs=1)
    assert (red[1].min(), red[1].max() + 1) == pytest.approx((48, 132), abs=1)
    assert abs(found[40, 90] - (0, 128, 0)).max() < 12


def test_equal_pixels_give_equal_bytes() -> None:
    assert region_picture(image(), (1.5, 2, 30, 40)) == region_picture(image(), (1.5, 2, 30, 40))


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 9, 1, 1), (200, 0, 300, 9), (float("nan"), 0, 9, 9)])
def test_a_box_that_shows_nothing_is_refused(box) -> None:
    with pytest.raises(ShapeError, match="shows nothing of the 200x100 image"):
        region_picture(image(), box)


@pytest.mark.parametrize(
    "fields", [{"crop_margin": -1.0}, {"min_side": 0}, {"max_side": 9}, {"jpeg_quality": 0}]
)
def test_nonsense_is_refused(fields) -> None:
    with pytest.raises(ConfigError, match="picture"):
        PictureConfig(**fields)
