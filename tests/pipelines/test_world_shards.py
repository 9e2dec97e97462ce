import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

import pipelines.world_shards
from ovsops.errors import ConfigError, OutputError, StorageError
from ovsops.images.decode import decode_image
from ovsops.miniature.scene import Scene, SceneConfig, draw_scene
from ovsops.miniature.truth import read_truth
from pipelines.tar import TarReader
from pipelines.world_shards import write_world_shards

CONFIG = SceneConfig(size=64)


def test_scenes_come_back(tmp_path: Path) -> None:
    seeds = range(900_000, 900_007)
    paths = write_world_shards(tmp_path, seeds, scenes_per_shard=3, config=CONFIG)
    assert [path.name for path in paths] == [f"world-00000{i}.tar" for i in range(3)]
    assert sorted(tmp_path.iterdir()) == paths
    members: dict[str, bytes] = {}
    for path in paths:
        with path.open("rb") as file:
            reader = TarReader(file)
            members |= {member.name.decode(): member.data for member in reader if member.data is not None}
            assert reader.end is not None
    assert list(members) == [f"{seed:08d}.{kind}" for seed in seeds for kind in ("png", "json")]
    for seed in seeds:
        scene = draw_scene(seed, CONFIG)
        assert (decode_image(members[f"{seed:08d}.png"]).pixels == scene.image).all()
        truth = read_truth(members[f"{seed:08d}.json"])
        assert np.array_equal(truth.instances, scene.instances)
        assert np.array_equal(truth.semantic, scene.semantic)


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    first = write_world_shards(tmp_path / "a", range(4), scenes_per_shard=2, config=CONFIG)
    again = write_world_shards(tmp_path / "b", range(4), scenes_per_shard=2, config=CONFIG)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert len({path.read_bytes() for path in first}) == 2


def test_members_carry_no_time_and_no_owner(tmp_path: Path) -> None:
    (path,) = write_world_shards(tmp_path, [5], scenes_per_shard=9, config=CONFIG)
    with tarfile.open(path) as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")
            assert info.mode == 0o644


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_at_third(seed: int, config: SceneConfig) -> Scene:
        if seed == 2:
            raise OSError(28, "No space left on device")
        return draw_scene(seed, config)

    monkeypatch.setattr(pipelines.world_shards, "draw_scene", fail_at_third)
    with pytest.raises(StorageError, match="No space left"):
        write_world_shards(tmp_path, range(4), scenes_per_shard=4, config=CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_other_shards_are_not_mixed_in(tmp_path: Path) -> None:
    write_world_shards(tmp_path, range(3), scenes_per_shard=1, config=CONFIG)
    write_world_shards(tmp_path, range(3), scenes_per_shard=1, config=CONFIG)  # again: fine
    with pytest.raises(OutputError, match="holds 1 other shards"):
        write_world_shards(tmp_path, range(2), scenes_per_shard=1, config=CONFIG)


@pytest.mark.parametrize(("seeds", "size"), [([], 1), ([1, 1], 1), ([-1], 1), ([1], 0)])
def test_nonsense_is_refused(tmp_path: Path, seeds: list[int], size: int) -> None:
    with pytest.raises(ConfigError, match=r"expected one or more|give 1 or more"):
        write_world_shards(tmp_path, seeds, scenes_per_shard=size, config=CONFIG)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot write shards"):
        write_world_shards(tmp_path / "out", [1], scenes_per_shard=1, config=CONFIG)
