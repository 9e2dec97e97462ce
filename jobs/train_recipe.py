"""The recipe of a training: which scenes or set, which program, how long, on how many workers."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from jobs.door import BY_KIND
from ovsops.errors import ConfigError
from ovsops.images.decode import DecodeConfig
from ovsops.training.loop import LoopConfig
from pipelines.readers import ReaderConfig
from pipelines.runner import RayConfig
from pipelines.storage import StorageOptions
from pipelines.summary import Limits
from pipelines.training.programs import (
    FgClip2Stage1Recipe,
    FgClip2Stage2Recipe,
    ProgramRecipe,
    check_pictures,
)
from pipelines.training.set_files import SetInput
from pipelines.training.worker import WorkersConfig
from pipelines.training.world import WorldConfig


@dataclass(frozen=True, kw_only=True)
class TrainInput:
    """What is learned from: scenes in shards, a world of them to draw, or a training set."""

    shards: tuple[str, ...] = ()
    """Archives of PNG and truth JSON, folders, globs, brace ranges; local or s3://, from the working directory."""
    world: WorldConfig | None = None
    """Scenes that are drawn into the cache, once."""
    set: str | None = None
    """Folder (or one file) of a training set, local or s3://: FineHARD JSON, FineHARD Parquet or WebDataset."""
    format: Literal["auto", "finehard-json", "finehard-parquet", "webdataset"] = "auto"
    """Of the set; auto: what its index or its files' names say."""
    split: Literal["train", "val", "test"] = "train"
    """Which items of the set are learned from; those that name no split are always."""
    images: str | None = None
    """Folder that the set's paths of images are below; the set's own where it is not given."""
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    """Caps of the reader."""

    def __post_init__(self) -> None:
        if sum((bool(self.shards), self.world is not None, self.set is not None)) != 1:
            raise ConfigError(
                "input takes either shards (one pattern or more), or world (scenes to draw), or set (a training set)"
            )
        if self.set is None and (self.format, self.split, self.images) != ("auto", "train", None):
            raise ConfigError("input.format, split and images are about input.set, which is not given")

    @property
    def training_set(self) -> SetInput | None:
        """The set, where one is given."""
        if self.set is None:
            return None
        return SetInput(url=self.set, format=self.format, split=self.split, images=self.images)


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """The train job: scenes in, a checkpoint and its curve out."""

    job: Literal["train"] = "train"
    """Which job the recipe describes."""
    input: TrainInput
    """What is learned from."""
    output: str
    """Folder that gets states, curve, checkpoint and summary; many workers must share it."""
    export: str | None = None
    """Folder that gets the checkpoint; OUTPUT/checkpoint where it is not given."""
    program: Annotated[ProgramRecipe, BY_KIND]
    """What is learned."""
    loop: LoopConfig
    """How long and how fast."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where torch finds a GPU. Each worker takes one."""
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    """A number, or how many and what each of them gets."""
    engine: Literal["ray", "inline"] = "ray"
    """inline: this process alone, without Ray; for one worker."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """Caps on images."""
    limits: Limits = field(default_factory=Limits)
    """How many scenes may be broken before nothing is learned from them (exit 3)."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How object storage with shards is reached. Credentials come from the environment, never from a recipe."""
    ray: RayConfig = field(default_factory=RayConfig)
    """The cluster."""
    cache: str | None = None
    """Folder of drawn scenes; OVSOPS_CACHE or ~/.cache/ovsops where it is not given."""

    def __post_init__(self) -> None:
        if self.workers.num_workers > 1 and self.engine == "inline":
            raise ConfigError("workers over 1 need Ray: set engine to ray, or workers to 1")
        if self.input.world is not None:
            self._check_world(self.input.world)
        if self.input.set is not None and not isinstance(
            self.program, FgClip2Stage1Recipe | FgClip2Stage2Recipe
        ):
            raise ConfigError(
                f"input.set is for program.kind fgclip2_stage1 and fgclip2_stage2; {self.program.kind} learns from "
                "scenes: give shards or world"
            )

    def _check_world(self, world: WorldConfig) -> None:
        """What can be known before the scenes are drawn."""
        check_pictures(self.program, (world.size, world.size))
        whole = self.program.batch_size * self.workers.num_workers
        if world.scenes < whole:
            raise ConfigError(
                f"input.world.scenes is {world.scenes}, which does not fill one batch of {whole} (program.batch_size "
                f"times workers): draw {whole} scenes or more, or take a smaller batch"
            )

    @property
    def cache_dir(self) -> Path:
        """Where drawn scenes are kept."""
        place = self.cache or os.environ.get("OVSOPS_CACHE") or "~/.cache/ovsops"
        return Path(place).expanduser().absolute()


_SETTINGS = (
    "job",
    "input.shards",
    "input.set",
    "input.images",
    "input.reader",
    "output",
    "export",
    "program.siglip.source",
    "program.siglip.revision",
    "program.dino.source",
    "program.dino.revision",
    "program.start.source",
    "program.start.revision",
    "device",
    "loop.save_every",
    "workers.num_cpus",
    "workers.num_threads",
    "workers.timeout_s",
    "engine",
    "limits",
    "storage",
    "ray",
    "cache",
)
"""Fields that do not decide what is learned: of shards, their content does (`data.json`)."""


REASONS = {
    "loop.num_steps": "The rate of every step depends on loop.num_steps, so a training of another length is another "
    "one from its first step, and a finished one cannot be lengthened; where the rate is constant (loop.final_share: "
    "1) num_steps may grow"
}
"""Why a field may not change between starts, where that is not plain."""


def is_train_setting(path: str, loop: LoopConfig) -> bool:
    """Whether the field at a dotted path may change between starts of one training."""
    if path == "loop.num_steps":
        return loop.may_grow
    return any(path == setting or path.startswith(f"{setting}.") for setting in _SETTINGS)
