"""The recipe of a mine run: which labels, by whose eyes, what counts as near."""

from dataclasses import dataclass, field
from typing import Literal

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.errors import ConfigError
from pipelines.embedding import EmbedConfig
from pipelines.mine_job import mine_placement
from pipelines.mining import Kind, MiningConfig
from pipelines.runner import Placement, RayConfig
from pipelines.storage import StorageOptions
from pipelines.unit_config import UnitLimits


@dataclass(frozen=True, kw_only=True)
class MineEmbed(EmbedConfig):
    """FG-CLIP 2 encodes images and the boxes of their regions."""

    fgclip2: Checkpoint
    """Who encodes: float32 on a CPU, bfloat16 elsewhere."""


def embed_placement() -> Placement:
    """One worker that keeps its model."""
    return Placement(actors=1, num_cpus=1.0, blocks_at_once=1)


@dataclass(frozen=True, kw_only=True)
class MineRecipe:
    """The mine job: labelled regions in, pairs of different classes that look alike out, with their scores."""

    job: Literal["mine"] = "mine"
    """Which job the recipe describes."""
    labels: str
    """Output of a label run. What it has committed is mined. Relative to the working directory."""
    output: str
    """Folder or s3://bucket/prefix that gets vectors and pairs. Relative to the working directory."""
    embed: MineEmbed | None = None
    """Who makes the vectors; null where `vectors` names stored ones."""
    vectors: str | None = None
    """Output of an earlier mine run over the same labels, whose vectors are taken; null embeds here."""
    kinds: tuple[Kind, ...] = ("region", "image")
    """Of what the nearest are looked for."""
    mining: MiningConfig = field(default_factory=MiningConfig)
    """How many are kept, and how near they must be."""
    exclusive: bool = True
    """Whether names that lost to a region's own in an exclusive group are pairs, too."""
    shards: tuple[str, ...] = ()
    """Where the images are now, as `input.shards` of a label recipe; empty: where the label run found them."""
    limits: UnitLimits = field(default_factory=UnitLimits)
    """When a finished run exits with 3."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How object storage is reached, of labels, images and output. Credentials come from the environment."""
    ray: RayConfig = field(default_factory=RayConfig)
    """The cluster."""
    work_on: Placement = field(default_factory=embed_placement)
    """Workers that embed, a shard each at a time; they keep the model."""
    mine_on: Placement = field(default_factory=mine_placement)
    """Workers that mine, without a model; `actors: 0` takes as many as there are CPUs."""

    def __post_init__(self) -> None:
        if (self.embed is None) == (self.vectors is None):
            raise ConfigError(
                "embed, vectors: exactly one of both is wanted: `embed: {fgclip2: {source: ...}}` makes vectors,"
                " `vectors: OUT` takes those of an earlier mine run"
            )
        if len(set(self.kinds)) < len(self.kinds) or not (self.kinds or self.exclusive):
            raise ConfigError(
                "kinds: name region or image, each once; with none of them set `exclusive`, or nothing is mined"
            )
        if self.embed is None:
            return
        if self.work_on.actors < 1:
            raise ConfigError(
                "work_on.actors is 0: the model of embed would be loaded for every shard; give 1 or more"
            )
        if self.embed.device == "cuda" and self.work_on.num_gpus <= 0:
            raise ConfigError(
                "embed.device is cuda, but work_on.num_gpus is 0; give each actor a share of a GPU"
            )

    @property
    def settings(self) -> tuple[str, ...]:
        """Fields that may change between starts of one output: they cannot change a pair."""
        return (
            "job",
            "labels",
            "output",
            "vectors",
            "shards",
            "embed.fgclip2.source",
            "embed.fgclip2.revision",
            "embed.decode_timeout_s",
            "mining.block_rows",
            "limits",
            "storage",
            "ray",
            "work_on",
            "mine_on",
        )
