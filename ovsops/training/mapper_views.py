"""Views of a scene that differ at every step, so that no cache holds them: local crops, and views with masked patches.

Axes: N scenes, B views, h w pixels, H W patch grid, D DINO channels, E SigLIP channels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ovsops.losses.class_distillation import sample_at_crops
from ovsops.training.mapper_features import DinoTower, SiglipTower, resized


@dataclass(frozen=True, kw_only=True)
class ViewTokens:
    """What the towers see in views."""

    patch_tokens: Float[Tensor, "B H W D"]
    """DINO, after its last norm."""
    aligned: Float[Tensor, "B H W E"] | None
    """SigLIP patches in its text space, zero at masked places; None where SigLIP was not asked."""


class LiveViews:
    """Frozen towers over the pictures of a bank."""

    def __init__(
        self,
        images: UInt8[Tensor, "N 3 h w"],
        dino: DinoTower,
        siglip: SiglipTower | None = None,
        *,
        device: str = "cpu",
    ) -> None:
        self.images, self.dino, self.siglip, self.device = images, dino, siglip, device

    def crops(
        self,
        rows: Int[Tensor, " B"],
        boxes: Float[Tensor, "B 4"],
        side: int,
        *,
        with_siglip: bool = False,
    ) -> ViewTokens:
        """Crops on a grid of `side` x `side` patches; `boxes` are x1, y1, x2, y2 as shares of the picture."""
        images, boxes = self.images[rows].to(self.device).float(), boxes.to(self.device)

        def cut(pixels: int) -> Tensor:
            return sample_at_crops(images, boxes, (pixels, pixels))

        seen = self.dino.encode(cut(side * self.dino.patch_size), with_attention=False)
        aligned = None
        if with_siglip:
            assert self.siglip is not None, "no SigLIP tower was given"
            aligned = self._aligned(self.siglip, cut(side * self.siglip.patch_size))
        return ViewTokens(patch_tokens=seen.patch_tokens.clone(), aligned=aligned)

    def masked(
        self, rows: Int[Tensor, " B"], masks: Bool[Tensor, "B H W"], *, with_siglip: bool = False
    ) -> ViewTokens:
        """Whole pictures on the (square) grid of the masks; DINO sees its mask token where a mask is true.

        SigLIP has no mask token: it sees the picture, and its masked places are set to zero.
        """
        side, images = masks.shape[-1], self.images[rows].to(self.device).float()
        masks = masks.to(self.device)
        pixels = resized(images, side * self.dino.patch_size)
        seen = self.dino.encode(pixels, with_attention=False, masked=masks)
        aligned = None
        if with_siglip:
            assert self.siglip is not None, "no SigLIP tower was given"
            aligned = self._aligned(self.siglip, resized(images, side * self.siglip.patch_size))
            aligned = aligned.masked_fill(masks[..., None], 0)
        return ViewTokens(patch_tokens=seen.patch_tokens.clone(), aligned=aligned)

    @staticmethod
    def _aligned(siglip: SiglipTower, pixels: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B H W E"]:
        tokens = siglip.encode(pixels).patch_tokens
        return (
            siglip.align(tokens.flatten(1, 2)).unflatten(1, tokens.shape[1:3]).clone()
        )  # out of inference mode


def random_boxes(
    count: int, *, scale: tuple[float, float], generator: torch.Generator
) -> Float[Tensor, "B 4"]:
    """Square crops (in shares of the picture) whose area is uniform between the two of `scale`, anywhere inside."""
    area, across, down = torch.rand(3, count, generator=generator)
    side = (scale[0] + area * (scale[1] - scale[0])).sqrt()
    x, y = across * (1 - side), down * (1 - side)
    return torch.stack([x, y, x + side, y + side], dim=1).clamp(max=1.0)
