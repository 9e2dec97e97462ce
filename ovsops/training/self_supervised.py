"""Teach a miniature DINOv2 without any label: DINO between views (arXiv:2104.14294), iBOT on masked patches
(arXiv:2111.07832) and KoLeo, with Sinkhorn targets, as DINOv2 joins them (arXiv:2304.07193).

Only pixels are used; masks and captions of the bank are not looked at. Axes: B scenes, G global and L local views,
K prototypes, D channels, H W patch grid.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ovsops.backbones.miniature import miniature_dinov2, save_half
from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.errors import ConfigError
from ovsops.losses.centring import sinkhorn_targets
from ovsops.losses.class_distillation import sample_at_crops
from ovsops.losses.ema import ema_update
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.koleo import koleo_loss
from ovsops.losses.masked import masked_prediction_loss, sample_block_masks
from ovsops.losses.self_distillation import self_distillation_loss
from ovsops.training.fields import (
    require_at_least,
    require_range,
    require_seed,
    require_share,
    require_weights,
)
from ovsops.training.mapper_views import random_boxes
from ovsops.training.scenes import SceneBank, StepDraws

NUM_GLOBAL = 2


@dataclass(frozen=True, kw_only=True)
class SelfSupervisedConfig:
    """Views and weights."""

    batch_size: int = 32
    """Scenes per worker and step."""
    global_pixels: int = 96
    """Side of a global view; a multiple of the patch."""
    global_scale: tuple[float, float] = (0.4, 1.0)
    """Area of a global view, as a share of the picture."""
    local_pixels: int = 48
    """Side of a local view; a multiple of the patch."""
    local_scale: tuple[float, float] = (0.1, 0.4)
    """Area of a local view, as a share of the picture."""
    num_local: int = 4
    """Local views of a scene."""
    num_prototypes: int = 512
    """Outputs of the DINO head and of the iBOT head."""
    dino_weight: float = 1.0
    ibot_weight: float = 1.0
    koleo_weight: float = 0.1
    """Of the term that spreads the CLS tokens of a batch."""
    masked_share: float = 0.4
    """Share of patches that the student does not see, in half of the global views."""
    teacher_momentum: float = 0.99
    """Of the average of weights that is the teacher."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(self, "program", 2, "batch_size", "num_prototypes")
        require_at_least(self, "program", 1, "global_pixels", "local_pixels")
        require_at_least(self, "program", 0, "num_local")
        require_range(self, "program", "global_scale", "local_scale")
        require_weights(self, "program", "dino_weight", "ibot_weight", "koleo_weight")
        if not 0 < self.masked_share < 1:
            raise ConfigError(f"program.masked_share is {self.masked_share}; it must lie in (0, 1)")
        require_share(self, "program", "teacher_momentum")
        require_seed(self, "program")


