"""How teacher logits become targets that cannot all fall onto one prototype.

Two ways: a running centre that is subtracted (DINO, arXiv:2104.14294, section 3.1), or Sinkhorn-Knopp, which
balances the prototypes within the batch (SwAV, arXiv:2006.09882; DINOv2, arXiv:2304.07193). Ranks may hold
different numbers of samples, or none: masked patches are as many as they are.
Axes: N samples of this rank, K prototypes.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.precision import at_least_float32

CENTER_MOMENTUM = 0.9
TEACHER_TEMPERATURE = 0.04
"""DINO's value at the start; iBOT warms the one of patches up to 0.07."""
SINKHORN_ITERATIONS = 3


@torch.no_grad()
def centred_targets(
    teacher_logits: Float[Tensor, "*N K"],
    center: Float[Tensor, " K"],
    *,
    temperature: float = TEACHER_TEMPERATURE,
) -> Float[Tensor, "*N K"]:
    """softmax((logits - center) / temperature), without a gradient."""
    return ((at_least_float32(teacher_logits) - center) / temperature).softmax(dim=-1)


@torch.no_grad()
def update_center(
    center: Float[Tensor, " K"],
    teacher_logits: Float[Tensor, "N K"],
    *,
    momentum: float = CENTER_MOMENTUM,
    gather: Gather = no_gather,
) -> Float[Tensor, " K"]:
    """momentum * center + (1 - momentum) * mean of the logits of all ranks; the same on every rank.

    Without any sample the centre stays. It is updated after the loss of the step that saw these logits.
    """
    logits = at_least_float32(teacher_logits)
    sums_and_count = torch.cat([logits.sum(dim=0), logits.new_tensor([len(logits)])])
    total = gather(sums_and_count[None]).sum(dim=0)
    if total[-1] == 0:
        return center
    return momentum * center + (1 - momentum) * (total[:-1] / total[-1]).to(center.dtype)


@torch.no_grad()
def sinkhorn_targets(
    teacher_logits: Float[Tensor, "N K"],
    *,
    temperature: float = TEACHER_TEMPERATURE,
    iterations: int = SINKHORN_ITERATIONS,
    gather: Gather = no_gather,
) -> Float[Tensor, "N K"]:
    """Distributions over prototypes, each of mass 1, that together use all prototypes about equally.

    Alternates, `iterations` times: every prototype gets the same mass over the samples of all ranks; every
    sample gets mass 1. In logarithms: exp(logits / 0.04) of the formula overflows float32 at a logit of 3.6.
    Ranks exchange one row of K numbers an iteration.
    """
    log_mass = at_least_float32(teacher_logits) / temperature
    for _ in range(iterations):
        of_prototypes = gather(log_mass.logsumexp(dim=0, keepdim=True)).logsumexp(dim=0)
        log_mass = log_mass - of_prototypes  # mass 1 each; the published 1/K cancels in the next line
        log_mass = log_mass - log_mass.logsumexp(dim=1, keepdim=True)
    return log_mass.exp()
