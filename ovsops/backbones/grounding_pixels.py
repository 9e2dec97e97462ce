"""Pixels as Grounding DINO wants them: short side to a length, normalised, padded with a mask.

Axes: B images of one size, h w pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.errors import ShapeError


def detector_size(size_hw: tuple[int, int], *, short_side: int, max_long_side: int) -> tuple[int, int]:
    """Size after resizing to `short_side`, or less where the long side would pass `max_long_side`.

    The rule of DETR, as the image processor of transformers has it: the short side rounds, the long side is cut off,
    and an image whose short side is right already stays as it is. Other than there, it does so only where its long
    side fits too, which a strip of 1x20000 px does not; and no side falls under one pixel.
    """
    short, long = sorted(size_hw)
    if short < 1:
        raise ShapeError(f"an image of {size_hw[1]}x{size_hw[0]} px has no pixels")
    wanted: float = short_side
    if long / short * short_side > max_long_side:
        wanted = max_long_side * float(short) / long
    new_short = max(1, round(wanted))
    if new_short == short and long <= max_long_side:
        return size_hw
    new_long = max(1, int(wanted * long / short))
    return (new_short, new_long) if size_hw[0] <= size_hw[1] else (new_long, new_short)


def padded_size(
    size_hw: tuple[int, int], *, strides: Sequence[int], min_places: int, step: int = 32
) -> tuple[int, int]:
    """Size with enough room for `min_places` object queries on maps of these strides.

    Nearly always the size itself: only of an image some thirty times as long as it is wide is the short side padded,
    by multiples of `step`. It depends on nothing but the image.
    """

    def num_places(height: int, width: int) -> int:
        return sum(-(-height // stride) * -(-width // stride) for stride in strides)

    height, width = size_hw
    while num_places(height, width) < min_places:
        if height <= width:
            height += step
        else:
            width += step
    return height, width


def resized_pixels(image: UInt8[np.ndarray, "h w 3"], size_hw: tuple[int, int]) -> UInt8[Tensor, "3 _ _"]:
    """An RGB image in 0..255 in another size, bilinear with antialias as Pillow does it."""
    height, width = size_hw
    picture = Image.fromarray(np.ascontiguousarray(image))
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def padded_views(
    pixels: UInt8[Tensor, "B 3 h w"], size_hw: tuple[int, int]
) -> tuple[Float[Tensor, "B 3 _ _"], Bool[Tensor, "B _ _"]]:
    """Views of zero mean, padded with zeros on the right and below, and the mask that is true on the image."""
    views = normalized(pixels.float(), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    below, right = size_hw[0] - pixels.shape[-2], size_hw[1] - pixels.shape[-1]
    is_image = torch.ones(pixels[:, 0].shape, dtype=torch.bool, device=pixels.device)
    margins = (0, right, 0, below)
    return torch.nn.functional.pad(views, margins), torch.nn.functional.pad(is_image, margins)
