"""Scenes of the miniature world as shards in a cache folder: drawn once, by all cores, found again by later runs."""

import hashlib
import logging
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from ovsops.errors import ConfigError
from ovsops.miniature.samples import scene_sample
from ovsops.miniature.scene import SceneConfig, draw_scene
from ovsops.miniature.splits import Split, seeds_of
from pipelines.world_shards import write_world_shards

logger = logging.getLogger(__name__)

SCENES_PER_SHARD = 512
"""One shard a folder, one folder a task: the shards do not depend on how many processes draw them."""
_WHOLE = "_whole"
_NUM_PROBES = 3


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Scenes that are drawn where no shards are given."""

    scenes: int
    """How many: the first ones of the split, after `skip`."""
    skip: int = 0
    """Scenes of the split that are left out before: towers that never saw the same scene err differently."""
    split: Split = "train"
    """Whose seeds they come from; splits share no scene."""
    size: int = 128
    """Height and width in pixels."""

    def __post_init__(self) -> None:
        if self.skip < 0 or not 1 <= self.scenes <= len(seeds_of(self.split)) - self.skip:
            raise ConfigError(
                f"input.world.scenes is {self.scenes} after skip {self.skip}; "
                f"{self.split} has {len(seeds_of(self.split))} in all"
            )

    @property
    def seeds(self) -> range:
        """Of the scenes, in order."""
        return seeds_of(self.split)[self.skip : self.skip + self.scenes]


def world_folder(world: WorldConfig, cache: Path) -> Path:
    """Where these scenes are kept. Its name changes with how scenes are drawn: some are drawn to find out."""
    digest = hashlib.sha256()
    for seed in seeds_of(world.split)[:_NUM_PROBES]:
        sample = scene_sample(draw_scene(seed, SceneConfig(size=world.size)))
        digest.update(sample["png"] + sample["json"])
    start = f"-from-{world.skip}" if world.skip else ""
    return cache / "world" / f"{world.split}-{world.size}px-{world.scenes}{start}-{digest.hexdigest()[:12]}"


def draw_world(world: WorldConfig, cache: Path) -> Path:
    """The folder with the shards; what is missing is drawn. Raises StorageError when it cannot be written."""
    folder = world_folder(world, cache)
    if (folder / _WHOLE).is_file():
        return folder
    starts = range(0, world.scenes, SCENES_PER_SHARD)
    tasks = [
        (folder / f"{number:05d}", world.seeds[start : start + SCENES_PER_SHARD], world.size)
        for number, start in enumerate(starts)
    ]
    logger.info("drawing %d scenes into %s", world.scenes, folder)
    processes = min(len(tasks), os.cpu_count() or 1)
    if processes == 1:
        for task in tasks:
            _draw(*task)
    else:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            for done in as_completed([pool.submit(_draw, *task) for task in tasks]):
                done.result()
    (folder / _WHOLE).touch()
    return folder


def _draw(folder: Path, seeds: Sequence[int], size: int) -> None:
    write_world_shards(folder, seeds, scenes_per_shard=SCENES_PER_SHARD, config=SceneConfig(size=size))
