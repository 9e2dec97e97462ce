"""Writes scenes of the miniature world as WebDataset shards. Equal seeds and config give equal bytes."""

import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

from ovsops.errors import ConfigError, OutputError, StorageError
from ovsops.miniature.samples import scene_sample
from ovsops.miniature.scene import SceneConfig, draw_scene
from pipelines.writers.tar_members import add_member

_NAME = "world-{:06d}.tar"
_DRAWN = re.compile(r"(.*/)?world-\d{6}\.tar")


def is_drawn(name: str) -> bool:
    """Whether a shard is called as those that are drawn here."""
    return _DRAWN.fullmatch(name) is not None


def write_world_shards(
    folder: Path, seeds: Sequence[int], *, scenes_per_shard: int, config: SceneConfig
) -> list[Path]:
    """Shards `world-000000.tar`, ... with `<seed>.png` and `<seed>.json` of every scene, in the order of the seeds.

    A shard appears under its name when it is whole. OutputError when the folder holds shards of the world that this
    call would not replace: readers would take them for its own.
    """
    if scenes_per_shard < 1:
        raise ConfigError(f"scenes_per_shard is {scenes_per_shard}: give 1 or more")
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{len(seeds)} seeds: expected one or more, none negative and none twice")
    starts = range(0, len(seeds), scenes_per_shard)
    paths = [folder / _NAME.format(number) for number in range(len(starts))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if foreign := sorted(set(folder.glob("world-*.tar")) - set(paths)):
            raise OutputError(
                f"{folder} holds {len(foreign)} other shards, for example {foreign[0].name}: use an empty folder"
            )
        for path, start in zip(paths, starts, strict=True):
            _write_shard(path, seeds[start : start + scenes_per_shard], config)
    except OSError as error:
        raise StorageError(f"{folder}: cannot write shards: {error}; check space and rights") from error
    return paths


def _write_shard(path: Path, seeds: Sequence[int], config: SceneConfig) -> None:
    """One shard, beside its place first and then renamed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for seed in seeds:
                    sample = scene_sample(draw_scene(seed, config))
                    add_member(tar, f"{sample['__key__']}.png", sample["png"])
                    add_member(tar, f"{sample['__key__']}.json", sample["json"])
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
