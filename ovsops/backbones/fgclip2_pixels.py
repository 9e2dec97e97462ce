"""Images as FG-CLIP 2 takes them: as many patches as the image deserves, cut row by row.

Axes: B images, P patches, h w pixels.

Source: FG-CLIP 2 (arXiv:2510.10921, section 4.1: the resolutions of stage 2) and repository 360CVGroup/FG-CLIP, commit
b1af1cd (which image gets which). The bucket is chosen image by image: the published processor can take the largest of a
call for all of them, and then what an image is depends on its neighbours (`shared_budget` tells what it would take).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from ovsops.errors import ShapeError

BUDGETS = (128, 256, 576, 784, 1024)
"""Patches that an image may have; each is a bucket."""
PATCH_SIZE = 16
_SCALE_STEP = 1e-5
_LARGEST_SCALE = 100.0


@dataclass(frozen=True, kw_only=True)
class PatchBatch:
    """Images of different grids side by side, filled up with zeros."""

    patches: Float[Tensor, "B P patch"]
    """Pixels of a patch in the order row, column, colour, in -1..1."""
    is_patch: Bool[Tensor, "B P"]
    """False where it is filled up."""
    grids: Int[Tensor, "B 2"]
    """Rows and columns of patches."""

    def to(self, device: str) -> "PatchBatch":
        """The same on another device."""
        return PatchBatch(
            patches=self.patches.to(device),
            is_patch=self.is_patch.to(device),
            grids=self.grids.to(device),
        )


def patch_budget(image_hw: tuple[int, int], *, patch_size: int = PATCH_SIZE) -> int:
    """The bucket of an image: the smallest that holds its whole patches, at most the largest there is."""
    height, width = image_hw
    if height < 1 or width < 1:
        raise ShapeError(f"image of {width}x{height} px: it has no pixel, so no patches can be cut from it")
    whole_patches = (height // patch_size) * (width // patch_size)
    return next((budget for budget in BUDGETS if whole_patches <= budget), BUDGETS[-1])


def shared_budget(sizes_hw: Sequence[tuple[int, int]], *, patch_size: int = PATCH_SIZE) -> int:
    """The bucket that the published processor takes for all images of one call: the largest of theirs."""
    if not sizes_hw:
        raise ShapeError("no images: a call without images has no bucket")
    return max(patch_budget(size, patch_size=patch_size) for size in sizes_hw)


def fit_grid(image_hw: tuple[int, int], budget: int, *, patch_size: int = PATCH_SIZE) -> tuple[int, int]:
    """Rows and columns of the largest grid of at most `budget` patches with the image's proportions.

    Sides are rounded up to whole patches, so the proportions are kept nearly; small images are enlarged, up to 100
    times. The scale is found by bisection to 1e-5, as in the published processor, and so is the grid.
    """
    if budget < 1:
        raise ShapeError(f"grid of at most {budget} patches: at least 1 is needed")

    def at(scale: float) -> tuple[int, int]:
        rows, columns = (max(1, math.ceil(side * scale / patch_size)) for side in image_hw)
        return rows, columns

    fits, too_large = _SCALE_STEP / 10, _LARGEST_SCALE
    while too_large - fits >= _SCALE_STEP:
        middle = (fits + too_large) / 2
        if math.prod(at(middle)) <= budget:
            fits = middle
        else:
            too_large = middle
    grid = at(fits)
    if math.prod(grid) > budget:
        raise ShapeError(
            f"image of {image_hw[1]}x{image_hw[0]} px: no grid of {budget} patches has its proportions; crop it"
        )
    return grid


def cut_patches(
    image: UInt8[np.ndarray, "h w 3"], grid: tuple[int, int], *, patch_size: int = PATCH_SIZE
) -> Float[Tensor, "P patch"]:
    """RGB resized to the grid (bilinear, with Pillow's antialiasing) and cut."""
    rows, columns = grid
    resized = Image.fromarray(np.ascontiguousarray(image)).resize(
        (columns * patch_size, rows * patch_size), Image.Resampling.BILINEAR
    )
    pixels = torch.from_numpy(np.asarray(resized).copy()).float()
    scaled = (pixels / 255 - 0.5) / 0.5
    tiles = scaled.unflatten(1, (columns, patch_size)).unflatten(0, (rows, patch_size))  # H p W p 3
    return tiles.transpose(1, 2).flatten(2).flatten(0, 1)


def pad_patches(
    images: Sequence[Float[Tensor, "_P patch"]], grids: Sequence[tuple[int, int]], *, length: int
) -> PatchBatch:
    """Patches of several images in one tensor of `length` patches each."""
    longest = max((len(patches) for patches in images), default=0)
    if not images or longest > length:
        raise ShapeError(
            f"batch of {len(images)} images, the longest of {longest} patches, to be filled up to {length}: at least "
            "one image is needed, and none may be longer"
        )
    batch = images[0].new_zeros((len(images), length, images[0].shape[1]))
    is_patch = torch.zeros((len(images), length), dtype=torch.bool)
    for row, patches in enumerate(images):
        batch[row, : len(patches)] = patches
        is_patch[row, : len(patches)] = True
    return PatchBatch(patches=batch, is_patch=is_patch, grids=torch.tensor(list(grids)))
