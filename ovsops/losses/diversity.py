"""Two terms that keep languages and groups level.

Axes: N translation pairs, B pairs of this rank, D channels.

They are this project's reading of "multilingual" and "debiasing" losses; no published recipe has them (SigLIP
2 does both by its data mixture), so whoever adds them gives the weight.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.precision import at_least_float32

UNGROUPED = -1


def translation_loss(texts: Float[Tensor, "N D"], translations: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Mean over pairs of 1 - cosine of a mapped text and its mapped translation; 0 without pairs.

    Alone it is satisfied by one vector for everything: it needs a contrastive loss beside it. Ranks must hold
    the same number of pairs.
    """
    distances = 1 - F.cosine_similarity(at_least_float32(texts), at_least_float32(translations), dim=-1)
    return distances.sum() / max(len(distances), 1)


def group_variance(
    losses: Float[Tensor, " B"], groups: Int[Tensor, " B"], *, gather: Gather = no_gather
) -> Float[Tensor, ""]:
    """Variance over groups of the group's mean loss: 0 when every declared group is served equally well.

    `losses` are per pair (`infonce_of_pairs`), `groups` ids >= 0, or `UNGROUPED` for pairs that belong to
    none. Groups are those present on any rank, each counts once whatever its size; the variance is that of
    the population, so one group, or none, gives 0. Lowering it does not mean lowering the loss: it can as
    well raise the best group's.
    """
    losses, groups = gather(at_least_float32(losses)), gather(groups)
    declared = groups != UNGROUPED
    ids, place = groups[declared].unique(return_inverse=True)
    if not len(ids):
        return losses.sum() * 0
    sums = losses.new_zeros(len(ids)).index_add(0, place, losses[declared])
    counts = torch.bincount(place, minlength=len(ids))
    return (sums / counts).var(correction=0)
