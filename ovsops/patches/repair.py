"""Outlier patch tokens replaced by what surrounds them on the patch grid.

Axes: B images, H W patch grid, D channels.

Source: SC-CLIP (repository SuleBai/SC-CLIP at 0417ba9), the repair of its last features, for any grid and batch.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def repair_outliers(
    tokens: Float[Tensor, "*B H W D"], outliers: Bool[Tensor, "*B H W"]
) -> Float[Tensor, "*B H W D"]:
    """Each outlier becomes the mean of its 8 neighbours, without those beyond the edge and outliers themselves.

    An outlier that has no such neighbour stays as it is, as does every other token, to the bit. Means are taken from
    the tokens as given, so the order of repair does not matter.
    """
    height, width, channels = tokens.shape[-3:]
    num_images = math.prod(tokens.shape[:-3])
    flat = tokens.reshape(num_images, height, width, channels)
    is_outlier = outliers.reshape(num_images, height, width)
    image, row, column = is_outlier.nonzero(as_tuple=True)
    working = torch.float64 if tokens.dtype == torch.float64 else torch.float32
    total = torch.zeros(len(image), channels, dtype=working, device=tokens.device)
    count = torch.zeros(len(image), 1, dtype=working, device=tokens.device)
    for dy, dx in _NEIGHBOURS:
        y, x = row + dy, column + dx
        is_inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
        is_valid = (is_inside & ~is_outlier[image, y, x])[:, None]
        total += torch.where(is_valid, flat[image, y, x].to(working), 0)
        count += is_valid
    has_neighbour = count[:, 0] > 0
    repaired = flat.clone()
    repaired[image[has_neighbour], row[has_neighbour], column[has_neighbour]] = (
        total[has_neighbour] / count[has_neighbour]
    ).to(tokens.dtype)
    return repaired.reshape(tokens.shape)