class PrototypeHead(nn.Module):
    """Three layers to a unit vector, then cosines with prototypes."""

    def __init__(self, width: int, num_prototypes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, 64),
        )
        self.prototypes = nn.Parameter(torch.randn(num_prototypes, 64))

    def forward(self, tokens: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Cosine with each prototype."""
        return F.normalize(self.layers(tokens), dim=-1) @ F.normalize(self.prototypes, dim=-1).T


class Tower(nn.Module):
    """DINOv2 with a head for whole views and one for patches."""

    def __init__(self, model: Any, num_prototypes: int) -> None:
        super().__init__()
        self.model = model
        self.num_prefix = 1 + int(model.config.num_register_tokens)
        self.view_head = PrototypeHead(model.config.hidden_size, num_prototypes)
        self.patch_head = PrototypeHead(model.config.hidden_size, num_prototypes)

    def tokens(
        self, views: Float[Tensor, "B 3 h w"], masks: Tensor | None = None
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B P D"]]:
        """CLS token and patch tokens; masked patches are shown as the mask token."""
        found = self.model(
            views, bool_masked_pos=None if masks is None else masks.flatten(1)
        ).last_hidden_state
        return found[:, 0], found[:, self.num_prefix :]


class SelfSupervisedModule(nn.Module):
    """Student, and the teacher that averages it."""

    def __init__(self, student: Tower) -> None:
        super().__init__()
        self.student = student
        self.teacher = deepcopy(student).requires_grad_(False)


class SelfSupervisedProgram:
    """DINO, iBOT and KoLeo over crops of a bank's pictures."""

    def __init__(
        self,
        bank: SceneBank,
        config: SelfSupervisedConfig,
        work_folder: Path,
        *,
        gather: Gather = no_gather,
        world_size: int = 1,
        device: str = "cpu",
    ) -> None:
        self.bank, self.config, self.gather, self.device = bank, config, gather, device
        self.draws = StepDraws.of(bank, config, gather, world_size)
        model = miniature_dinov2(seed=config.seed)
        self.patch_size = int(model.config.patch_size)
        for name in ("global_pixels", "local_pixels"):
            if getattr(config, name) % self.patch_size:
                raise ConfigError(
                    f"program.{name} is {getattr(config, name)}; it must be a multiple of the patch of "
                    f"{self.patch_size} px"
                )
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.module: SelfSupervisedModule = SelfSupervisedModule(Tower(model, config.num_prototypes)).to(
                device
            )

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """`dino`, `ibot`, `koleo` and their weighted `total`."""
        config, student = self.config, self.module.student
        rows, generator = self.draws(step)
        wide = [
            self._view(rows, config.global_pixels, config.global_scale, generator) for _ in range(NUM_GLOBAL)
        ]
        local = [
            self._view(rows, config.local_pixels, config.local_scale, generator)
            for _ in range(config.num_local)
        ]
        side = config.global_pixels // self.patch_size
        masks = sample_block_masks(
            NUM_GLOBAL * len(rows), (side, side), generator=generator, share=config.masked_share
        )
        masks[torch.rand(len(masks), generator=generator) < 0.5] = False
        masks = masks.to(self.device)

        view_targets, patch_targets = self._targets(torch.cat(wide), masks)
        cls, patches = student.tokens(torch.cat(wide), masks)
        logits = [student.view_head(cls)]
        if local:
            logits.append(student.view_head(student.tokens(torch.cat(local))[0]))
        by_view = torch.cat(logits).unflatten(0, (-1, len(rows)))
        losses = {
            "dino": self_distillation_loss(
                by_view, view_targets.unflatten(0, (NUM_GLOBAL, -1)), num_shared_views=NUM_GLOBAL
            ),
            "ibot": masked_prediction_loss(
                student.patch_head(patches[masks.flatten(1)]), patch_targets, masks
            ),
            "koleo": koleo_loss(cls[: len(rows)], gather=self.gather),
        }
        losses["total"] = (
            config.dino_weight * losses["dino"]
            + config.ibot_weight * losses["ibot"]
            + config.koleo_weight * losses["koleo"]
        )
        return losses

    def after_step(self, step: int) -> None:
        """The teacher follows."""
        ema_update(self.module.teacher, self.module.student, self.config.teacher_momentum)

    def export(self, folder: Path) -> None:
        """The teacher as a DINOv2 checkpoint folder, float16."""
        save_half(self.module.teacher.model, folder)

    @torch.no_grad()
    def _targets(self, views: Float[Tensor, "B 3 h w"], masks: Tensor) -> tuple[Tensor, Tensor]:
        """What the teacher, who sees everything, says of views and of the patches that the student does not see."""
        teacher = self.module.teacher
        cls, patches = teacher.tokens(views)
        of_views = sinkhorn_targets(teacher.view_head(cls), gather=self.gather)
        of_patches = sinkhorn_targets(teacher.patch_head(patches[masks.flatten(1)]), gather=self.gather)
        return of_views, of_patches

    def _view(
        self, rows: Int[Tensor, " B"], pixels: int, scale: tuple[float, float], generator: torch.Generator
    ) -> Float[Tensor, "B 3 p p"]:
        """A crop of each picture, mirrored and re-coloured at random, normalised."""
        boxes = random_boxes(len(rows), scale=scale, generator=generator)
        flipped = torch.rand(len(rows), generator=generator) < 0.5
        boxes[flipped] = boxes[flipped][:, [2, 1, 0, 3]]
        views = sample_at_crops(self.bank.images[rows].float(), boxes, (pixels, pixels))
        gain = 1 + 0.2 * (2 * torch.rand(len(rows), 3, 1, 1, generator=generator) - 1)
        bright = 20 * (2 * torch.rand(len(rows), 1, 1, 1, generator=generator) - 1)
        views = (views * gain + bright).clamp(0, 255).to(self.device)
        return normalized(views, mean=IMAGENET_MEAN, std=IMAGENET_STD)
