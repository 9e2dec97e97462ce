"""Ray Train around the loop: two workers with batch B are one worker with batch 2 B; Ray Data reads as one process."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from ovsops.errors import TrainingError
from ovsops.training.curve import read_curve
from pipelines.runner import InlineEngine, RayConfig, RayEngine
from pipelines.storage import StorageOptions
from pipelines.summary import Limits
from pipelines.training.job import run_train
from pipelines.training.worker import WorkersConfig
from tests.pipelines.training.test_scenes import read
from tests.pipelines.training.tiny_program import (
    NUM_SCENES,
    TinyRecipe,
    broken_members,
    make_job,
    write_scenes,
)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), broken=broken_members())


def ray_engine() -> RayEngine:
    return RayEngine(RayConfig(), StorageOptions())


def test_ray_data_gives_the_scenes_of_one_process_in_one_order(shards: Path) -> None:
    inline, by_ray = read(shards), read(shards, ray_engine())
    assert inline.table.equals(by_ray.table)
    assert inline.told() == by_ray.told()
    assert by_ray.totals() == {"read": NUM_SCENES + 5, "used": NUM_SCENES, "failed": 5}


@pytest.mark.nightly
def test_two_workers_learn_what_one_with_the_doubled_batch_learns(shards: Path, tmp_path: Path) -> None:
    limits = {"limits": Limits(max_failed_share=0.5)}
    one, two = tmp_path / "one", tmp_path / "two"
    run_train(
        make_job(one, shards, program=TinyRecipe(batch_size=8), **limits), InlineEngine(StorageOptions())
    )
    told = run_train(
        make_job(
            two, shards, program=TinyRecipe(batch_size=4), workers=WorkersConfig(num_workers=2), **limits
        ),
        ray_engine(),
    )
    assert (told["state"], told["steps"]["done"], told["workers"]) == ("done", 12, 2)

    rows, expected = (read_curve(folder / "out" / "curve.csv") for folder in (two, one))
    assert len(rows) == len(expected) == 4
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, abs=1e-5, rel=1e-5)
    assert expected[-1]["total"] < 0.9 * expected[0]["total"]  # something was learned

    weights, others = (load_file(folder / "out" / "checkpoint" / "tiny.safetensors") for folder in (two, one))
    for name, weight in weights.items():
        assert weight.flatten().tolist() == pytest.approx(others[name].flatten().tolist(), abs=1e-5), name


@pytest.mark.nightly
def test_an_error_of_a_worker_says_what_it_says_alone(shards: Path, tmp_path: Path) -> None:
    job = make_job(
        tmp_path,
        shards,
        program=TinyRecipe(batch_size=NUM_SCENES),
        workers=WorkersConfig(num_workers=2),
        limits=Limits(max_failed_share=0.5),
    )
    with pytest.raises(TrainingError, match=f"{NUM_SCENES} scenes do not fill one batch of {2 * NUM_SCENES}"):
        run_train(job, ray_engine())
