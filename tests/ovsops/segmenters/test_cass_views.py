"""What the towers see: windows in whole patches, and the published code's pixels for the VFM."""

import numpy as np
import pytest
import torch

from ovsops.backbones.pixels import CLIP_MEAN, CLIP_STD, normalized
from ovsops.geometry import Window
from ovsops.segmenters.cass_views import cut_windows, in_whole_patches, slipped_pixels, squashed, vfm_pixels
from ovsops.segmenters.views import ViewPlan


def grey(value: float, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.full((1, 3, height, width), value)


def test_windows_keep_the_pixels_of_the_canvas() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    plan = ViewPlan(
        image_hw=(32, 48), canvas_hw=(32, 48), windows=(Window(0, 0, 32, 32), Window(0, 16, 32, 48))
    )
    views = cut_windows(image, plan, patch=16, mode="corrected")
    assert views.shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(views[1].permute(1, 2, 0).numpy(), image[:, 16:])


@pytest.mark.parametrize(
    ("size", "upstream", "corrected"),
    [((32, 48), (32, 48), (32, 48)), ((41, 39), (32, 32), (48, 32)), ((5, 20), (16, 16), (16, 16))],
)
def test_sides_become_whole_patches(
    size: tuple[int, int], upstream: tuple[int, int], corrected: tuple[int, int]
) -> None:
    ramp = torch.arange(size[1], dtype=torch.float32).expand(1, 3, *size)
    assert in_whole_patches(ramp, patch=16, mode="upstream").shape[-2:] == upstream
    assert in_whole_patches(ramp, patch=16, mode="corrected").shape[-2:] == corrected


def test_upstream_cuts_where_corrected_shrinks() -> None:
    ramp = torch.arange(39.0).expand(1, 3, 32, 39)
    assert in_whole_patches(ramp, patch=16, mode="upstream")[0, 0, 0, -1] == 31
    assert in_whole_patches(ramp, patch=16, mode="corrected")[0, 0, 0, -1] > 37


def test_a_squashed_image_is_a_square_of_whole_patches() -> None:
    image = np.zeros((30, 90, 3), np.uint8)
    assert squashed(image, side=60, patch=16).shape == (1, 3, 64, 64)
    assert squashed(image, side=3, patch=16).shape == (1, 3, 16, 16)


def test_the_slip_lifts_black_and_lowers_white() -> None:
    black, white = (
        slipped_pixels(normalized(grey(v), mean=CLIP_MEAN, std=CLIP_STD))[0, :, 0, 0] for v in (0.0, 255.0)
    )
    assert black.tolist() == [19, 16, 7]
    assert white.tolist() == [236, 234, 243]


def test_the_corrected_vfm_sees_the_pixels_themselves() -> None:
    views = torch.rand(2, 3, 32, 48) * 255
    torch.testing.assert_close(vfm_pixels(views, patch=8, side=None, mode="corrected"), views)


@pytest.mark.parametrize(
    ("side", "patch", "upstream", "corrected"),
    [
        (None, 8, (32, 32), (32, 48)),
        (None, 14, (28, 28), (28, 42)),
        (56, 14, (56, 56), (56, 84)),
        (3, 14, (14, 14), (14, 14)),
    ],
)
def test_sizes_of_what_the_vfm_sees(
    side: int | None, patch: int, upstream: tuple[int, int], corrected: tuple[int, int]
) -> None:
    views = torch.rand(2, 3, 32, 48) * 255
    squares = vfm_pixels(views, patch=patch, side=side, mode="upstream")
    assert squares.shape == (2, 3, *upstream)
    torch.testing.assert_close(squares, squares.round())
    assert vfm_pixels(views, patch=patch, side=side, mode="corrected").shape == (2, 3, *corrected)


def test_no_views_stay_none() -> None:
    assert vfm_pixels(torch.zeros(0, 3, 32, 48), patch=14, side=None, mode="corrected").shape == (
        0,
        3,
        28,
        42,
    )
