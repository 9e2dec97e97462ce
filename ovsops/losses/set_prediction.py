"""Set prediction: queries are matched one to one with what is true, then compared with it (arXiv:2005.12872).

Axes: N pairs of a picture and a prompt, Q queries, K targets of a pair (padded), M matches, m m cells of a mask.
Boxes are corners (x1, y1, x2, y2) as shares of the picture's sides.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from ovsops.losses.precision import at_least_float32


@dataclass(frozen=True, kw_only=True)
class SetWeights:
    """What each part weighs, in the matching and in the loss alike; masks as in MaskFormer (arXiv:2107.06278)."""

    score: float = 2.0
    box_l1: float = 5.0
    box_giou: float = 2.0
    mask: float = 2.0
    """Of the cross-entropy of the cells."""
    dice: float = 2.0


@dataclass(frozen=True, kw_only=True)
class SetTargets:
    """The regions that a prompt is true of. Pairs of which it is false have none."""

    boxes: Float[Tensor, "N K 4"]
    masks: Float[Tensor, "N K m m"]
    """Share of each cell that the region covers."""
    is_there: Bool[Tensor, "N K"]
    """False for padding."""


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Which query answers for which target."""

    pairs: Int[Tensor, " M"]
    queries: Int[Tensor, " M"]
    targets: Int[Tensor, " M"]


@torch.no_grad()
def match_queries(
    query_logits: Float[Tensor, "N Q"],
    boxes: Float[Tensor, "N Q 4"],
    mask_logits: Float[Tensor, "N Q m m"],
    targets: SetTargets,
    *,
    weights: SetWeights,
) -> Matches:
    """The cheapest assignment of every pair's targets to queries, no query twice.

    Of more targets than queries the dearest go without.
    """
    scores = at_least_float32(query_logits).sigmoid()
    costs = (
        weights.box_l1 * torch.cdist(at_least_float32(boxes), targets.boxes, p=1)
        - weights.box_giou * generalized_iou(boxes[:, :, None], targets.boxes[:, None])
        + weights.mask * _pairwise_cross_entropy(mask_logits, targets.masks)
        + weights.dice * _pairwise_dice(mask_logits, targets.masks)
        - weights.score * scores[:, :, None]
    )
    return cheapest_matches(costs, targets.is_there)


def cheapest_matches(
    costs: Float[Tensor, "N Q K"], is_there: Bool[Tensor, "N K"], *, queries_per_target: int = 1
) -> Matches:
    """The assignment of least cost of what `is_there` to `queries_per_target` queries each, no query twice."""
    found: list[tuple[int, int, int]] = []
    for pair, (cost, present) in enumerate(zip(costs.cpu(), is_there.cpu(), strict=True)):
        places = present.nonzero().flatten().repeat(queries_per_target)
        queries, chosen = linear_sum_assignment(cost[:, places].numpy())
        found += [(pair, int(q), int(places[k])) for q, k in zip(queries, chosen, strict=True)]
    pairs, of_queries, of_targets = torch.tensor(found, dtype=torch.int64).reshape(-1, 3).unbind(dim=1)
    return Matches(
        pairs=pairs.to(costs.device), queries=of_queries.to(costs.device), targets=of_targets.to(costs.device)
    )


def set_prediction_losses(
    query_logits: Float[Tensor, "N Q"],
    boxes: Float[Tensor, "N Q 4"],
    mask_logits: Float[Tensor, "N Q m m"],
    targets: SetTargets,
    matches: Matches,
) -> dict[str, Tensor]:
    """`scores`, `box_l1`, `box_giou`, `masks` and `dice`, not weighted; the last four are means over matches.

    Scores are learned on pairs with targets alone: whether there are any is the presence token's question (SAM 3,
    arXiv:2511.16719). Without any match everything is 0.
    """
    if not len(matches.pairs):
        nothing = query_logits.sum() * 0
        return dict.fromkeys(("scores", "box_l1", "box_giou", "masks", "dice"), nothing)
    answers = torch.zeros_like(query_logits)
    answers[matches.pairs, matches.queries] = 1
    asked = targets.is_there.any(dim=1)
    found = mask_logits[matches.pairs, matches.queries]
    true = targets.masks[matches.pairs, matches.targets]
    return {
        "scores": F.binary_cross_entropy_with_logits(query_logits[asked].float(), answers[asked].float()),
        **box_losses(boxes, targets.boxes, matches),
        "masks": F.binary_cross_entropy_with_logits(found.float(), true),
        "dice": dice_loss(found, true),
    }


def box_losses(
    boxes: Float[Tensor, "N Q 4"], true_boxes: Float[Tensor, "N K 4"], matches: Matches
) -> dict[str, Tensor]:
    """`box_l1` (sum of the four differences) and `box_giou` (1 - generalized IoU), means over matches."""
    found = at_least_float32(boxes[matches.pairs, matches.queries])
    true = true_boxes[matches.pairs, matches.targets]
    return {
        "box_l1": (found - true).abs().sum(dim=-1).mean(),
        "box_giou": (1 - generalized_iou(found, true)).mean(),
    }


def dice_loss(logits: Float[Tensor, "M m m"], masks: Float[Tensor, "M m m"]) -> Float[Tensor, ""]:
    """1 - (2 overlap + 1) / (sum of both areas + 1), mean over masks, 0 without any; areas in cells."""
    found = at_least_float32(logits).sigmoid()
    overlap = (found * masks).sum(dim=(1, 2))
    each = 1 - (2 * overlap + 1) / (found.sum(dim=(1, 2)) + masks.sum(dim=(1, 2)) + 1)
    return each.sum() / max(1, len(each))


def generalized_iou(boxes: Float[Tensor, "*#A 4"], others: Float[Tensor, "*#A 4"]) -> Float[Tensor, "..."]:
    """IoU minus the share of the smallest box around both that neither covers (arXiv:1902.09630), in [-1, 1]."""
    boxes, others = at_least_float32(boxes), at_least_float32(others)
    inner = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])
    outer = torch.maximum(boxes[..., 2:], others[..., 2:]) - torch.minimum(boxes[..., :2], others[..., :2])
    overlap = inner.clamp_min(0).prod(dim=-1)
    union = _areas(boxes) + _areas(others) - overlap
    around = outer.prod(dim=-1)
    return overlap / union.clamp_min(1e-9) - (around - union) / around.clamp_min(1e-9)


def corners(boxes_cxcywh: Float[Tensor, "*A 4"]) -> Float[Tensor, "*A 4"]:
    """(x1, y1, x2, y2) of boxes that are given by centre and sides."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def _areas(boxes: Float[Tensor, "*A 4"]) -> Float[Tensor, "*A"]:
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(dim=-1)


def _pairwise_cross_entropy(
    logits: Float[Tensor, "N Q m m"], masks: Float[Tensor, "N K m m"]
) -> Float[Tensor, "N Q K"]:
    flat, true = at_least_float32(logits).flatten(2), masks.flatten(2)
    return F.softplus(flat).mean(dim=2)[:, :, None] - flat @ true.transpose(1, 2) / flat.shape[2]


def _pairwise_dice(
    logits: Float[Tensor, "N Q m m"], masks: Float[Tensor, "N K m m"]
) -> Float[Tensor, "N Q K"]:
    flat, true = at_least_float32(logits).flatten(2).sigmoid(), masks.flatten(2)
    areas = flat.sum(dim=2)[:, :, None] + true.sum(dim=2)[:, None]
    return 1 - (2 * flat @ true.transpose(1, 2) + 1) / (areas + 1)
