"""What the VFM sees of a view, and the published code's pixels."""

import pytest
import torch

from ovsops.backbones.pixels import CLIP_MEAN, CLIP_STD, normalized
from ovsops.segmenters.cass_views import slipped_pixels, vfm_pixels


def grey(value: float, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.full((1, 3, height, width), value)


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
