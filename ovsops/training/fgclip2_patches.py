"""FG-CLIP 2's vision tower alone, taught what the things of drawn scenes are: no text is read.

Two linear heads that are thrown away ask for a thing's noun, colour, pattern, material and size: one every patch that
it covers, one its region feature. A step costs a third of one of stage 2, whose texts take the rest, so a tower that
does not see an attribute yet learns it here first. Stage 2 has to follow: texts do not move with the regions.

Scenes are mirrored by chance, left to right and upside down: no attribute changes. None of this is FG-CLIP 2's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ovsops.backbones.fgclip2_model import FgClip2Model
from ovsops.losses.gather import Gather, no_gather
from ovsops.miniature.region_truth import Located
from ovsops.training.deeper import deepen_vision
from ovsops.training.fgclip2_batch import ThingMaps
from ovsops.training.fgclip2_labels import label_head, label_loss, patch_labels
from ovsops.training.fgclip2_module import FgClip2Embedder
from ovsops.training.fgclip2_scenes import corners, located_things
from ovsops.training.fields import require_at_least, require_positive, require_seed
from ovsops.training.scenes import SceneBank, StepDraws, thing_codes


@dataclass(frozen=True, kw_only=True)
class FgClip2PatchesConfig:
    """How patches are taught."""

    batch_size: int = 16
    """Scenes per worker and step."""
    region_weight: float = 1.0
    """Of the region features' loss beside the patches'."""
    region_scale: float = 11.0
    """Region features have this length before their head."""
    vision_layers: int | None = None
    """Blocks of the vision tower; those that the start has not are laid between its own and add nothing at first."""
    mirror: bool = True
    """Scenes are mirrored left to right and upside down, each in half of the steps."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(self, "program", 1, "batch_size")
        require_at_least(self, "program", 0, "region_weight")
        require_positive(self, "program", "region_scale")
        require_seed(self, "program")
        if self.vision_layers is not None:
            require_at_least(self, "program", 1, "vision_layers")


class FgClip2Taught(nn.Module):
    """The model with the two heads that are thrown away."""

    def __init__(self, model: FgClip2Model) -> None:
        super().__init__()
        self.model = model
        self.patch_head, self.region_head = label_head(model.width), label_head(model.width)


class FgClip2PatchesProgram:
    """Losses of patches and regions over batches of a bank. Text towers and pooling heads stay as they are."""

    def __init__(
        self,
        bank: SceneBank,
        config: FgClip2PatchesConfig,
        model: FgClip2Model,
        tokenizer_folder: Path,
        *,
        gather: Gather = no_gather,
        world_size: int = 1,
        device: str = "cpu",
    ) -> None:
        self.bank, self.config, self.device = bank, config, device
        self.draws = StepDraws.of(bank, config, gather, world_size)
        if config.vision_layers is not None:
            deepen_vision(model, num_layers=config.vision_layers)
        model.requires_grad_(False)
        for part in taught_parts(model):
            part.requires_grad_(True)
        model.dense_feature_head.probe.requires_grad_(False)  # stored, and used by nothing
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.module = FgClip2Taught(model).to(device)
        self.embedder = FgClip2Embedder(model, tokenizer_folder, device=device)

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """`patches`, `regions`, and the weighted `total`."""
        rows, generator = self.draws(step)
        flips = self._flips(generator)
        pixels = self.bank.images[rows].flip([axis + 2 for axis in flips])
        things = ThingMaps(
            instances=self.bank.instances[rows].flip([axis + 1 for axis in flips]),
            codes=self.bank.codes[rows],
        )
        images = tuple(image.permute(1, 2, 0).contiguous().numpy() for image in pixels)
        _, tokens, patches = self.embedder.images(images)
        grid = (int(patches.grids[0, 0]), int(patches.grids[0, 1]))
        labels = patch_labels(things, grid=grid).to(self.device)
        module = self.module
        losses = {"patches": label_loss(module.patch_head, tokens.flatten(0, 1), labels.flatten(0, 1))}

        of_rows = [located_things(self.bank, row) for row in rows.tolist()]
        codes = torch.tensor([thing_codes(thing) for each in of_rows for thing in each])
        regions = self.embedder.regions(
            tokens,
            patches,
            [self.bank.size_hw] * len(images),
            self._boxes(of_rows, flips).to(self.device),
            torch.tensor([place for place, each in enumerate(of_rows) for _ in each], dtype=torch.int64),
        )
        scaled = F.normalize(regions, dim=-1) * self.config.region_scale
        losses["regions"] = label_loss(module.region_head, scaled, codes.to(self.device))
        losses["total"] = losses["patches"] + self.config.region_weight * losses["regions"]
        return losses

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""

    def export(self, folder: Path) -> None:
        """An FG-CLIP 2 checkpoint folder with its tokenizer, float16."""
        self.embedder.export(folder)

    def _flips(self, generator: torch.Generator) -> list[int]:
        """Axes that this step's scenes are mirrored along: 0 upside down, 1 left to right."""
        if not self.config.mirror:
            return []
        return [axis for axis in (0, 1) if bool(torch.rand((), generator=generator) < 0.5)]

    def _boxes(self, things: list[list[Located]], flips: list[int]) -> Float[Tensor, "R 4"]:
        height, width = self.bank.size_hw
        boxes = []
        for of_scene in things:
            for thing in of_scene:
                left, top, right, bottom = corners(thing)
                if 0 in flips:
                    top, bottom = height - bottom, height - top
                if 1 in flips:
                    left, right = width - right, width - left
                boxes.append((left, top, right, bottom))
        return torch.tensor(boxes).reshape(-1, 4)


def taught_parts(model: FgClip2Model) -> list[nn.Module]:
    """What region features come from."""
    vision = model.vision_model
    return [vision.embeddings, vision.encoder, vision.post_layernorm, model.dense_feature_head]
