"""Scenes that are drawn into the cache."""

from pathlib import Path

import pytest

from ovsops.errors import ConfigError
from ovsops.miniature.splits import seeds_of
from pipelines.shards import expand_inputs
from pipelines.training.world import WorldConfig, draw_world, world_folder
from tests.pipelines.training.test_scenes import read


def test_scenes_are_drawn_once(tmp_path: Path) -> None:
    world = WorldConfig(scenes=3, size=64)
    folder = draw_world(world, tmp_path)
    (shard,) = folder.rglob("*.tar")
    before = shard.stat()
    assert draw_world(world, tmp_path) == folder
    assert shard.stat().st_mtime_ns == before.st_mtime_ns
    assert len(expand_inputs([str(folder)])) == 1
    keys = read(folder).table.column("key").to_pylist()
    assert [int(key.rpartition("/")[2]) for key in keys] == list(seeds_of("train")[:3])


def test_what_was_cut_short_is_drawn_again(tmp_path: Path) -> None:
    world = WorldConfig(scenes=2, size=64)
    folder = draw_world(world, tmp_path)
    whole = {path: path.read_bytes() for path in folder.rglob("*.tar")}
    (folder / "_whole").unlink()
    for path in whole:
        path.unlink()
    draw_world(world, tmp_path)
    assert {path: path.read_bytes() for path in folder.rglob("*.tar")} == whole


def test_other_scenes_lie_elsewhere(tmp_path: Path) -> None:
    worlds = [
        WorldConfig(scenes=2, size=64),
        WorldConfig(scenes=3, size=64),
        WorldConfig(scenes=2, size=32),
        WorldConfig(scenes=2, size=64, split="test"),
    ]
    assert len({world_folder(world, tmp_path) for world in worlds}) == len(worlds)


def test_a_split_has_only_so_many_scenes() -> None:
    with pytest.raises(ConfigError, match="test has 100000"):
        WorldConfig(scenes=100_001, split="test")
