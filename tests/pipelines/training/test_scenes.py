"""Scenes from shards: in order, equal to what was drawn; broken ones counted and named."""

import json
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from ovsops.errors import TrainingError
from ovsops.images.decode import DecodeConfig
from ovsops.miniature.scene import SceneConfig, draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.training.scenes import bank_of
from pipelines.readers import ReaderConfig
from pipelines.runner import Engine, InlineEngine
from pipelines.shards import expand_inputs
from pipelines.storage import StorageOptions
from pipelines.summary import Limits
from pipelines.training.job import run_train
from pipelines.training.scenes import SceneRows, bank_of_rows, read_scenes
from tests.pipelines.training.tiny_program import (
    NUM_SCENES,
    SIZE,
    broken_members,
    make_job,
    write_scenes,
)


def read(folder: Path, opened: AbstractContextManager[Engine] | None = None) -> SceneRows:
    shards = expand_inputs([str(folder)])
    with opened or InlineEngine(StorageOptions()) as engine:
        return read_scenes(engine, shards, ReaderConfig(), DecodeConfig())


@pytest.fixture(scope="module")
def with_broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("broken"), broken=broken_members())


def test_a_bank_from_shards_is_the_bank_of_the_scenes(tmp_path: Path) -> None:
    rows = read(write_scenes(tmp_path))
    made = bank_of_rows(rows.table)
    config = SceneConfig(size=SIZE, max_things=3)
    drawn = bank_of(draw_scene(seed, config) for seed in seeds_of("train")[:NUM_SCENES])
    for name in ("images", "instances", "semantic", "codes"):
        assert torch.equal(getattr(made, name), getattr(drawn, name)), name
    assert made.captions == drawn.captions
    assert rows.totals() == {"read": NUM_SCENES, "used": NUM_SCENES, "failed": 0}


def test_broken_scenes_are_counted_and_named(with_broken: Path) -> None:
    rows = read(with_broken)
    assert rows.totals() == {"read": NUM_SCENES + 5, "used": NUM_SCENES, "failed": 5}
    told = rows.told()
    assert sum(told["failures_by_code"].values()) == 5
    assert told["failures_by_code"]["E_TRUTH"] == 3
    assert {failure["shard"] for failure in told["failures"]} == {"broken.tar"}
    assert all(failure["key"] and failure["message"] for failure in told["failures"])


def test_too_many_broken_scenes_stop_the_training_before_it_learns(with_broken: Path, tmp_path: Path) -> None:
    told = run_train(make_job(tmp_path, with_broken), InlineEngine(StorageOptions()))
    assert "5 of 29 images failed" in told["over_limits"][0]
    assert (told["state"], told["steps"]["done"]) == ("over limits", 0)
    assert not (tmp_path / "out" / "states").exists()
    limits = Limits(max_failed_share=0.2)
    told = run_train(make_job(tmp_path, with_broken, limits=limits), InlineEngine(StorageOptions()))
    assert (told["state"], told["scenes"]["used"], told["over_limits"]) == ("done", NUM_SCENES, [])


def test_no_scene_is_an_error_with_a_summary(tmp_path: Path) -> None:
    only = tmp_path / "in"
    only.mkdir()
    write_scenes(only, broken=broken_members())
    for whole in only.glob("world-*.tar"):
        whole.unlink()
    job = make_job(tmp_path, only, limits=Limits(max_failed_share=1.0))
    with pytest.raises(TrainingError, match="do not fill one batch"):
        run_train(job, InlineEngine(StorageOptions()))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["state"] == "error"
