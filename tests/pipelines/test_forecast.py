"""Forecasts worked out by hand."""

import math

import pytest

from ovsops.errors import ConfigError
from pipelines.forecast import (
    Estimate,
    Needs,
    Prices,
    StageTime,
    bill,
    bottleneck,
    gpu_workers,
    one_after_another,
    per_image,
    run_seconds,
    throughput,
)


def stage(name: str, seconds: float, workers: float | None = 1.0, spread: float = 0.0) -> StageTime:
    ends = Estimate(value=seconds, low=seconds * (1 - spread), high=seconds * (1 + spread))
    return StageTime(name=name, seconds=ends, workers=workers)


def test_students_interval_over_equal_batches() -> None:
    # Means of an image 0.1, 0.2, 0.3: mean 0.2, s = 0.1, standard error 0.1 / sqrt(3); t(2 df, 97.5 %) = 4.302653.
    found = per_image([0.8, 1.6, 2.4], [8, 8, 8])
    assert found.value == pytest.approx(0.2)
    assert found.high == pytest.approx(0.2 + 4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert found.low == pytest.approx(0.1)  # 0.2 - 0.248 would be negative: the cheapest batch


def test_a_short_last_batch_weighs_by_its_images() -> None:
    # 3 s for 4 images, 1 s for 1: 4/5 a image. Residues 3 - 3.2 = -0.2 and 0.2; mean size 2.5; t(1 df) = 12.706205.
    found = per_image([3.0, 1.0], [4, 1])
    assert found.value == pytest.approx(0.8)
    assert found.high == pytest.approx(0.8 + 12.706205 * math.sqrt(0.08 / 2) / 2.5, abs=1e-5)


def test_equal_batches_have_no_width_and_one_batch_has_no_spread() -> None:
    assert per_image([1.0, 1.0, 1.0], [2, 2, 2]) == Estimate(value=0.5, low=0.5, high=0.5)
    assert per_image([3.0], [4]) == Estimate.exactly(0.75)


@pytest.mark.parametrize(("amounts", "sizes"), [([], []), ([1.0], [0]), ([1.0, 2.0], [1])])
def test_groups_must_hold_images(amounts: list[float], sizes: list[int]) -> None:
    with pytest.raises(ConfigError, match="none empty"):
        per_image(amounts, sizes)


def test_the_slowest_stage_for_its_workers_is_the_bottleneck() -> None:
    # 4 actors of 0.2 s: 20 images/s. 1 encoder of 0.02 s: 50. 2 decoders' pools of 0.08 s: 25.
    stages = [stage("decode", 0.08, 2), stage("models", 0.2, 4), stage("encode", 0.02, 1)]
    assert bottleneck(stages).name == "models"
    assert throughput(stages).value == pytest.approx(20)
    more = [stage("decode", 0.08, 2), stage("models", 0.2, 8), stage("encode", 0.02, 1)]
    assert bottleneck(more).name == "decode"  # 25 < 40: more actors of the models would not help
    assert throughput(more).value == pytest.approx(25)


def test_a_stage_of_unknown_workers_limits_nothing() -> None:
    stages = [stage("read", 9.0, None), stage("models", 0.5, 2)]
    assert bottleneck(stages).name == "models"
    assert throughput(stages) == Estimate.exactly(4.0)


def test_ends_of_the_throughput_are_the_slowest_stages_at_each_end() -> None:
    # models 10 [8.33, 12.5]; encode 11 exactly: fast models are held up by encode.
    stages = [stage("models", 0.1, 1, spread=0.2), stage("encode", 1 / 11, 1)]
    found = throughput(stages)
    assert found.value == pytest.approx(10)
    assert found.low == pytest.approx(1 / 0.12)
    assert found.high == pytest.approx(11)


def test_one_process_adds_its_stages() -> None:
    found = one_after_another([stage("read", 0.01), stage("models", 0.03, spread=0.5), stage("write", 0.01)])
    assert found.value == pytest.approx(20)
    assert (found.low, found.high) == (pytest.approx(1 / 0.065), pytest.approx(1 / 0.035))


def test_a_run_is_its_start_and_its_images() -> None:
    rate = Estimate(value=10, low=8, high=20)
    start = Estimate(value=30, low=20, high=60)
    assert run_seconds(800, rate, start) == Estimate(value=110, low=60, high=160)
    assert run_seconds(0, rate, start) == Estimate.exactly(0.0)


@pytest.mark.parametrize(
    ("actors", "num_gpus", "workers"), [(4, 0.0, 4), (4, 1.0, 4), (4, 0.5, 2), (2, 2.0, 2)]
)
def test_actors_that_share_a_gpu_are_counted_by_gpus(actors: int, num_gpus: float, workers: float) -> None:
    assert gpu_workers(actors, num_gpus) == workers


def test_a_bill_by_hand() -> None:
    needs = Needs(
        gpu_hours=Estimate(value=10, low=8, high=12),
        cpu_hours=Estimate.exactly(40),
        stored_bytes=Estimate(value=50e9, low=40e9, high=60e9),
        review_minutes=Estimate(value=100, low=50, high=200),
    )
    prices = Prices(gpu_hour=2.0, cpu_hour=0.05, gb_month=0.02, review_minute=0.5)
    money = bill(needs, prices)
    assert money["gpu"] == Estimate(value=20, low=16, high=24)
    assert money["cpu"] == Estimate.exactly(2)
    assert money["review"] == Estimate(value=50, low=25, high=100)
    assert money["once"] == Estimate(value=72, low=43, high=126)
    assert money["storage_month"].value == pytest.approx(1.0)
    assert money["storage_month"].high == pytest.approx(1.2)


def test_what_has_no_price_is_not_on_the_bill() -> None:
    one = Estimate.exactly(1.0)
    needs = Needs(gpu_hours=one, cpu_hours=one, stored_bytes=one)
    assert bill(needs, Prices()) == {}
    assert bill(needs, Prices(review_minute=1.0)) == {}  # nobody said how long a look takes
    assert set(bill(needs, Prices(gpu_hour=0.0))) == {"gpu", "once"}


def test_a_price_below_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--price-gpu-hour is -1"):
        Prices(gpu_hour=-1.0)


def test_infinity_is_null_in_json() -> None:
    assert Estimate.exactly(0.0).inverse().to_plain() == {"value": None, "low": None, "high": None}
