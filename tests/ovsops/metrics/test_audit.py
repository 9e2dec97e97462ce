"""Intervals against published figures and simulated coverage; allocation and acceptance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.audit import (
    AcceptanceConfig,
    StratifiedShare,
    StratumCount,
    accept,
    allocate,
    clopper_pearson,
    design_weights,
    rows_to_decide,
    stratified_share,
)


@pytest.mark.parametrize(
    ("wrong", "total", "low", "high"),
    [
        (8, 400, 0.009, 0.039),
        (20, 400, 0.031, 0.076),
        (50, 1000, 0.037, 0.065),
        (0, 300, 0.0, 0.0122),
        (0, 100, 0.0, 0.0362),
    ],
)
def test_exact_intervals(wrong: int, total: int, low: float, high: float) -> None:
    """Of a binomial, two-sided 95 %: the rule of three's exact form for no error is 1 - 0.025 ** (1 / n)."""
    found = clopper_pearson(wrong, total)
    assert found == (pytest.approx(low, abs=6e-4), pytest.approx(high, abs=6e-4))


def test_exact_intervals_mirror_and_end() -> None:
    low, high = clopper_pearson(3, 20)
    assert clopper_pearson(17, 20) == (pytest.approx(1 - high), pytest.approx(1 - low))
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    with pytest.raises(ShapeError, match="lie between"):
        clopper_pearson(5, 4)


def test_one_stratum_is_clopper_pearson() -> None:
    share = stratified_share([StratumCount(size=1000, judged=100, right=93)]).interval()
    low, high = clopper_pearson(93, 100)
    assert share.value == pytest.approx(0.93)
    # The unbiased variance makes 99 effective rows of 100.
    assert (share.low, share.high) == (pytest.approx(low, abs=2e-3), pytest.approx(high, abs=2e-3))


def test_strata_weigh_by_their_size() -> None:
    share = stratified_share(
        [StratumCount(size=900, judged=50, right=50), StratumCount(size=100, judged=50, right=0)]
    )
    assert share.value == pytest.approx(0.9)
    assert share.covered == 1


def test_no_wrong_row_is_not_certainty() -> None:
    """The variance is 0; Kish's number of rows holds, and a heavy stratum with few rows makes it small."""
    even = stratified_share([StratumCount(size=500, judged=150, right=150)] * 2)
    assert even.interval().low == pytest.approx(clopper_pearson(300, 300)[0], abs=1e-4)
    heavy = stratified_share(
        [StratumCount(size=9700, judged=10, right=10), StratumCount(size=300, judged=290, right=290)]
    )
    assert heavy.interval().low < 0.75


def test_strata_that_nobody_judged_widen_the_bounds() -> None:
    share = stratified_share(
        [StratumCount(size=500, judged=200, right=200), StratumCount(size=500, judged=0, right=0)]
    )
    assert share.covered == 0.5
    assert share.at_least(0.05) < 0.5
    assert share.at_most(0.05) == 1
    with pytest.raises(ShapeError, match="no row was judged"):
        stratified_share([StratumCount(size=5, judged=0, right=0)])


@pytest.mark.parametrize(
    ("sizes", "rows", "truth"),
    [
        ([5000, 3000, 2000], [40, 40, 40], [0.95, 0.9, 0.7]),
        ([9000, 500, 500], [40, 40, 40], [0.98, 0.6, 0.5]),
        ([9000, 500, 500], [20, 40, 40], [0.99, 0.9, 0.99]),
        ([1000] * 20, [4] * 20, [0.97] * 20),
        ([8000, *[100] * 20], [60, *[2] * 20], [0.95, *[0.5] * 20]),
        ([5000, 5000], [50, 50], [0.999, 0.999]),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    sizes: list[int], rows: list[int], truth: list[float]
) -> None:
    rng = np.random.default_rng(0)
    weights = np.array(sizes) / sum(sizes)
    true = float((weights * truth).sum())
    hits = 0
    num = 600
    for right in rng.binomial(rows, truth, size=(num, len(sizes))).tolist():
        strata = [
            StratumCount(size=size, judged=judged, right=found)
            for size, judged, found in zip(sizes, rows, right, strict=True)
        ]
        interval = stratified_share(strata).interval()
        hits += interval.low <= true <= interval.high
    assert hits / num >= 0.94


@given(st.lists(st.integers(0, 400), min_size=1, max_size=12), st.integers(0, 600), st.floats(0, 1))
def test_allocation_spends_the_budget_and_never_more_than_there_is(
    sizes: list[int], budget: int, power: float
) -> None:
    least = 2
    if sum(min(size, least) for size in sizes) > min(budget, sum(sizes)):
        with pytest.raises(ConfigError, match="coarser strata"):
            allocate(sizes, budget, least=least, power=power)
        return
    rows = allocate(sizes, budget, least=least, power=power)
    assert rows.sum() == min(budget, sum(sizes))
    assert (rows <= sizes).all()
    assert (rows >= np.minimum(sizes, least)).all()


def test_allocation_by_power() -> None:
    assert allocate([900, 100], 100, least=0, power=1.0).tolist() == [90, 10]
    assert allocate([900, 100], 100, least=0, power=0.5).tolist() == [75, 25]
    assert allocate([900, 100], 100, least=0, power=0.0).tolist() == [50, 50]


def test_weights_count_the_run() -> None:
    weights = design_weights(np.array([900.0, 100, 7]), np.array([30.0, 20, 0]))
    assert weights.tolist() == [30, 5, 0]


def share_of(right: int, judged: int) -> StratifiedShare:
    return stratified_share([StratumCount(size=10**6, judged=judged, right=right)])


def test_acceptance() -> None:
    config = AcceptanceConfig(quality=0.95, alpha=0.05)
    assert accept(share_of(59, 59), config).decision == "accepted"  # 0.05 ** (1 / 59) > 0.95 (the rule of 59)
    assert accept(share_of(57, 57), config).decision == "undecided"
    assert accept(share_of(150, 200), config).decision == "rejected"
    undecided = accept(share_of(97, 100), config)
    assert undecided.decision == "undecided"
    needed = rows_to_decide(0.97, config)
    assert needed is not None
    assert undecided.rows_more == needed - 99  # of 100 rows, 99 are effective
    assert (
        clopper_pearson(0.97 * needed, needed, 0.9)[0]
        >= 0.95
        > clopper_pearson(0.97 * (needed - 1), needed - 1, 0.9)[0]
    )
    assert rows_to_decide(0.95, config) is None
    assert accept(share_of(95, 100), config).rows_more is None


def test_a_run_that_is_just_not_good_enough_is_rarely_accepted() -> None:
    rng = np.random.default_rng(1)
    config = AcceptanceConfig(quality=0.95, alpha=0.05)
    accepted = [
        accept(share_of(int(n), 300), config).decision == "accepted" for n in rng.binomial(300, 0.9499, 500)
    ]
    assert np.mean(accepted) <= 0.07


@pytest.mark.parametrize("fields", [{"quality": 1.0}, {"alpha": 0.5}])
def test_config(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="acceptance"):
        AcceptanceConfig(**fields)


def test_counts_are_checked() -> None:
    with pytest.raises(ShapeError, match="right <= judged <= size"):
        StratumCount(size=3, judged=4, right=1)
