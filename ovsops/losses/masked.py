"""Masked patch prediction over prototypes (iBOT, arXiv:2111.07832).

Axes: B images, H W patch grid, M masked places, K prototypes.

The student sees masked patch embeddings replaced by a mask token, the teacher sees the whole view. Heads run
on masked places only, so logits come packed: row m belongs to the m-th true place of the mask
(`tokens[mask]`).
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ovsops.errors import ConfigError
from ovsops.losses.precision import at_least_float32
from ovsops.losses.self_distillation import STUDENT_TEMPERATURE

MASKED_SHARE = 0.5
"""SigLIP 2 (arXiv:2502.14786, section 2.2)."""


def masked_prediction_loss(
    student_logits: Float[Tensor, "M K"],
    teacher_targets: Float[Tensor, "M K"],
    mask: Bool[Tensor, "B H W"],
    *,
    temperature: float = STUDENT_TEMPERATURE,
) -> Float[Tensor, ""]:
    """Mean over images of the mean over their masked places of -sum_k P_t log P_s.

    An image without masked places counts as 0, as published. `teacher_targets` are distributions (`centring`,
    with a centre of their own for patches); no gradient goes to them.
    """
    log_student = (at_least_float32(student_logits) / temperature).log_softmax(dim=-1)
    losses = -(at_least_float32(teacher_targets.detach()) * log_student).sum(dim=-1)  # M
    return (losses * _weights_of_places(mask)[mask].to(losses.dtype)).sum()


def _weights_of_places(mask: Bool[Tensor, "B H W"]) -> Float[Tensor, "B H W"]:
    """1 / (B * masked places of the image)."""
    places = mask.flatten(1).sum(dim=1).clamp(min=1) * len(mask)
    return (1 / places)[:, None, None].expand(mask.shape)


def sample_block_masks(
    num_images: int,
    grid_hw: tuple[int, int],
    *,
    generator: torch.Generator,
    share: float = MASKED_SHARE,
    min_block: int = 4,
    aspect: float = 0.3,
) -> Bool[Tensor, "B H W"]:
    """Masks made of rectangles, each with exactly round(share * H * W) masked places.

    So no rank has more than another. A rectangle has at least `min_block` places and a height-to-width ratio
    between `aspect` and 1 / `aspect`, log-uniform, before it is cut at the border: its place is uniform over
    those that touch the grid, so that corners are masked about as often as the middle. Blocks are harder than
    single places: a neighbour gives a single place away.
    """
    height, width = grid_hw
    if not 0 <= share <= 1 or not 0 < aspect <= 1 or min_block < 1 or min(grid_hw) < 1:
        raise ConfigError(
            f"block masks: share {share}, aspect {aspect}, min_block {min_block}, grid {grid_hw}; expected a share in "
            "[0, 1], an aspect in (0, 1], a block and a grid of at least one place"
        )
    wanted = int(share * height * width + 0.5)
    masks = torch.zeros(num_images, height, width, dtype=torch.bool)
    for mask in masks:
        while (missing := wanted - int(mask.sum())) > 0:
            y, x, y2, x2 = _block(grid_hw, max(missing, min_block), min_block, aspect, generator)
            new = (~mask[y:y2, x:x2]).nonzero() + torch.tensor([y, x])
            new = new[torch.randperm(len(new), generator=generator)[:missing]]
            mask[new[:, 0], new[:, 1]] = True
    return masks


def _block(
    grid_hw: tuple[int, int], most: int, least: int, aspect: float, generator: torch.Generator
) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of a random rectangle on the grid."""
    size, ratio, down, across = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    area = least + size * (most - least)
    stretch = math.exp((2 * ratio - 1) * -math.log(aspect))  # height / width
    high = max(int(math.sqrt(area * stretch) + 0.5), 1)
    wide = max(int(math.sqrt(area / stretch) + 0.5), 1)
    bottom, right = 1 + int(down * (grid_hw[0] + high - 1)), 1 + int(across * (grid_hw[1] + wide - 1))
    return max(bottom - high, 0), max(right - wide, 0), min(bottom, grid_hw[0]), min(right, grid_hw[1])
