"""From checkpoints and a bank of scenes to a mapper program that is ready to learn: the one place that loads towers."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.dinov2 import Dinov2
from ovsops.backbones.siglip2 import SiglipText, load_siglip_vision
from ovsops.losses.gather import Gather, no_gather
from ovsops.training.feature_cache import cached_features, features_key
from ovsops.training.mapper import MapperProgram
from ovsops.training.mapper_config import MapperProgramConfig
from ovsops.training.mapper_features import MapperFeatures, compute_features
from ovsops.training.mapper_views import LiveViews
from ovsops.training.scenes import SceneBank


@dataclass(frozen=True, kw_only=True)
class MapperTowers:
    """The frozen towers around a mapper."""

    dino: Checkpoint
    """DINOv2 with registers: whose space texts are mapped to."""
    siglip: Checkpoint
    """SigLIP 2: its text tower, and its vision tower where `with_siglip_vision` says so."""
    with_siglip_vision: bool = True
    """Whether SigLIP's patches are computed: for the constants that join it to DINO, and for the fusion residual."""


@dataclass(frozen=True)
class MapperInputs:
    """What programs over one bank share."""

    features: MapperFeatures
    views: LiveViews


def prepare_mapper(
    bank: SceneBank, towers: MapperTowers, cache: Path, *, grids: Iterable[int], device: str = "cpu"
) -> MapperInputs:
    """Load the towers, and compute the features or find them in `cache`.

    Towers run in float32, whatever the training loop does: they run once.
    """
    dino_place, siglip_place = resolve(towers.dino), resolve(towers.siglip)
    dino = Dinov2(dino_place, device=device, dtype=torch.float32)
    siglip = None
    if towers.with_siglip_vision:
        siglip = load_siglip_vision(siglip_place, device=device, dtype=torch.float32)
    wanted = tuple(sorted(set(grids)))
    identities = {"dino": dino_place.identity, "text": siglip_place.identity}
    if siglip is not None:
        identities["siglip"] = siglip_place.identity

    def compute() -> MapperFeatures:
        text = SiglipText(siglip_place, device=device, dtype=torch.float32)
        return compute_features(bank, dino=dino, text=text, siglip=siglip, grids=wanted, device=device)

    features = cached_features(cache, features_key(bank, identities, wanted), compute)
    return MapperInputs(features, LiveViews(bank.images, dino, siglip, device=device))


def build_mapper_program(
    bank: SceneBank,
    config: MapperProgramConfig,
    towers: MapperTowers,
    cache: Path,
    *,
    start: Path | None = None,
    gather: Gather = no_gather,
    world_size: int = 1,
    device: str = "cpu",
) -> MapperProgram:
    """One program; `start` is the folder that a former stage exported."""
    inputs = prepare_mapper(bank, towers, cache, grids=config.grids, device=device)
    return MapperProgram(
        inputs.features,
        config,
        views=inputs.views,
        start=start,
        gather=gather,
        world_size=world_size,
        device=device,
    )
