"""Attributes asked of patches and regions by linear heads that are thrown away: patches learn what a pattern is before
the text tower can say it. Not FG-CLIP 2's; only where a source knows every pixel.

Axes: B images, P patches, R regions, D channels, T things of an image, A attributes, N labelled places.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ovsops.training.fgclip2_batch import ThingMaps
from ovsops.training.scenes import ABSENT, FAMILY_SIZES


def label_head(width: int) -> nn.Linear:
    """Logits of every value of every attribute, side by side in the order of `ovsops.training.scenes.FAMILIES`."""
    return nn.Linear(width, sum(FAMILY_SIZES))


def patch_labels(things: ThingMaps, *, grid: tuple[int, int]) -> Int[Tensor, "B P A"]:
    """Attributes of the thing that covers more than half of each patch; ABSENT where none does."""
    num_things = things.codes.shape[1]
    planes = F.one_hot(things.instances.long(), num_things + 1)[..., 1:].permute(0, 3, 1, 2).float()
    shares, owner = F.adaptive_avg_pool2d(planes, grid).flatten(2).max(dim=1)
    codes = things.codes.gather(1, owner[:, :, None].expand(-1, -1, things.codes.shape[2]))
    return torch.where(shares[:, :, None] > 0.5, codes, ABSENT)


def label_loss(
    head: nn.Linear, features: Float[Tensor, "N D"], labels: Int[Tensor, "N A"]
) -> Float[Tensor, ""]:
    """Cross-entropy of each attribute; mean over attributes and labelled places.

    Where nothing is labelled it is 0, and so are its gradients.
    """
    logits = head(features).float().split(list(FAMILY_SIZES), dim=1)
    if not bool((labels[:, 0] != ABSENT).any()):
        return torch.stack([part.sum() for part in logits]).sum() * 0.0
    of_attributes = [
        F.cross_entropy(part, labels[:, place], ignore_index=ABSENT) for place, part in enumerate(logits)
    ]
    return torch.stack(of_attributes).mean()
