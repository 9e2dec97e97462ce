"""A few small scenes and tiny random towers, loaded by the real code."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.dinov2 import Dinov2
from ovsops.backbones.siglip2 import SiglipText, SiglipVision
from ovsops.miniature.scene import SceneConfig, draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.training.mapper_features import MapperFeatures, compute_features
from ovsops.training.mapper_views import LiveViews
from ovsops.training.scenes import SceneBank, bank_of
from tests.tiny.checkpoints import write_dinov2, write_siglip

NUM_SCENES, GRIDS = 24, (4, 6)


@dataclass(frozen=True)
class World:
    bank: SceneBank
    dino: Dinov2
    siglip: SiglipVision
    text: SiglipText
    features: MapperFeatures

    def views(self, *, with_siglip: bool = False) -> LiveViews:
        return LiveViews(self.bank.images, self.dino, self.siglip if with_siglip else None)


def small_world(folder: Path) -> World:
    seeds = seeds_of("train")[:NUM_SCENES]
    bank = bank_of(draw_scene(seed, SceneConfig(size=64, max_things=3)) for seed in seeds)
    places = {
        "dino": resolve(Checkpoint(source=str(write_dinov2(folder / "dinov2")))),
        "siglip": resolve(Checkpoint(source=str(write_siglip(folder / "siglip2")))),
    }
    dino = Dinov2(places["dino"], device="cpu", dtype=torch.float32)
    siglip = SiglipVision(places["siglip"], device="cpu", dtype=torch.float32)
    text = SiglipText(places["siglip"], device="cpu", dtype=torch.float32)
    features = compute_features(bank, dino=dino, text=text, siglip=siglip, grids=GRIDS)
    return World(bank, dino, siglip, text, features)
