"""Masks of one thing found twice: suppression by the overlap of the masks themselves. Axes: N masks, h w cells."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def mask_nms(
    masks: Bool[Tensor, "N h w"],
    scores: Float[Tensor, " N"],
    *,
    iou: float | None,
    containment: float | None = None,
    groups: Int[Tensor, " N"] | None = None,
) -> Int[Tensor, " K"]:
    """Places of the masks that stay, best score first; of equal scores the first comes first.

    A mask goes when one that stays has an IoU with it above `iou`, or holds more than the share `containment` of its
    area. None switches a test off. Only masks of the same group suppress each other. Empty masks go.
    """
    order = scores.argsort(descending=True, stable=True)
    flat = masks[order].flatten(1)
    areas = flat.sum(dim=1)
    order, flat, areas = order[areas > 0], flat[areas > 0].float(), areas[areas > 0]
    if len(order) == 0 or (iou is None and containment is None):
        return order
    shared = flat @ flat.T
    suppresses = torch.zeros_like(shared, dtype=torch.bool)
    if iou is not None:
        suppresses |= shared > iou * (areas[:, None] + areas[None] - shared)
    if containment is not None:
        suppresses |= shared > containment * areas[None]
    if groups is not None:
        suppresses &= groups[order][:, None] == groups[order][None]
    suppresses = suppresses.triu(diagonal=1).cpu()
    is_kept = torch.ones(len(order), dtype=torch.bool)
    for place in range(len(order)):
        if is_kept[place]:
            is_kept &= ~suppresses[place]
    return order[is_kept.to(order.device)]
