"""Boxes with names: queries are matched with what is true, then their names and boxes are compared with it.

The set loss of Grounding DINO (arXiv:2303.05499, section 3.5): a query's logit of each name of the prompt, focal loss,
L1 and generalized IoU. Matched to several queries each, targets teach proposals that compete (as in H-DETR,
arXiv:2207.13080); matched to one, they teach queries not to.

Axes: N pictures, Q queries, L names of the prompt, K targets of a picture (padded), M matches.
Boxes are corners (x1, y1, x2, y2) as shares of the picture's sides.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from ovsops.losses.precision import at_least_float32
from ovsops.losses.set_prediction import Matches, box_losses, cheapest_matches, generalized_iou

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
"""Of the focal loss (arXiv:1708.02002): weight of what is true, and how much less what is already right counts."""


@dataclass(frozen=True, kw_only=True)
class BoxWeights:
    """What each part weighs, in the matching and in the loss alike."""

    score: float = 2.0
    """Of the names."""
    box_l1: float = 5.0
    box_giou: float = 2.0


@dataclass(frozen=True, kw_only=True)
class LabelledBoxes:
    """What is there, and which names of the prompt are true of it."""

    boxes: Float[Tensor, "N K 4"]
    is_named: Bool[Tensor, "N K L"]
    """Whether a name is true of a target: of several of the prompt, all."""
    is_there: Bool[Tensor, "N K"]
    """False for padding, and for what the prompt does not ask for."""


@torch.no_grad()
def match_boxes(
    label_logits: Float[Tensor, "N Q L"],
    boxes: Float[Tensor, "N Q 4"],
    targets: LabelledBoxes,
    *,
    weights: BoxWeights,
    queries_per_target: int = 1,
) -> Matches:
    """The cheapest assignment of targets to `queries_per_target` queries each, no query twice.

    Of more than there are queries the dearest go without. The cost of a name is the change of the focal loss when it
    turns true (arXiv:2010.04159), mean over the names of a target.
    """
    logits = at_least_float32(label_logits)
    share = logits.sigmoid()
    turned = FOCAL_ALPHA * (1 - share) ** FOCAL_GAMMA * F.softplus(-logits)
    turned = turned - (1 - FOCAL_ALPHA) * share**FOCAL_GAMMA * F.softplus(logits)
    named = targets.is_named.float()
    named = named / named.sum(dim=2, keepdim=True).clamp_min(1)
    costs = (
        weights.score * (turned @ named.transpose(1, 2))
        + weights.box_l1 * torch.cdist(at_least_float32(boxes), targets.boxes, p=1)
        - weights.box_giou * generalized_iou(boxes[:, :, None], targets.boxes[:, None])
    )
    return cheapest_matches(costs, targets.is_there, queries_per_target=queries_per_target)


def labelled_box_losses(
    label_logits: Float[Tensor, "N Q L"],
    boxes: Float[Tensor, "N Q 4"],
    targets: LabelledBoxes,
    matches: Matches,
    *,
    told_absent: bool = True,
) -> dict[str, Tensor]:
    """`scores` (focal, over all queries and names), `box_l1` and `box_giou`, not weighted, all by match.

    Without any match there are no boxes to compare, and `scores` is the sum over all that should be false. With
    `told_absent` false a name that is true of no target of a picture adds nothing there.
    """
    answers = torch.zeros_like(label_logits, dtype=torch.float32)
    answers[matches.pairs, matches.queries] = targets.is_named[matches.pairs, matches.targets].float()
    of_names = focal_loss(label_logits, answers)
    if not told_absent:
        of_names = of_names * (targets.is_named & targets.is_there[:, :, None]).any(dim=1)[:, None]
    scores = of_names.sum() / max(1, len(matches.pairs))
    if not len(matches.pairs):
        return {"scores": scores, "box_l1": boxes.sum() * 0, "box_giou": boxes.sum() * 0}
    return {"scores": scores, **box_losses(boxes, targets.boxes, matches)}


def focal_loss(logits: Float[Tensor, "*S"], answers: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Sigmoid focal loss of each logit; answers are 0 or 1 (arXiv:1708.02002, eq. 5)."""
    logits = at_least_float32(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, answers, reduction="none")
    wrong = (logits.sigmoid() - answers).abs()
    return (FOCAL_ALPHA * answers + (1 - FOCAL_ALPHA) * (1 - answers)) * wrong**FOCAL_GAMMA * entropy
