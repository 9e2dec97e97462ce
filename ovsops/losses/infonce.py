"""Symmetric InfoNCE over a batch of pairs, as Talk2DINO trains its projection. Axes: B pairs, R ranks."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

LOGIT_SCALE = 1 / 0.07
"""Fixed in the published training: it is a parameter of the criterion, but no optimiser gets it."""


def symmetric_infonce(
    similarity: Float[Tensor, "B B"],
    *,
    logit_scale: float | Float[Tensor, ""] = LOGIT_SCALE,
    reduction: Literal["mean", "upstream"] = "mean",
) -> Float[Tensor, ""]:
    """Mean cross-entropy of rows and of columns against the diagonal.

    `similarity[i, j]` is the cosine of text i with image j. `upstream` divides the result by B squared, as
    the published code does: with Adam that changes nothing but the weight of epsilon.
    """
    logits = similarity.float() * logit_scale
    target = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return loss / len(logits) ** 2 if reduction == "upstream" else loss
