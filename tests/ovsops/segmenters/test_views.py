"""Images to views: windows that keep their shape and pixels, in whole patches."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
import torch

from ovsops.segmenters.views import Mode, ViewPlan, in_whole_patches, plan_views, resized_views, window_views


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are cut; the sides of tiny models."""

    views: Literal["slide", "squash"] = "slide"
    short_side: int = 32
    max_long_side: int = 96
    window: int = 32
    stride: int = 16


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def views_of(
    image: np.ndarray, *, patch: int = 16, mode: Mode = "corrected", settings: Settings | None = None
) -> tuple[ViewPlan, torch.Tensor]:
    settings = settings or Settings()
    plan = plan_views((image.shape[0], image.shape[1]), settings)
    return plan, window_views(image, plan, settings, patch=patch, mode=mode)


@pytest.mark.parametrize("mode", ["upstream", "corrected"])
def test_windows_keep_the_pixels_of_the_canvas(mode: Mode) -> None:
    image = noise(32, 48)
    plan, views = views_of(image, mode=mode)
    assert views.shape == (2, 3, 32, 32)
    for window, view in zip(plan.windows, views, strict=True):
        np.testing.assert_array_equal(view.permute(1, 2, 0).numpy(), image[:, window.x1 : window.x2])


@pytest.mark.parametrize(
    ("size", "upstream", "corrected"),
    [
        ((32, 96), (16, 64), (32, 80)),  # 25 rows after resizing: two patches are nearer than one
        ((96, 32), (64, 16), (80, 32)),
        ((1, 500), (16, 96), (16, 96)),  # a line has one row of patches
        ((500, 1), (96, 16), (96, 16)),
        ((1, 1), (16, 16), (32, 32)),
        ((33, 47), (16, 32), (32, 32)),
    ],
)
def test_the_whole_image_as_one_window_keeps_its_shape(
    size: tuple[int, int], upstream: tuple[int, int], corrected: tuple[int, int]
) -> None:
    whole = Settings(short_side=25, window=96, stride=96)
    for mode, expected in (("upstream", upstream), ("corrected", corrected)):
        plan, views = views_of(noise(*size), mode=mode, settings=whole)
        assert len(plan.windows) == 1
        assert views.shape == (1, 3, *expected)


@pytest.mark.parametrize("size", [(1, 200), (7, 90), (31, 33), (64, 20)])
@pytest.mark.parametrize("patch", [14, 16])
def test_all_windows_of_an_image_have_one_size_of_whole_patches(size: tuple[int, int], patch: int) -> None:
    plan, views = views_of(noise(*size), patch=patch)
    assert len(views) == len(plan.windows)
    height, width = plan.windows[0].size_hw
    for side, seen in ((height, views.shape[-2]), (width, views.shape[-1])):
        assert seen % patch == 0
        assert abs(seen - side) <= patch / 2 or seen == patch


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
    for window, side in ((60, 64), (3, 16)):
        squash = Settings(views="squash", window=window, stride=1)
        plan, views = views_of(noise(30, 90), settings=squash)
        assert len(plan.windows) == 1
        assert views.shape == (1, 3, side, side)


def test_no_views_stay_none() -> None:
    assert resized_views(torch.zeros(0, 3, 32, 48), (28, 42)).shape == (0, 3, 28, 42)
