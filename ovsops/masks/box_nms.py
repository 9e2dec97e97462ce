"""Boxes of one thing found twice: suppression by overlap. Axes: N boxes, M others, K kept."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def box_iou(boxes_xyxy: Float[Tensor, "N 4"], others_xyxy: Float[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Intersection over union; 0 where both boxes have no area. A box that ends before it begins has no area."""
    boxes, others = boxes_xyxy.float(), others_xyxy.float()
    top_left = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(dim=-1)
    union = _areas(boxes)[:, None] + _areas(others)[None] - shared
    return torch.where(union > 0, shared / union.clamp(min=torch.finfo(union.dtype).tiny), 0)


def box_nms(
    boxes_xyxy: Float[Tensor, "N 4"],
    scores: Float[Tensor, " N"],
    *,
    iou: float | None,
    groups: Int[Tensor, " N"] | None = None,
    limit: int | None = None,
) -> Int[Tensor, " K"]:
    """Places of the boxes that stay, best score first; of equal scores the first comes first.

    A box goes when one that stays has an IoU above `iou` with it; None switches that off. Only boxes of the same
    group suppress each other. At most `limit` stay. Memory grows with N, not with its square.
    """
    order = scores.argsort(descending=True, stable=True)
    if iou is None:
        return order[:limit]
    boxes = boxes_xyxy[order].float().cpu()
    members = None if groups is None else groups[order].cpu()
    is_open = torch.ones(len(order), dtype=torch.bool)
    kept: list[int] = []
    for place in range(len(order)):
        if len(kept) == limit:
            break
        if not is_open[place]:
            continue
        kept.append(place)
        overlaps = box_iou(boxes[place : place + 1], boxes[place + 1 :])[0] > iou
        if members is not None:
            overlaps &= members[place + 1 :] == members[place]
        is_open[place + 1 :] &= ~overlaps
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def _areas(boxes_xyxy: Float[Tensor, "N 4"]) -> Float[Tensor, " N"]:
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clamp(min=0).prod(dim=-1)
