"""IoU and accuracy: worked by hand, merged in any way, and models that know nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ovsops.errors import ShapeError
from ovsops.metrics.segmentation import (
    IGNORE,
    ConfusionCounts,
    accuracy,
    background_table,
    iou,
    mean_iou,
    pixel_accuracy,
)

TRUTH = np.array([[0, 0, 1, 1], [0, 2, 2, IGNORE]], np.uint8)
PREDICTED = np.array([[0, 1, 1, 1], [0, 2, 0, 2]], np.uint8)

label_maps = st.lists(
    st.tuples(
        hnp.arrays(np.uint8, (3, 4), elements=st.sampled_from([0, 1, 2, 3, IGNORE])),
        hnp.arrays(np.uint8, (3, 4), elements=st.integers(0, 3)),
    ),
    min_size=1,
    max_size=5,
)


def counted(*pairs: tuple[np.ndarray, np.ndarray], num_ids: int = 4) -> ConfusionCounts:
    counts = ConfusionCounts.zeros(num_ids)
    for truth, predicted in pairs:
        counts = counts.update(truth, predicted)
    return counts


def test_by_hand() -> None:
    """Intersections 2, 2, 1 of unions 4, 3, 2; id 3 occurs nowhere; the prediction at the ignored pixel is free."""
    figures = counted((TRUTH, PREDICTED)).compute()
    np.testing.assert_allclose(figures.iou, [2 / 4, 2 / 3, 1 / 2, np.nan])
    np.testing.assert_allclose(figures.accuracy, [2 / 3, 1, 1 / 2, np.nan])
    assert figures.mean_iou == pytest.approx((1 / 2 + 2 / 3 + 1 / 2) / 3)
    assert figures.mean_accuracy == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert figures.pixel_accuracy == pytest.approx(5 / 7)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    predicted = np.where(TRUTH == 2, 3, TRUTH)
    figures = counted((TRUTH, predicted)).compute()
    np.testing.assert_allclose(figures.iou, [1, 1, 0, 0])
    assert figures.mean_iou == 0.5
    assert np.isnan(figures.accuracy[3])


def test_without_background_only_the_classes_count() -> None:
    """A data set without background: id 0 is never true, and predicting it is an error of the class it hides."""
    truth = np.array([[1, 1, 2, 2]])
    predicted = np.array([[1, 0, 2, 2]])
    figures = counted((truth, predicted), num_ids=3).compute(ids=[1, 2])
    assert figures.mean_iou == pytest.approx((1 / 2 + 1) / 2)
    assert figures.pixel_accuracy == pytest.approx(3 / 4)


@given(label_maps, st.integers(0, 5))
def test_any_sharding_gives_the_same_counts(pairs: list[tuple[np.ndarray, np.ndarray]], cut: int) -> None:
    whole = counted(*pairs)
    left, right = counted(*pairs[:cut]), counted(*pairs[cut:])
    np.testing.assert_array_equal((left + right).counts, whole.counts)
    np.testing.assert_array_equal((right + left).counts, whole.counts)
    third = counted((TRUTH, PREDICTED))
    np.testing.assert_array_equal(((left + right) + third).counts, (left + (right + third)).counts)


@given(label_maps)
def test_figures_lie_in_range_and_perfect_is_one(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    figures = counted(*pairs).compute()
    assert np.nan_to_num(figures.iou).min() >= 0
    assert np.nan_to_num(figures.iou).max() <= 1
    assert (np.nan_to_num(figures.iou) <= np.nan_to_num(figures.accuracy) + 1e-12).all()
    perfect = counted(*((truth, np.where(truth == IGNORE, 0, truth)) for truth, _ in pairs)).compute()
    if np.isfinite(perfect.pixel_accuracy):
        assert (perfect.mean_iou, perfect.mean_accuracy, perfect.pixel_accuracy) == (1, 1, 1)


def test_a_constant_map_scores_its_frequency_over_the_classes() -> None:
    truth = np.repeat([0, 1, 2, 3], [10, 20, 30, 40]).reshape(10, 10)
    for i, frequency in enumerate([0.1, 0.2, 0.3, 0.4]):
        figures = counted((truth, np.full_like(truth, i))).compute()
        assert figures.iou[i] == pytest.approx(frequency)
        assert figures.mean_iou == pytest.approx(frequency / 4)
        assert figures.mean_accuracy == pytest.approx(1 / 4)


def test_random_labels_score_at_chance() -> None:
    """Independent uniform labels over C ids: (1/C^2) / (2/C - 1/C^2) = 1 / (2C - 1)."""
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 4, (2, 500, 500))
    figures = counted((truth, predicted)).compute()
    assert figures.mean_iou == pytest.approx(1 / 7, abs=0.002)
    assert figures.pixel_accuracy == pytest.approx(1 / 4, abs=0.003)


@given(label_maps)
def test_remapping_labels_or_counts_is_the_same(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    table = background_table(4, kept=[3, 1])
    assert table.tolist() == [0, 2, 0, 1]
    lookup = np.full(256, IGNORE)
    lookup[:4] = table
    before = counted(*((lookup[t], lookup[p]) for t, p in pairs), num_ids=3)
    np.testing.assert_array_equal(before.counts, counted(*pairs).remapped(table).counts)


def test_figures_of_a_batch_of_states_are_those_of_each() -> None:
    generator = np.random.default_rng(1)
    states = [counted(tuple(generator.integers(0, 4, (2, 5, 5)))) for _ in range(6)]
    areas = np.stack([state.areas for state in states]).reshape(2, 3, 3, 4)
    for figure in (iou, accuracy, mean_iou, pixel_accuracy):
        alone = np.stack([figure(state.areas) for state in states])
        np.testing.assert_allclose(figure(areas).reshape(alone.shape), alone)


def test_nothing_counted_is_not_zero() -> None:
    figures = ConfusionCounts.zeros(2).compute()
    assert np.isnan([figures.mean_iou, figures.pixel_accuracy, figures.mean_accuracy]).all()


def test_errors_say_which_labels() -> None:
    with pytest.raises(ShapeError, match=r"prediction has labels \[7\], but ids are 0..3"):
        counted((TRUTH, np.full_like(TRUTH, 7)))
    with pytest.raises(ShapeError, match=r"truth has labels \[2\], but ids are 0..1"):
        counted((TRUTH, PREDICTED), num_ids=2)
    with pytest.raises(ShapeError, match="count different ids"):
        ConfusionCounts.zeros(2) + ConfusionCounts.zeros(3)
    with pytest.raises(ShapeError, match="kept ids"):
        background_table(3, kept=[1, 1])
