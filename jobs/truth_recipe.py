"""Where true objects come from: what `evaluate` measures against and `fit` learns from."""

from dataclasses import dataclass, field
from typing import Literal

from pipelines.readers import ReaderConfig
from pipelines.truth.coco_instances import CocoReading


@dataclass(frozen=True, kw_only=True)
class WorldTruthConfig:
    """The miniature world: truth in the JSON beside each scene."""

    kind: Literal["world"] = "world"
    shards: tuple[str, ...] = ()
    """Shards that hold the truth, matched by shard name and key; none: the JSON of the labelled shards themselves."""
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    """Caps of the reader of `shards`."""


@dataclass(frozen=True, kw_only=True)
class CocoInstancesTruthConfig:
    """Objects of a COCO or LVIS file of instances; images are matched by file name."""

    kind: Literal["coco_instances"] = "coco_instances"
    annotations: str
    """The JSON file."""
    reading: CocoReading = field(default_factory=CocoReading)
    """Caps of its reader."""
