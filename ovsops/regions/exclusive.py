"""Names of which at most one can hold for a region: one stays, the others become candidate negatives. Axes: N boxes.

"With helmet" and "without helmet" are both found on the same person with high scores. Boxes of one exclusive group that
lie on the same thing are rivals; the one of highest score wins. A loser is no rubbish: its name is wrong for a region
that was nearly taken for it, which is what a hard negative is, once it is validated.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ovsops.errors import ConfigError

NO_GROUP = -1
"""Group of classes that exclude nothing; winner of boxes that lost to nobody."""


@dataclass(frozen=True, kw_only=True)
class ExclusiveConfig:
    """When boxes are rivals, and when the winner is in doubt."""

    iou: float = 0.7
    """Boxes with at least this overlap lie on the same thing."""
    margin: float = 0.1
    """A winner whose score is less than this above its best rival's is contested."""

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1 or not 0 <= self.margin <= 1:
            raise ConfigError(f"{self}: iou lies in (0, 1], margin in [0, 1]")


@dataclass(frozen=True, kw_only=True, eq=False)
class Resolved:
    """Who stays, who lost to whom, and where it was close."""

    is_kept: Bool[Tensor, " N"]
    winner: Int64[Tensor, " N"]
    """Place of the box that a loser lost to: (winner, name of the loser) is a candidate negative. -1 for kept boxes."""
    is_contested: Bool[Tensor, " N"]
    """Winners whose rival came close: for review."""


def resolve_exclusive(
    scores: Float[Tensor, " N"],
    labels: Int64[Tensor, " N"],
    ious: Float[Tensor, "N N"],
    groups: Int64[Tensor, " C"],
    *,
    config: ExclusiveConfig | None = None,
) -> Resolved:
    """Greedy by score; of equal scores the first wins and is contested. `groups[c]` is the group of class c, or -1.

    Boxes of the same class are no rivals: a box that was found twice is a matter for NMS.
    """
    config = config or ExclusiveConfig()
    mine = groups[labels]
    is_rival = (
        (ious >= config.iou)
        & (mine[:, None] == mine[None])
        & (mine != NO_GROUP)[:, None]
        & (labels[:, None] != labels[None])
    )
    winner = torch.full_like(labels, NO_GROUP)
    is_contested = torch.zeros_like(labels, dtype=torch.bool)
    for place in scores.argsort(descending=True, stable=True).tolist():
        if winner[place] != NO_GROUP:
            continue
        losers = is_rival[place] & (winner == NO_GROUP) & (scores <= scores[place])
        losers[place] = False
        winner[losers] = place
        is_contested[place] = bool((scores[place] - scores[losers] < config.margin).any())
    return Resolved(is_kept=winner == NO_GROUP, winner=winner, is_contested=is_contested)
