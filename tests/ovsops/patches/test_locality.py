"""The Gaussian over the patch grid."""

import math

import pytest
import torch

from ovsops.patches.locality import gaussian_locality


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (5, 1), (3, 4)])
def test_every_entry_is_the_formula(grid: tuple[int, int]) -> None:
    places = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    expected = [
        [math.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * 2.5**2)) for v, u in places] for y, x in places
    ]
    torch.testing.assert_close(gaussian_locality(grid, std=2.5), torch.tensor(expected))


def test_a_wide_gaussian_is_flat_and_a_narrow_one_is_the_identity() -> None:
    torch.testing.assert_close(gaussian_locality((3, 3), std=1e4), torch.ones(9, 9))
    torch.testing.assert_close(gaussian_locality((3, 3), std=0.05), torch.eye(9))
