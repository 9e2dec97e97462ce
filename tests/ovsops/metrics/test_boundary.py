"""Boundary metrics against slow definitions, by hand, and maps that know nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.boundary import BandCounts, BoundaryConfig, BoundaryCounts, boundary_f, mean_boundary_f
from ovsops.metrics.segmentation import IGNORE

NUM_IDS = 3
truths = hnp.arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 0, 1, 2, IGNORE]))
predictions = hnp.arrays(np.uint8, (7, 9), elements=st.integers(0, NUM_IDS - 1))


def slow_boundary(truth: np.ndarray, labels: np.ndarray, i: int) -> list[tuple[int, int]]:
    """Pixels of class i next to another class, neither of them ignored."""
    found = []
    for y, x in np.ndindex(labels.shape):
        if truth[y, x] == IGNORE or labels[y, x] != i:
            continue
        neighbours = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [(v, u) for v, u in neighbours if 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1]]
        if any(truth[p] != IGNORE and labels[p] != i for p in inside):
            found.append((y, x))
    return found


def slow_counts(truth: np.ndarray, predicted: np.ndarray, tolerance: float) -> np.ndarray:
    counts = np.zeros((4, NUM_IDS), np.int64)
    for i in range(NUM_IDS):
        one, two = slow_boundary(truth, predicted, i), slow_boundary(truth, truth, i)

        def near(points: list[tuple[int, int]], targets: list[tuple[int, int]]) -> int:
            return sum(any(np.hypot(y - v, x - u) <= tolerance for v, u in targets) for y, x in points)

        counts[:, i] = near(one, two), len(one), near(two, one), len(two)
    return counts


def slow_band(labels: np.ndarray, i: int, distance: int) -> np.ndarray:
    """Pixels of class i whose square holds something else."""
    padded = np.pad(labels, distance, constant_values=-9)
    band = np.zeros(labels.shape, bool)
    for y, x in np.ndindex(labels.shape):
        square = padded[y : y + 2 * distance + 1, x : x + 2 * distance + 1]
        band[y, x] = labels[y, x] == i and (square != i).any()
    return band


@given(truths, predictions, st.sampled_from([0.09, 0.13, 0.3]))
def test_boundary_counts_equal_the_slow_definition(
    truth: np.ndarray, predicted: np.ndarray, share: float
) -> None:
    config = BoundaryConfig(tolerance=share)
    counts = BoundaryCounts.zeros(NUM_IDS).update(truth, predicted, config=config).counts
    np.testing.assert_array_equal(counts, slow_counts(truth, predicted, share * np.hypot(7, 9)))


@given(truths, predictions, st.sampled_from([1, 2]))
def test_band_areas_equal_the_slow_definition(
    truth: np.ndarray, predicted: np.ndarray, distance: int
) -> None:
    config = BoundaryConfig(band=distance / float(np.hypot(7, 9)))
    areas = BandCounts.zeros(NUM_IDS).update(truth, predicted, config=config).areas
    known = truth != IGNORE
    t, p = (np.where(known, labels.astype(int), -1) for labels in (truth, predicted))
    for i in range(NUM_IDS):
        of_truth, of_predicted = slow_band(t, i, distance), slow_band(p, i, distance)
        expected = [(of_truth & of_predicted).sum(), of_truth.sum(), of_predicted.sum()]
        assert areas[:, i].tolist() == expected


def square(left: int, *, side: int = 8, size: int = 24) -> np.ndarray:
    labels = np.zeros((size, size), np.uint8)
    labels[8 : 8 + side, left : left + side] = 1
    return labels


def test_a_shifted_square_by_hand() -> None:
    """An 8x8 square has 28 boundary pixels; shifted by 1, 14 of the two long sides' pixels stay on the outline.

    Tolerance 0.5 px: only equal pixels count. Columns 9..15 of two rows are shared: 14 of 28.
    Tolerance 1 px: every pixel has one next to it.
    """
    strict = BoundaryConfig(tolerance=0.5 / float(np.hypot(24, 24)))
    loose = BoundaryConfig(tolerance=1.01 / float(np.hypot(24, 24)))
    truth, shifted = square(8), square(9)
    counts = BoundaryCounts.zeros(2).update(truth, shifted, config=strict)
    assert counts.counts[:, 1].tolist() == [14, 28, 14, 28]
    assert counts.compute()[1] == pytest.approx(0.5)
    assert BoundaryCounts.zeros(2).update(truth, shifted, config=loose).compute()[1] == 1


def test_boundary_iou_of_a_shifted_square_by_hand() -> None:
    """Bands of width 1 are the outlines: 28 pixels each, 14 shared, so 14 / 42; the IoU would be 56 / 72."""
    config = BoundaryConfig(band=1 / float(np.hypot(24, 24)))
    counts = BandCounts.zeros(2).update(square(8), square(9), config=config)
    assert counts.areas[:, 1].tolist() == [14, 28, 28]
    assert counts.compute()[1] == pytest.approx(14 / 42)


@given(st.lists(st.tuples(truths, predictions), min_size=1, max_size=4), st.integers(0, 4))
def test_any_sharding_gives_the_same_counts(pairs: list[tuple[np.ndarray, np.ndarray]], cut: int) -> None:
    def lines(some: list[tuple[np.ndarray, np.ndarray]]) -> BoundaryCounts:
        counts = BoundaryCounts.zeros(NUM_IDS)
        for pair in some:
            counts = counts.update(*pair)
        return counts

    def bands(some: list[tuple[np.ndarray, np.ndarray]]) -> BandCounts:
        counts = BandCounts.zeros(NUM_IDS)
        for pair in some:
            counts = counts.update(*pair)
        return counts

    np.testing.assert_array_equal((lines(pairs[:cut]) + lines(pairs[cut:])).counts, lines(pairs).counts)
    np.testing.assert_array_equal((bands(pairs[cut:]) + bands(pairs[:cut])).areas, bands(pairs).areas)


@given(truths)
def test_perfect_maps_score_one(truth: np.ndarray) -> None:
    predicted = np.where(truth == IGNORE, 1, truth)
    for state in (BoundaryCounts.zeros(NUM_IDS), BandCounts.zeros(NUM_IDS)):
        figures = state.update(truth, predicted).compute()
        assert set(figures[~np.isnan(figures)].tolist()) <= {1.0}


def test_a_constant_map_has_no_outline_to_meet() -> None:
    counts = BoundaryCounts.zeros(2).update(square(8), np.zeros((24, 24), np.uint8))
    np.testing.assert_array_equal(counts.compute(), [0, 0])
    assert mean_boundary_f(counts.counts) == 0
    nothing = BoundaryCounts.zeros(2).update(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8))
    assert np.isnan(nothing.compute()).all()


def test_random_labels_meet_few_outlines_strictly() -> None:
    """Salt and pepper covers the image: recall is high, precision low, boundary IoU near chance."""
    noise = np.random.default_rng(0).integers(0, 2, (96, 96)).astype(np.uint8)
    truth = square(30, side=40, size=96)
    counts = BoundaryCounts.zeros(2).update(truth, noise).counts
    assert counts[2, 1] / counts[3, 1] > 0.8
    assert boundary_f(counts)[1] < 0.2
    assert BandCounts.zeros(2).update(truth, noise).compute()[1] < 0.1


def test_ignored_pixels_make_no_outline_and_hide_predictions() -> None:
    truth = square(8)
    truth[:, 12:] = IGNORE
    predicted = truth.copy()
    predicted[truth == IGNORE] = 0
    counts = BoundaryCounts.zeros(2).update(truth, predicted)
    # Left half of the outline: 8 of the left side and 3 more above and below; the cut itself is none.
    assert counts.counts[:, 1].tolist() == [14, 14, 14, 14]


def test_errors() -> None:
    with pytest.raises(ConfigError, match=r"boundary.tolerance = 1.5"):
        BoundaryConfig(tolerance=1.5)
    with pytest.raises(ShapeError, match="prediction has labels"):
        BandCounts.zeros(2).update(square(8), np.full((24, 24), 2, np.uint8))
    with pytest.raises(ShapeError, match="count different ids"):
        BoundaryCounts.zeros(2) + BoundaryCounts.zeros(3)
