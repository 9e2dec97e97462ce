"""Pixels against the image processor of transformers, and extreme images."""

import numpy as np
import pytest
import torch
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil,
)

from ovsops.backbones.grounding_pixels import detector_size, padded_size, padded_views, resized_pixels
from ovsops.errors import ShapeError
from tests.tiny.images import photo_pixels

SIZES = [
    (48, 64),
    (64, 48),
    (97, 131),
    (60, 60),
    (40, 400),
    (400, 41),
    (30, 30),
    (80, 133),
    (80, 134),
    (2, 3),
]


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize(("short_side", "max_long_side"), [(80, 133), (60, 100)])
def test_pixels_are_those_of_transformers(
    size_hw: tuple[int, int], short_side: int, max_long_side: int
) -> None:
    image = photo_pixels(*size_hw)
    processor = GroundingDinoImageProcessorPil(
        size={"shortest_edge": short_side, "longest_edge": max_long_side}
    )
    expected = processor(image, return_tensors="pt")
    target = detector_size(size_hw, short_side=short_side, max_long_side=max_long_side)
    assert target == tuple(expected["pixel_values"].shape[-2:])
    views, is_image = padded_views(resized_pixels(image, target)[None], target)
    torch.testing.assert_close(views, expected["pixel_values"].float(), rtol=0, atol=2e-6)
    assert bool(is_image.all())
    assert bool(expected["pixel_mask"].bool().all())


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((480, 640), (800, 1066)),  # 1066.67, cut off
        ((640, 480), (1066, 800)),
        ((500, 1000), (666, 1333)),
        ((800, 1600), (666, 1333)),
        ((800, 1200), (800, 1200)),
        ((1, 1), (800, 800)),
        ((1, 20000), (1, 1333)),
        ((20000, 100), (1333, 7)),
    ],
)
def test_sizes_at_full_resolution(size_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    found = detector_size(size_hw, short_side=800, max_long_side=1333)
    assert found == expected


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ShapeError, match="0x5 px has no pixels"):
        detector_size((5, 0), short_side=80, max_long_side=133)


def test_only_very_long_images_are_padded() -> None:
    strides = (8, 16, 32, 64)
    for size_hw in [(800, 800), (800, 1333), (1333, 100), (64, 1333)]:
        assert padded_size(size_hw, strides=strides, min_places=900) == size_hw
    height, width = padded_size((7, 1333), strides=strides, min_places=900)
    assert (height, width) == (39, 1333)
    assert padded_size((1333, 7), strides=strides, min_places=900) == (1333, 39)


def test_padding_is_zero_and_masked() -> None:
    pixels = torch.full((2, 3, 4, 6), 200, dtype=torch.uint8)
    views, is_image = padded_views(pixels, (8, 9))
    assert views.shape == (2, 3, 8, 9)
    assert bool((views[..., 4:, :] == 0).all())
    assert bool((views[..., 6:] == 0).all())
    assert is_image.sum(dim=(1, 2)).tolist() == [24, 24]
    assert bool(is_image[:, :4, :6].all())


def test_a_view_of_an_array_that_is_not_contiguous() -> None:
    image = photo_pixels(20, 30)
    turned = resized_pixels(image[:, ::-1], (20, 30))
    assert np.array_equal(turned.permute(1, 2, 0).numpy(), image[:, ::-1])
