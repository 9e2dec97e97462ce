"""Distances by hand, and tests that neither cry wolf on small samples nor sleep through a shift."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.drift import (
    NO_PARTNER,
    DriftConfig,
    Membership,
    cell_bins,
    check_power,
    holm,
    jensen_shannon_divergence,
    memberships,
    newcombe_interval,
    permutation_p,
    population_stability_index,
    rate_shift_of,
    shift_of,
    wilson_interval,
)

COUNTS = arrays(np.int64, 6, elements=st.integers(0, 500))


def alone(first: int, second: int, num_permutations: int = 999) -> Membership:
    is_first = np.arange(first + second) < first
    partners = np.full(first + second, NO_PARTNER, np.int64)
    return Membership(is_first=is_first, partners=partners, num_permutations=num_permutations)


def test_psi_by_hand() -> None:
    # Shares with half a label more in each of two cells: 3.5/5, 1.5/5 and 1.5/5, 3.5/5.
    expected = 2 * (0.7 - 0.3) * math.log(0.7 / 0.3)
    assert population_stability_index(np.array([3, 1]), np.array([1, 3])) == pytest.approx(expected)


def test_js_by_hand() -> None:
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4), in bits.
    expected = (math.log2(4 / 3) + 0.5 * math.log2(2 / 3) + 0.5 * math.log2(2)) / 2
    assert jensen_shannon_divergence(np.array([4, 0]), np.array([3, 3])) == pytest.approx(expected)
    assert jensen_shannon_divergence(np.array([4, 0]), np.array([0, 9])) == pytest.approx(1.0)
    assert np.isnan(jensen_shannon_divergence(np.array([0, 0]), np.array([0, 9])))


@given(COUNTS, COUNTS)
def test_distances_are_symmetric_and_in_range(p: np.ndarray, q: np.ndarray) -> None:
    p, q = p + 1, q + 1
    js = jensen_shannon_divergence(p, q)
    assert -1e-12 <= js <= 1
    assert js == pytest.approx(jensen_shannon_divergence(q, p))
    psi = population_stability_index(p, q)
    assert psi >= 0
    assert psi == pytest.approx(population_stability_index(q, p))
    order = np.arange(6)[::-1]
    assert psi == pytest.approx(population_stability_index(p[order], q[order]))
    assert population_stability_index(p, p) == 0


@given(arrays(np.int64, 30, elements=st.integers(0, 40)), st.integers(2, 10))
def test_bins_hold_neighbours_and_are_numbered_through(counts: np.ndarray, num_bins: int) -> None:
    bins = cell_bins(counts, num_bins)
    assert (np.diff(bins) >= 0).all()
    assert np.diff(bins).max(initial=0) <= 1
    assert bins.max() < num_bins


def test_equal_counts_make_equal_bins() -> None:
    assert cell_bins(np.ones(8, np.int64), 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_permutations_keep_the_numbers_of_images_and_the_pairs() -> None:
    # Images 0 and 3 are one image, 1 and 4 another; 2 and 5 stand alone.
    partners = np.array([3, 4, NO_PARTNER, 0, 1, NO_PARTNER])
    is_first = np.array([True, True, True, False, False, False])
    drawn = np.concatenate(list(memberships(is_first, partners, num_permutations=400, seed=1)))
    assert (drawn[:, [0, 1]] != drawn[:, [3, 4]]).all()
    assert (drawn.sum(axis=1) == 3).all()
    assert 0.4 < drawn[:, 0].mean() < 0.6
    assert 0.4 < drawn[:, 2].mean() < 0.6


def test_pairs_that_do_not_name_each_other_are_refused() -> None:
    with pytest.raises(ShapeError, match="names the other one"):
        next(memberships(np.array([True, False]), np.array([1, NO_PARTNER]), num_permutations=1, seed=0))


def test_p_counts_the_observed_draw() -> None:
    assert permutation_p(np.array([3.0, 1, 2, 3, 4])) == 3 / 5
    assert permutation_p(np.array([9.0, 1, 2, 3, 4])) == 1 / 5


def clustered(rng: np.random.Generator, num: int, shares: list[float]) -> np.ndarray:
    """Images of one class each, ten labels an image: labels that go together."""
    return 10.0 * rng.multinomial(1, shares, size=num)


def test_small_samples_of_one_population_do_not_alarm() -> None:
    """PSI of two times 30 such images is mostly over 0.1, and a test of labels would be sure; this one is not."""
    rng = np.random.default_rng(0)
    shares = [0.4, 0.3, 0.2, 0.1]
    p_values, distances = [], []
    for _ in range(60):
        counts = clustered(rng, 60, shares)
        shift = shift_of(alone(30, 30, 199).sums(counts), first=counts[:30].sum(0), second=counts[30:].sum(0))
        p_values.append(shift.psi_p)
        distances.append(shift.psi)
    assert np.mean(np.array(distances) > 0.1) > 0.3
    assert np.mean(np.array(p_values) <= 0.05) <= 0.12


def test_a_shift_is_found() -> None:
    rng = np.random.default_rng(0)
    counts = np.concatenate(
        [clustered(rng, 80, [0.6, 0.2, 0.1, 0.1]), clustered(rng, 80, [0.1, 0.2, 0.1, 0.6])]
    )
    shift = shift_of(alone(80, 80).sums(counts), first=counts[:80].sum(0), second=counts[80:].sum(0))
    assert shift.psi > 1 > shift.psi_by_chance
    assert shift.psi_p == shift.js_p == 1 / 1000


def test_equal_images_in_pairs_never_alarm() -> None:
    rng = np.random.default_rng(0)
    counts = np.tile(clustered(rng, 20, [0.5, 0.5, 0, 0]), (2, 1))
    partners = np.concatenate([np.arange(20, 40), np.arange(20)])
    paired = Membership(is_first=np.arange(40) < 20, partners=partners, num_permutations=99)
    shift = shift_of(paired.sums(counts), first=counts[:20].sum(0), second=counts[20:].sum(0))
    assert (shift.psi, shift.psi_p) == (0, 1)


def test_rates() -> None:
    counts = np.array([[1.0, 0]] * 5 + [[0, 1]] * 95 + [[1, 0]] * 40 + [[0, 1]] * 60)
    shift = rate_shift_of(alone(100, 100).sums(counts), first=(5, 100), second=(40, 100))
    assert shift.difference == pytest.approx(0.35)
    assert shift.low < 0.35 < shift.high
    assert shift.low > 0.2
    assert shift.p == 1 / 1000


def test_newcombe_s_own_example() -> None:
    """56/70 - 48/80: 0.0524 to 0.3339 (Newcombe 1998, table II, method 10)."""
    low, high = newcombe_interval((48, 80), (56, 70))
    assert (low, high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_wilson_s_interval_of_nothing_wrong() -> None:
    low, high = wilson_interval(0, 10)
    assert low == 0
    assert high == pytest.approx(0.2775, abs=1e-4)  # z^2 / (n + z^2)
    with pytest.raises(ShapeError, match="at least one"):
        wilson_interval(0, 0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_too_few_permutations_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_permutations is 100: .* give 1900"):
        check_power(19, DriftConfig(num_permutations=100))
    check_power(19, DriftConfig())


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"psi": -1.0}, r"drift\.psi"),
        ({"alpha": 1.0}, r"drift\.alpha"),
        ({"min_images": 1}, r"drift\.min_images"),
        ({"num_bins": 1}, r"drift\.num_bins"),
    ],
)
def test_config(fields: dict[str, float], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        DriftConfig(**fields)  # type: ignore[arg-type]
