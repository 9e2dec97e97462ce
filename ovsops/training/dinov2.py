"""Teach a miniature DINOv2 with registers: by the world's masks, by itself, or both.

Labels: each patch token meets the share of every class in its patch, and the CLS token the classes of the picture, so
that its attention has something to look for. Without labels: DINO between views (arXiv:2104.14294) and iBOT on
masked patches (arXiv:2111.07832), against a teacher that averages the student.

Axes: B scenes, P patches, C classes, D channels, K prototypes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import functional as F

from ovsops.backbones.miniature import miniature_dinov2, save_half
from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.losses.gather import Gather, no_gather
from ovsops.training.fields import require_at_least, require_seed, require_share, require_weights
from ovsops.training.patch_labels import weighted_cross_entropy
from ovsops.training.scenes import (
    NUM_CLASSES,
    SceneBank,
    StepDraws,
    check_picture_size,
    class_shares,
)


@dataclass(frozen=True, kw_only=True)
class Dinov2ProgramConfig:
    """What the miniature DINOv2 learns from."""

    batch_size: int = 32
    """Scenes per worker and step."""
    label_weight: float = 1.0
    """Of the patch labels; above 0 the model is not self-supervised, and its card says so."""
    image_label_weight: float = 0.2
    """Of the classes of the picture on the CLS token."""
    stuff_share: float = 0.3
    """Weight of a stuff patch beside a thing's."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(self, "program", 1, "batch_size")
        require_weights(self, "program", "label_weight", "image_label_weight")
        require_share(self, "program", "stuff_share")
        require_seed(self, "program")


class Dinov2Module(nn.Module):
    """The model and the heads that only training needs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        width = model.config.hidden_size
        self.model = model
        self.patch_head = nn.Linear(width, NUM_CLASSES)
        self.image_head = nn.Linear(width, NUM_CLASSES)


class Dinov2Program:
    """Patch labels and picture labels over batches of a bank."""

    def __init__(
        self,
        bank: SceneBank,
        config: Dinov2ProgramConfig,
        work_folder: Path,
        *,
        build_model: Callable[..., Any] = miniature_dinov2,
        gather: Gather = no_gather,
        world_size: int = 1,
        device: str = "cpu",
    ) -> None:
        self.bank, self.config, self.device = bank, config, device
        self.draws = StepDraws.of(bank, config, gather, world_size)
        model = build_model(seed=config.seed)
        self.patch_size = int(model.config.patch_size)
        is_of_one_size = model.config.model_type == "vit"  # DINOv2 interpolates its positions
        side = int(model.config.image_size) if is_of_one_size else None
        check_picture_size(bank.size_hw, patch_size=self.patch_size, side=side)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.module: Dinov2Module = Dinov2Module(model).to(device)
        self.num_prefix = 1 + int(getattr(model.config, "num_register_tokens", 0))

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """`patches`, `pictures` and their weighted `total`."""
        config, bank = self.config, self.bank
        rows, generator = self.draws(step)
        images, semantic = bank.images[rows].to(self.device), bank.semantic[rows].to(self.device)
        flipped = torch.rand(len(rows), generator=generator) < 0.5
        images, semantic = mirrored(images, flipped), mirrored(semantic, flipped)
        tokens = self.module.model(
            normalized(images.float(), mean=IMAGENET_MEAN, std=IMAGENET_STD)
        ).last_hidden_state
        shares = class_shares(semantic, patch_size=self.patch_size).flatten(2).transpose(1, 2)
        losses = {
            "patches": weighted_cross_entropy(
                self.module.patch_head(tokens[:, self.num_prefix :]), shares, stuff_share=config.stuff_share
            ),
            "pictures": F.binary_cross_entropy_with_logits(
                self.module.image_head(tokens[:, 0]).float(), (shares.sum(dim=1) > 0.5).float()
            ),
        }
        losses["total"] = (
            config.label_weight * losses["patches"] + config.image_label_weight * losses["pictures"]
        )
        return losses

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""

    def export(self, folder: Path) -> None:
        """A DINOv2 checkpoint folder, float16."""
        save_half(self.module.model, folder)


def mirrored(planes: Tensor, flipped: Bool[Tensor, " B"]) -> Tensor:
    """Left and right changed where `flipped` says so."""
    place = flipped.view(-1, *[1] * (planes.ndim - 1)).to(planes.device)
    return torch.where(place, planes.flip(-1), planes)
