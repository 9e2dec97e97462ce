"""Stages, workers and hours of a recipe, worked out by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.label_recipe import LabelRecipe
from jobs.plan_forecast import (
    RAY_START_S,
    Forecast,
    SampleTimes,
    StartUp,
    Work,
    held,
    inline_stages,
    ray_stages,
)
from jobs.plan_text import number, ranged, stage_rows
from jobs.recipe import recipe_from_plain
from pipelines.forecast import Estimate, Needs, bottleneck, one_after_another, throughput
from tests.jobs.conftest import plain_recipe


def seconds(**values: float) -> SampleTimes:
    """Times without intervals; cpu so small that cores never limit, unless it is given."""
    base = {"read": 0.001, "decode": 0.02, "models": 0.1, "annotate": 0.11, "masks": 0.01, "write": 0.005}
    base |= {"seal": 0.004, "cpu": 1e-6} | values
    return SampleTimes(**{name: Estimate.exactly(value) for name, value in base.items()})


def recipe(**changes: Any) -> LabelRecipe:
    found = recipe_from_plain(plain_recipe(Path("/nowhere"), Path("/nowhere"), **changes), where="test")
    assert isinstance(found, LabelRecipe)
    return found


def test_actors_multiply_the_models_and_their_decoders() -> None:
    four = recipe(segment_on={"actors": 4, "num_gpus": 1}, encode_on={"actors": 1, "num_cpus": 0.5})
    stages = {stage.name: stage for stage in ray_stages(seconds(), four, cores=64)}
    found = {name: stage.throughput for name, stage in stages.items()}
    assert found["models"] == Estimate.exactly(40.0)
    assert found["decode"] == Estimate.exactly(200.0)
    assert found["masks and write"] is not None
    assert found["masks and write"].value == pytest.approx(1 / 0.015)
    assert bottleneck(list(stages.values())).name == "models"
    eight = replace(four, segment_on=replace(four.segment_on, actors=8))
    assert bottleneck(ray_stages(seconds(), eight, cores=64)).name == "masks and write"  # 80 against 66.7


def test_two_actors_on_one_gpu_are_no_two_gpus() -> None:
    shared = recipe(segment_on={"actors": 2, "num_gpus": 0.5})
    assert throughput(ray_stages(seconds(), shared, cores=64)).value == pytest.approx(10)


def test_a_private_ray_has_no_more_cores_than_there_are() -> None:
    # 0.16 CPU-s an image on 2 cores: 12.5 images/s, whatever four actors could do.
    four = recipe(segment_on={"actors": 4, "num_cpus": 0.25})
    stages = ray_stages(seconds(cpu=0.16), four, cores=2)
    assert bottleneck(stages).name == "cores of this machine"
    assert throughput(stages).value == pytest.approx(12.5)


def test_of_a_cluster_neither_cores_nor_readers_are_known() -> None:
    joined = recipe(ray={"address": "auto"}, segment_on={"actors": 4})
    stages = {stage.name: stage for stage in ray_stages(seconds(cpu=9.0), joined, cores=2)}
    assert "cores of this machine" not in stages
    assert stages["read"].throughput is None
    assert throughput(list(stages.values())).value == pytest.approx(40)


def test_readers_are_what_the_workers_leave_room_for() -> None:
    # 8 CPUs - 4 actors of 1 - 1 encoder of 0.5 = 3.5; a reader takes 0.45: 7 of them.
    some = recipe(segment_on={"actors": 4, "num_cpus": 1}, ray={"num_cpus": 8, "read_cpus": 0.45})
    assert ray_stages(seconds(), some, cores=2)[0].workers == 7
    none = recipe(segment_on={"actors": 7, "num_cpus": 1}, ray={"num_cpus": 8})
    assert ray_stages(seconds(), none, cores=2)[0].workers == 1


def test_encoders_that_are_short_tasks_limit_nothing() -> None:
    tasks = recipe(encode_on={"actors": 0, "num_cpus": 0.25})
    stages = {stage.name: stage for stage in ray_stages(seconds(), tasks, cores=8)}
    assert stages["masks and write"].workers is None


def test_one_process_does_all_in_turn_and_decodes_beside_the_models() -> None:
    # 0.001 + 0.11 + 0.01 + 0.005 + 0.004 = 0.13: decode 0.02 is inside the 0.11.
    stages = inline_stages(seconds())
    assert one_after_another(stages).value == pytest.approx(1 / 0.13)
    assert bottleneck(stages).name == "decode and models"


def test_start_up_of_one_process_and_of_actors_on_few_cores() -> None:
    start = StartUp(text=6.0, load=4.0)
    assert start.seconds(recipe(), "inline", cores=2) == Estimate(value=10, low=4, high=10)
    eight = recipe(segment_on={"actors": 8, "num_cpus": 0.1})
    assert start.seconds(eight, "ray", cores=2) == Estimate(value=22, low=16, high=22) + RAY_START_S
    cluster = replace(eight, ray=replace(eight.ray, address="auto"))
    assert start.seconds(cluster, "ray", cores=2) == Estimate(value=10, low=4, high=10) + RAY_START_S


def test_what_is_held_is_what_the_recipe_asks_for() -> None:
    asked = recipe(
        segment_on={"actors": 4, "num_cpus": 2, "num_gpus": 0.5},
        encode_on={"actors": 2, "num_cpus": 0.5},
        ray={"read_cpus": 0.45},
    )
    assert held(asked, "ray") == (2.0, pytest.approx(9.45))
    assert held(asked, "inline") == (0.0, 1.0)
    on_gpu = replace(asked, model=replace(asked.model, device="cuda"))
    assert held(on_gpu, "inline") == (1.0, 1.0)


def forecast(times: SampleTimes, stages: list, **changes: Any) -> Forecast:
    one = Estimate.exactly(1.0)
    fields: dict[str, Any] = {
        "engine": "inline",
        "work": Work(images=100, shards=1),
        "times": times,
        "stages": tuple(stages),
        "rate": one,
        "start_up": one,
        "seconds": one,
        "needs": Needs(gpu_hours=one, cpu_hours=one, stored_bytes=one),
        "labels": one,
        "reviews": one,
        "questions": None,
        "money": {},
    }
    return Forecast(**fields | changes)


def test_the_slowest_stage_is_named_with_its_part() -> None:
    times = replace(seconds(), parts={"segmenter": 0.03, "detector": 0.07})
    assert (
        forecast(times, inline_stages(times)).slowest
        == "decode and models: the detector, 70% of the models' time"
    )
    slow = replace(times, decode=Estimate.exactly(0.5), annotate=Estimate.exactly(0.5))
    assert forecast(slow, inline_stages(slow)).slowest == "decode and models: the decoders"
    table = list(stage_rows(forecast(times, inline_stages(times))))
    assert table[2][0] == "decode and models <- slowest"
    assert ("  detector", "70", "", "", "") in table
    assert {len(row) for row in table} == {5}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (0.0123456, "0.0123"),
        (12.345, "12.3"),
        (123.4, "123"),
        (12345.6, "12,300"),
        (1e7, "10,000,000"),
        (0, "0"),
    ],
)
def test_numbers_have_three_digits(value: float, says: str) -> None:
    assert number(value) == says


def test_a_range_is_shown_where_there_is_one() -> None:
    assert ranged(Estimate(value=2.0, low=1.0, high=3.0)) == "2 (1 to 3)"
    assert ranged(Estimate.exactly(2.0)) == "2"
