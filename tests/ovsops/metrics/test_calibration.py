"""Calibration: ECE by hand, merging without rounding, temperatures that are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.calibration import ReliabilityCounts, fit_sigmoid

samples = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=20)


def counted(pairs: list[tuple[float, bool]]) -> ReliabilityCounts:
    scores = torch.tensor([score for score, _ in pairs], dtype=torch.float64)
    return ReliabilityCounts.zeros().update(scores, torch.tensor([c for _, c in pairs], dtype=torch.bool))


def test_ece_by_hand() -> None:
    """Two bins: scores .1 .3 with one of two right (gap .3), .9 .8 .7 with three of three right (gap .2)."""
    pairs = [(0.1, False), (0.3, True), (0.9, True), (0.8, True), (0.7, True)]
    table = counted(pairs).compute(num_bins=2)
    assert table.num_samples.tolist() == [2, 3]
    np.testing.assert_allclose(table.mean_score, [0.2, 0.8], atol=1e-9)
    np.testing.assert_allclose(table.share_correct, [0.5, 1.0])
    assert table.ece == pytest.approx(0.4 * 0.3 + 0.6 * 0.2)


def test_equal_mass_bins_hold_as_many_samples() -> None:
    scores = torch.rand(9000, generator=torch.Generator().manual_seed(0)) ** 4
    table = ReliabilityCounts.zeros().update(scores, scores > 0.5).compute(kind="equal_mass")
    assert table.num_samples.sum() == 9000
    assert abs(table.num_samples - 600).max() < 30 + 600  # one cell at the crowded end may be coarse
    assert np.median(abs(table.num_samples - 600)) < 10
    together = counted([(0.5, True)] * 9).compute(kind="equal_mass")
    assert sorted(together.num_samples.tolist())[-2:] == [0, 9]


def test_empty_bins_are_nan_and_do_not_count() -> None:
    table = counted([(1.0, True), (0.0, False)]).compute()
    assert table.num_samples.tolist() == [1, *[0] * 13, 1]
    assert np.isnan(table.mean_score[1:-1]).all()
    assert table.ece == 0
    assert math.isnan(ReliabilityCounts.zeros().compute().ece)


@given(samples, samples, samples)
def test_merging_is_exact_in_any_order(
    one: list[tuple[float, bool]], two: list[tuple[float, bool]], three: list[tuple[float, bool]]
) -> None:
    whole = counted(one + two + three).counts
    a, b, c = counted(one), counted(two), counted(three)
    np.testing.assert_array_equal(((c + a) + b).counts, whole)
    np.testing.assert_array_equal((c + (a + b)).counts, whole)


def test_scores_drawn_from_themselves_are_calibrated_and_constants_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(50_000, generator=generator)
    right = torch.rand(50_000, generator=generator) < scores
    assert ReliabilityCounts.zeros().update(scores, right).compute().ece < 0.015
    sure = torch.ones(50_000)
    assert ReliabilityCounts.zeros().update(sure, right).compute().ece == pytest.approx(0.5, abs=0.01)


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
        ReliabilityCounts.zeros().update(torch.sigmoid(scores), right).compute().ece
        for scores in (logits, logits / found.temperature + found.bias)
    )
    assert after < 0.01 < 0.1 < before


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"outside \[0, 1\]"):
        counted([(1.5, True)])
    with pytest.raises(ShapeError, match=r"outside \[0, 1\]"):
        counted([(math.nan, True)])
    with pytest.raises(ShapeError, match="a divisor of 15360"):
        ReliabilityCounts.zeros().compute(num_bins=7)
