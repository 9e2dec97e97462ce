"""What each patch should say: soft labels from the share of every class in it. Axes: B views, P patches, C classes."""

from jaxtyping import Float
from torch import Tensor

from ovsops.training.scenes import NUM_THING_CLASSES


def weighted_cross_entropy(
    logits: Float[Tensor, "B P C"], shares: Float[Tensor, "B P C"], *, stuff_share: float
) -> Float[Tensor, ""]:
    """Soft cross-entropy; a patch weighs 1 for the things in it and `stuff_share` for the stuff."""
    of_things = shares[..., :NUM_THING_CLASSES].sum(dim=-1)
    weight = of_things + stuff_share * (1 - of_things)
    each = -(shares * logits.float().log_softmax(dim=-1)).sum(dim=-1)
    return (each * weight).sum() / weight.sum()
