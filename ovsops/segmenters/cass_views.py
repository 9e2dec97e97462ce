"""What CASS's vision foundation model (VFM) sees of the views that CLIP sees. Axes: V views, h w pixels."""

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.backbones.pixels import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.segmenters.views import Mode, nearest_patches, resized_views

SLIPPED_STD = (IMAGENET_STD[0], IMAGENET_STD[1], 0.255)
"""ImageNet's spread with the published code's slip of 0.255 for 0.225."""


def vfm_pixels(
    views: Float[Tensor, "V 3 h w"], *, patch: int, side: int | None, mode: Mode
) -> Float[Tensor, "V 3 h2 w2"]:
    """What the VFM sees of CLIP's views, RGB 0..255, in whole patches of its own.

    `side` is the short side of its views; None keeps that of CLIP's. `corrected` keeps the shape of the view,
    `upstream` makes it a square and passes it through 8 bits with wrong constants (`slipped_pixels`).
    """
    height, width = views.shape[-2:]
    scale = 1.0 if side is None else side / min(height, width)
    if mode == "corrected":
        return resized_views(views, nearest_patches(views, patch, scale=scale))
    short = max(1, int(min(height, width) * scale) // patch) * patch
    seen = slipped_pixels(normalized(views, mean=CLIP_MEAN, std=CLIP_STD))
    return (
        seen
        if (height, width) == (short, short)
        else resized_views(seen, (short, short)).round().clamp(0, 255)
    )


def slipped_pixels(normalised: Float[Tensor, "V 3 h w"]) -> Float[Tensor, "V 3 h w"]:
    """CLIP-normalised views brought back to 0..255 as the published code does: with ImageNet's constants, one of them
    mistyped, cut to 8 bits.

    Black comes out at 7 to 19, white at 234 to 243.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=normalised.device).view(1, 3, 1, 1)
    std = torch.tensor(SLIPPED_STD, device=normalised.device).view(1, 3, 1, 1)
    return ((normalised * std + mean) * 255).trunc() % 256
