"""The two terms of the mapper that use the world's masks: regions against phrases, patches against class names.

Neither is part of Talk2DINO, which never sees a mask. Axes: B scenes, R regions, P patches, C classes, F phrases,
D channels, A attributes.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.precision import cosines
from ovsops.training.patch_labels import weighted_cross_entropy, weighted_mean
from ovsops.training.scenes import NUM_THING_CLASSES

SEEN_PATCHES = 0.5
"""A region that covers less of the grid, in patches, is out of sight."""


def region_loss(
    patch_tokens: Float[Tensor, "B P D"],
    region_shares: Float[Tensor, "B R P"],
    region_codes: Int[Tensor, "B R A"],
    phrases: Float[Tensor, "F D"],
    truth: Bool[Tensor, "B R F"],
    *,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    stuff_share: float,
    gather: Gather = no_gather,
) -> Float[Tensor, ""]:
    """Sigmoid loss of every region in sight with every phrase: sum over phrases, weighted mean over regions.

    A region's vector is the mean of the patch tokens under its mask. Things weigh 1, stuffs `stuff_share`.
    """
    covered = region_shares.sum(dim=-1)
    mixing = region_shares / covered.clamp_min(1e-6)[..., None]
    logits = cosines(mixing @ patch_tokens.float(), phrases.expand(len(mixing), -1, -1)) * scale + bias
    each = -F.logsigmoid(torch.where(truth, logits, -logits)).sum(dim=-1)  # B R
    weight = torch.where(region_codes[..., 0] < NUM_THING_CLASSES, 1.0, stuff_share)
    return weighted_mean(each, weight * (covered > SEEN_PATCHES), gather=gather)


def patch_loss(
    patch_tokens: Float[Tensor, "B P D"],
    class_shares: Float[Tensor, "B P C"],
    names: Float[Tensor, "C D"],
    *,
    scale: Float[Tensor, ""],
    stuff_share: float,
    gather: Gather = no_gather,
) -> Float[Tensor, ""]:
    """Cross-entropy of each patch over the class names against the shares that the classes cover.

    A patch weighs 1 for the things in it and `stuff_share` for the stuff.
    """
    logits = cosines(patch_tokens, names.expand(len(patch_tokens), -1, -1)) * scale
    return weighted_cross_entropy(logits, class_shares, stuff_share=stuff_share, gather=gather)
