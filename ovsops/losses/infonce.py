"""Symmetric InfoNCE over a batch of pairs, as Talk2DINO trains its projection.

Axes: B pairs of this rank, M pairs of all ranks, D channels.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ShapeError
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.precision import at_least_float32, cosines

LOGIT_SCALE = 1 / 0.07
"""Fixed in the published training: it is a parameter of the criterion, but no optimiser gets it."""
LOG_SCALE_INITIAL = math.log(LOGIT_SCALE)
"""Where a learned log-scale starts."""
MAX_LOGIT_SCALE = 100.0
"""Where a learned scale stops, as in CLIP (arXiv:2103.00020, section 2.5): above it training is unstable."""

Reduction = Literal["mean", "upstream"]


def learned_logit_scale(log_scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """e^log_scale, at most `MAX_LOGIT_SCALE`; the log-scale starts at `LOG_SCALE_INITIAL`."""
    return at_least_float32(log_scale).exp().clamp(max=MAX_LOGIT_SCALE)


def infonce_loss(
    texts: Float[Tensor, "B D"],
    images: Float[Tensor, "B D"],
    *,
    logit_scale: float | Float[Tensor, ""] = LOGIT_SCALE,
    positives: Bool[Tensor, "B M"] | None = None,
    rivals: Bool[Tensor, "B M"] | None = None,
    reduction: Reduction = "mean",
    gather: Gather = no_gather,
) -> Float[Tensor, ""]:
    """Mean of `infonce_of_pairs`; `upstream` divides it by the square of the whole batch, W * B."""
    losses = infonce_of_pairs(
        texts, images, logit_scale=logit_scale, positives=positives, rivals=rivals, gather=gather
    )
    if not len(losses):
        raise ShapeError("InfoNCE: the batch holds no pair, so it has no mean; skip the step on every rank")
    return losses.mean() / len(gather(losses.detach())) ** 2 if reduction == "upstream" else losses.mean()


def infonce_of_pairs(
    texts: Float[Tensor, "B D"],
    images: Float[Tensor, "B D"],
    *,
    logit_scale: float | Float[Tensor, ""] = LOGIT_SCALE,
    positives: Bool[Tensor, "B M"] | None = None,
    rivals: Bool[Tensor, "B M"] | None = None,
    gather: Gather = no_gather,
) -> Float[Tensor, " B"]:
    """Each pair's loss: half of finding its image among all images, half of finding its text among all texts.

    `positives[i, j]` says that text i is true of image j of all ranks and image i of text j; the target is
    then uniform over the true ones. It must hold i's own pair (`siglip.equal_pairs` builds such a matrix).
    Left out, only the own pair is true. `rivals[i, j]` says that pair j competes with pair i; left out, all do. What
    is neither true nor a rival is not looked at: whether it is true nobody knows.
    """
    by_text = cosines(texts, gather(images)) * logit_scale
    by_image = cosines(images, gather(texts)) * logit_scale
    own = torch.arange(len(texts), device=texts.device) + gather.rank * len(texts)
    if rivals is not None:
        if rivals.shape != by_text.shape:
            raise ShapeError(
                f"rivals are {tuple(rivals.shape)}, similarities {tuple(by_text.shape)}: both must agree"
            )
        is_own = own[:, None] == torch.arange(by_text.shape[1], device=texts.device)
        unknown = ~(rivals | (is_own if positives is None else positives))
        by_text, by_image = (logits.masked_fill(unknown, -torch.inf) for logits in (by_text, by_image))
    if positives is None:
        rows = F.cross_entropy(by_text, own, reduction="none")
        columns = F.cross_entropy(by_image, own, reduction="none")
        return (rows + columns) / 2
    if positives.shape != by_text.shape or not positives.gather(1, own[:, None]).all():
        raise ShapeError(
            f"positives are {tuple(positives.shape)}, similarities {tuple(by_text.shape)}: both must agree and every "
            "pair must be true of itself (build it with equal_pairs and the same gather)"
        )
    target = positives / positives.sum(dim=1, keepdim=True)
    likelihoods = by_text.log_softmax(dim=1) + by_image.log_softmax(dim=1)
    return -(target * likelihoods.masked_fill(~positives, 0.0)).sum(dim=1) / 2  # 0 * -inf would be nan


def symmetric_infonce(
    similarity: Float[Tensor, "B B"],
    *,
    logit_scale: float | Float[Tensor, ""] = LOGIT_SCALE,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    """Mean cross-entropy of rows and of columns against the diagonal.

    `similarity[i, j]` is the cosine of text i with image j. `upstream` divides the result by B squared, as
    the published code does: with Adam that changes nothing but the weight of epsilon.
    """
    logits = at_least_float32(similarity) * logit_scale
    target = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return loss / len(logits) ** 2 if reduction == "upstream" else loss
