"""What a patch grid can reach at all: the truth, seen through patches. Axes: h w pixels, H W patch grid, C ids.

The figures that come out are those of a perfect classifier of patches. They are no strict bounds: a majority
label minimises wrong pixels, not the loss of mean IoU, and a model may place its scores better than area shares
do. They do not measure any model.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor
from torch.nn import functional as F

from ovsops.metrics.segmentation import IGNORE


def through_patches(
    truth: Integer[np.ndarray, "h w"],
    grid_hw: tuple[int, int],
    *,
    kind: Literal["hard", "soft"],
    ignore: int = IGNORE,
) -> Int64[np.ndarray, "h w"]:
    """Labels of the pixels when each patch knows only the area shares of the classes in it.

    `hard`: each pixel gets the majority label of its patch. `soft`: the shares are upsampled bilinearly (patch
    centres where they lie) and the largest wins. Ties go to the lower id. Ignored pixels have no share; a truth
    of nothing else comes back as it is. Count the result with `ConfusionCounts`.
    """
    ids = np.unique(truth[truth != ignore])
    if len(ids) == 0:
        return truth.astype(np.int64)
    shares = area_shares(truth, ids, grid_hw)
    if kind == "hard":
        winners = F.interpolate(
            shares.argmax(dim=0)[None, None].double(), size=truth.shape, mode="nearest-exact"
        )
        positions = winners[0, 0].long()
    else:
        planes = F.interpolate(shares[None], size=truth.shape, mode="bilinear", align_corners=False)
        positions = planes[0].argmax(dim=0)
    return ids.astype(np.int64)[positions.numpy()]


def area_shares(
    truth: Integer[np.ndarray, "h w"], ids: Integer[np.ndarray, "C"], grid_hw: tuple[int, int]
) -> Float[Tensor, "C H W"]:
    """Share of each patch's pixels that are `ids[c]`; patches overlap by a pixel where the grid does not divide."""
    planes = torch.from_numpy(truth[None] == ids[:, None, None]).double()
    return F.adaptive_avg_pool2d(planes[None], grid_hw)[0]
