"""The pictures that CASS's two towers see of one place.

Axes: V views, h w pixels. Windows keep their pixels, so that a patch of CLIP stands on its trained scale; where the
image is smaller than a window its windows are not square. All windows of an image have one size.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ovsops.backbones.pixels import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.segmenters.views import ViewPlan, resize, resized_pixels

Mode = Literal["upstream", "corrected"]
SLIPPED_STD = (IMAGENET_STD[0], IMAGENET_STD[1], 0.255)
"""ImageNet's spread with the published code's slip of 0.255 for 0.225."""


def cut_windows(
    image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan, *, patch: int, mode: Mode
) -> Float[Tensor, "V 3 h2 w2"]:
    """The windows of the plan, RGB 0..255, in whole patches."""
    canvas = resize(image, plan.canvas_hw)
    views = torch.stack([canvas[:, w.y1 : w.y2, w.x1 : w.x2] for w in plan.windows])
    return in_whole_patches(views, patch=patch, mode=mode)


def squashed(image: UInt8[np.ndarray, "h w 3"], *, side: int, patch: int) -> Float[Tensor, "1 3 s s"]:
    """The whole image as one square, RGB 0..255, in whole patches."""
    whole = max(1, round(side / patch)) * patch
    return resize(image, (whole, whole))[None]


def in_whole_patches(
    views: Float[Tensor, "V 3 h w"], *, patch: int, mode: Mode
) -> Float[Tensor, "V 3 h2 w2"]:
    """Views whose sides are multiples of the patch.

    `corrected` resizes to the nearest; `upstream` drops what stands over at the bottom and on the right, as a
    convolution does. A side of less than one patch becomes one.
    """
    if mode == "upstream":
        height, width = (side - side % patch if side >= patch else side for side in views.shape[-2:])
        views = views[..., :height, :width]
    size = _nearest(views, patch)
    return views if size == tuple(views.shape[-2:]) else _resized(views, size)


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
        return _resized(views, _nearest(views, patch, scale=scale))
    short = max(1, int(min(height, width) * scale) // patch) * patch
    seen = slipped_pixels(normalized(views, mean=CLIP_MEAN, std=CLIP_STD))
    return seen if (height, width) == (short, short) else _resized(seen, (short, short)).round().clamp(0, 255)


def slipped_pixels(normalised: Float[Tensor, "V 3 h w"]) -> Float[Tensor, "V 3 h w"]:
    """CLIP-normalised views brought back to 0..255 as the published code does: with ImageNet's constants, one of them
    mistyped, cut to 8 bits.

    Black comes out at 7 to 19, white at 234 to 243.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=normalised.device).view(1, 3, 1, 1)
    std = torch.tensor(SLIPPED_STD, device=normalised.device).view(1, 3, 1, 1)
    return ((normalised * std + mean) * 255).trunc() % 256


def _nearest(views: Float[Tensor, "V 3 h w"], patch: int, *, scale: float = 1.0) -> tuple[int, int]:
    height, width = (max(1, int(side * scale / patch + 0.5)) * patch for side in views.shape[-2:])
    return height, width


def _resized(views: Float[Tensor, "V 3 h w"], size_hw: tuple[int, int]) -> Float[Tensor, "V 3 h2 w2"]:
    if not len(views):
        return views.new_zeros(0, 3, *size_hw)
    return torch.stack([resized_pixels(view, size_hw) for view in views])
