"""The ceiling of a patch grid: by hand, and that finer grids reach more."""

import numpy as np
import pytest

from ovsops.metrics.ceiling import area_shares, through_patches
from ovsops.metrics.segmentation import IGNORE, ConfusionCounts


def mean_iou(truth: np.ndarray, predicted: np.ndarray) -> float:
    return ConfusionCounts.zeros(3).update(truth, predicted).compute().mean_iou


def disk(size: int = 48) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return ((y - 22) ** 2 + (x - 25) ** 2 < 13**2).astype(np.uint8)


def test_a_hard_majority_by_hand() -> None:
    truth = np.array([[0, 0, 2, 2], [0, 2, 2, 0]], np.uint8)
    expected = [[0, 0, 2, 2], [0, 0, 2, 2]]
    assert through_patches(truth, (1, 2), kind="hard").tolist() == expected
    np.testing.assert_allclose(
        area_shares(truth, np.array([0, 2]), (1, 2)).numpy(), [[[0.75, 0.25]], [[0.25, 0.75]]]
    )


def test_soft_shares_move_the_edge_by_hand() -> None:
    """Shares of id 1 are 0 and 3/4 in two patches of 8 pixels, so it wins where its weight is above 2/3.

    With patch centres at 3.5 and 11.5 the weight of the second patch at pixel i is (i - 3.5) / 8: 0.56 at 8 and
    0.69 at 9, so the edge comes to 9. The true one is at 10, that of the hard labels at 8.
    """
    truth = np.repeat([[0, 1]], [10, 6], axis=1).astype(np.uint8)
    assert through_patches(truth, (1, 2), kind="soft").tolist() == [[0] * 9 + [1] * 7]
    assert through_patches(truth, (1, 2), kind="hard").tolist() == [[0] * 8 + [1] * 8]


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_finer_grids_reach_more_and_pixels_reach_all(kind: str) -> None:
    truth = disk()
    reached = [
        mean_iou(truth, through_patches(truth, (n, n), kind="hard" if kind == "hard" else "soft"))
        for n in (6, 12, 24, 48)
    ]
    assert reached == sorted(reached)
    assert reached[0] < 0.95
    assert reached[-1] == 1


def test_soft_reaches_more_than_hard_on_a_curved_outline() -> None:
    truth = disk()
    soft, hard = (mean_iou(truth, through_patches(truth, (6, 6), kind=kind)) for kind in ("soft", "hard"))
    assert soft > hard


def test_grids_that_do_not_divide_and_ignored_pixels() -> None:
    truth = disk()[:47, :45].copy()
    truth[:10] = IGNORE
    labels = through_patches(truth, (7, 6), kind="soft")
    assert labels.shape == truth.shape
    assert set(np.unique(labels)) == {0, 1}
    nothing = np.full((4, 4), IGNORE, np.uint8)
    assert (through_patches(nothing, (2, 2), kind="hard") == IGNORE).all()
