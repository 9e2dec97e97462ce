"""Calibration: ECE by hand, merging without rounding, temperatures that are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.calibration import (
    PIXEL_UNIT,
    calibration_error,
    fit_sigmoid,
    mean_scores,
    reliability_table,
    right_shares,
)

samples = st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 9)), max_size=20)


def counted(pairs: list[tuple[float, bool]], *, num_bins: int = 15) -> np.ndarray:
    scores, is_right = (
        (np.array(column) for column in zip(*pairs, strict=True)) if pairs else (np.zeros(0), [])
    )
    return reliability_table(scores.astype(float), np.array(is_right, bool), num_bins=num_bins)


def test_ece_by_hand() -> None:
    """Two bins: scores .1 .3 with one of two right (gap .3), .9 .8 .7 with three of three right (gap .2)."""
    table = counted([(0.1, False), (0.3, True), (0.9, True), (0.8, True), (0.7, True)], num_bins=2)
    assert table[0].tolist() == [2, 3]
    np.testing.assert_allclose(mean_scores(table), [0.2, 0.8], atol=1e-9)
    np.testing.assert_allclose(right_shares(table), [0.5, 1.0])
    assert calibration_error(table) == pytest.approx(0.4 * 0.3 + 0.6 * 0.2)


def test_weights_by_hand() -> None:
    """One bin: a right pixel at score 1 and three wrong ones at 0.5: mean score 0.625, share 0.25."""
    scores, weights = np.array([1.0, 0.5]), np.array([1, 3])
    right = np.array([True, False])
    table = reliability_table(scores, right, num_bins=1, weights=weights, unit=PIXEL_UNIT)
    assert table[:, 0].tolist() == [4, int(2.5 * PIXEL_UNIT), 1]
    assert calibration_error(table, unit=PIXEL_UNIT) == pytest.approx(0.375)


def test_bins_are_half_open_and_the_last_one_is_closed() -> None:
    assert counted([(0.0, True), (0.5, True), (1.0, True)], num_bins=2)[0].tolist() == [1, 2]


def test_empty_bins_are_nan_and_do_not_count() -> None:
    table = counted([(1.0, True), (0.0, False)])
    assert table[0].tolist() == [1, *[0] * 13, 1]
    assert np.isnan(mean_scores(table)[1:-1]).all()
    assert calibration_error(table) == 0
    assert math.isnan(calibration_error(counted([])))


@given(samples, samples)
def test_tables_of_parts_add_up_exactly(one: list, two: list) -> None:
    def table(rows: list) -> np.ndarray:
        scores, right, weights = (np.array([row[i] for row in rows]) for i in range(3))
        return reliability_table(
            scores.astype(float),
            right.astype(bool),
            num_bins=15,
            weights=weights.astype(int),
            unit=PIXEL_UNIT,
        )

    np.testing.assert_array_equal(table(one) + table(two), table(two + one))


def test_a_batch_of_tables_gives_the_error_of_each() -> None:
    tables = np.stack([counted([(0.2, True), (0.9, False)]), counted([(0.4, True)])])
    np.testing.assert_allclose(calibration_error(tables), [calibration_error(table) for table in tables])


def test_scores_drawn_from_themselves_are_calibrated_and_constants_are_not() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random(50_000)
    right = generator.random(50_000) < scores
    assert calibration_error(reliability_table(scores, right, num_bins=15)) < 0.015
    sure = np.ones(50_000)
    assert calibration_error(reliability_table(sure, right, num_bins=15)) == pytest.approx(0.5, abs=0.01)


def test_sigmoid_finds_the_chance_that_made_the_truth() -> None:
    """Truth drawn with chance sigmoid(s / 0.1 - 2)."""
    similarity = 0.2 * torch.randn(20000, generator=torch.Generator().manual_seed(0))
    chance = (similarity / 0.1 - 2).sigmoid()
    truth = torch.rand(20000, generator=torch.Generator().manual_seed(3)) < chance
    fitted = fit_sigmoid(similarity, truth)
    assert fitted.temperature == pytest.approx(0.1, rel=0.05)
    assert fitted.bias == pytest.approx(-2.0, abs=0.1)


def test_sigmoid_of_parted_pairs_stays_finite_by_hand() -> None:
    """Two pairs: Platt's targets are 2/3 at similarity 1 and 1/3 at 0, so logits are log 2 and -log 2."""
    fitted = fit_sigmoid(torch.tensor([1.0, 0.0]), torch.tensor([True, False]))
    assert 1 / fitted.temperature == pytest.approx(2 * math.log(2), rel=1e-5)
    assert fitted.bias == pytest.approx(-math.log(2), rel=1e-5)


def test_sigmoid_refuses_what_means_nothing() -> None:
    with pytest.raises(ConfigError, match="both true and false"):
        fit_sigmoid(torch.tensor([0.1, 0.5, 0.2]), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ConfigError, match="does not mean a likelier pair"):
        fit_sigmoid(torch.tensor([1.0, 0.0]), torch.tensor([False, True]))


def test_platt_scaling_mends_the_ece() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(40_000, generator=generator)
    right = torch.rand(40_000, generator=generator) < torch.sigmoid(logits / 2.5 - 1)
    found = fit_sigmoid(logits, right)
    assert found.temperature == pytest.approx(2.5, rel=0.05)
    before, after = (
        calibration_error(
            reliability_table(torch.sigmoid(scores).double().numpy(), right.numpy(), num_bins=15)
        )
        for scores in (logits, logits / found.temperature + found.bias)
    )
    assert after < 0.01 < 0.1 < before


@pytest.mark.parametrize("score", [1.5, -0.1, math.nan])
def test_what_is_no_score_is_refused(score: float) -> None:
    with pytest.raises(ShapeError, match=r"outside \[0, 1\]"):
        counted([(score, True)])
