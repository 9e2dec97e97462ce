"""What each patch should say: soft labels from the share of every class in it. Axes: B views, P patches, C classes."""

from jaxtyping import Float
from torch import Tensor

from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.precision import at_least_float32
from ovsops.training.scenes import NUM_THING_CLASSES


def weighted_cross_entropy(
    logits: Float[Tensor, "B P C"],
    shares: Float[Tensor, "B P C"],
    *,
    stuff_share: float,
    gather: Gather = no_gather,
) -> Float[Tensor, ""]:
    """Soft cross-entropy; a patch weighs 1 for the things in it and `stuff_share` for the stuff."""
    of_things = shares[..., :NUM_THING_CLASSES].sum(dim=-1)
    weight = of_things + stuff_share * (1 - of_things)
    each = -(shares * at_least_float32(logits).log_softmax(dim=-1)).sum(dim=-1)
    return weighted_mean(each, weight, gather=gather)


def weighted_mean(
    values: Float[Tensor, "*B"], weights: Float[Tensor, "*B"], *, gather: Gather = no_gather
) -> Float[Tensor, ""]:
    """This rank's share of the weighted mean over all ranks: the mean of the shares is that mean."""
    weights = at_least_float32(weights)
    mean_weight = gather(weights.sum().detach()[None]).mean()
    return (values * weights).sum() / mean_weight.clamp_min(1e-6)
