"""The terms of FG-CLIP 2's training. Axes: B pairs, R regions, H hard regions, K = 1 + negatives, D channels.

Source: FG-CLIP 2 (arXiv:2510.10921, section 3.2) and repository 360CVGroup/FG-CLIP, commit b1af1cd. A hard region has K
texts: first its own, then its negatives, each wrong in an attribute. The global term is `ovsops.losses.siglip`, the
regional one (FGV) `ovsops.losses.infonce` without gathering.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ShapeError
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.precision import at_least_float32, cosines

TicMode = Literal["corrected", "upstream"]

TOO_ALIKE = 0.95
"""Texts with a cosine above this say the same, and are not pushed apart."""
NUM_NEAREST = 10
"""Other texts that a text is pushed away from."""
MAX_MARGIN = 10.0
"""Where the margin of logits stops in the published code."""


def nearest_texts(
    texts: Float[Tensor, "R D"], *, mode: TicMode = "corrected", num_nearest: int = NUM_NEAREST
) -> Float[Tensor, "R nearest"]:
    """Each text's largest cosines with other texts that say something else, falling.

    `corrected` leaves out the text itself and those that are too alike; a place for which no text is left is -inf.
    `upstream` puts 0 in their place, and a 0 is a text like any other; with fewer texts than `num_nearest` it fails.
    """
    if mode == "upstream" and len(texts) < num_nearest:
        raise ShapeError(
            f"nearest texts: {len(texts)} regions, the published code needs {num_nearest}; give more, or "
            'mode="corrected"'
        )
    similarity = cosines(texts, texts)
    itself = torch.eye(len(texts), dtype=torch.bool, device=texts.device)
    left_out = itself | (similarity > TOO_ALIKE)
    similarity = similarity.masked_fill(left_out, 0.0 if mode == "upstream" else -torch.inf)
    return similarity.topk(min(num_nearest, len(texts)), dim=1).values


def tic_loss(
    texts: Float[Tensor, "R D"],
    *,
    mode: TicMode = "corrected",
    reduction: Literal["mean", "sum"] = "mean",
    num_nearest: int = NUM_NEAREST,
) -> Float[Tensor, ""]:
    """Textual intra-modal contrast: log sum exp of each text's nearest cosines, so that texts move apart.

    The paper's sum over texts (eq. 1) grows with the batch; the mean, which the code takes, does not. A text with
    nothing left that says something else adds nothing, and the mean is over the others; where there is no other, the
    loss is 0 and has gradients of 0.
    """
    nearest = nearest_texts(texts, mode=mode, num_nearest=num_nearest)
    has_other = nearest.isfinite().any(dim=1)
    if not bool(has_other.any()):
        return at_least_float32(texts).sum() * 0.0
    of_texts = nearest[has_other].logsumexp(dim=1)
    return of_texts.sum() if reduction == "sum" else of_texts.mean()


def hard_similarity(images: Float[Tensor, "H D"], texts: Float[Tensor, "H K D"]) -> Float[Tensor, "H K"]:
    """Cosine of each hard region with its own texts."""
    _check_hard(images, texts)
    return cosines(images[:, None], texts)[:, 0]


def fgt_loss(
    images: Float[Tensor, "H D"],
    texts: Float[Tensor, "H K D"],
    *,
    logit_scale: float | Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Fine-grained text: cross-entropy of the true text among a region's own K.

    The paper's words are "binary classification"; the code is this softmax.
    """
    logits = hard_similarity(images, texts) * logit_scale
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))


def hard_infonce_loss(
    images: Float[Tensor, "H D"],
    texts: Float[Tensor, "H K D"],
    *,
    logit_scale: float | Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Half of finding a region's text among the true ones and the negatives of all regions, half of finding a text's
    region among the regions. Only in the code, not in the paper.
    """
    _check_hard(images, texts)
    every_text = torch.cat([texts[:, 0], texts[:, 1:].flatten(0, 1)])
    by_image = cosines(images, every_text) * logit_scale
    by_text = cosines(texts[:, 0], images) * logit_scale
    own = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(by_image, own) + F.cross_entropy(by_text, own)) / 2


def cmr_loss(
    images: Float[Tensor, "H D"],
    texts: Float[Tensor, "H K D"],
    *,
    margin: float | Float[Tensor, ""],
    logit_scale: float | Float[Tensor, ""] = 1.0,
) -> Float[Tensor, ""]:
    """Cross-modal ranking with a margin: mean of max(0, margin + negative - true) over regions and negatives.

    With the scale of the hard texts it ranks logits, as the code does; with 1 cosines, as the paper. The margin is of
    the same unit: that of `next_margin` from the step before, 0 at first.
    """
    scores = hard_similarity(images, texts) * logit_scale
    return (margin + scores[:, 1:] - scores[:, :1]).relu().mean()


@torch.no_grad()
def next_margin(
    images: Float[Tensor, "H D"],
    texts: Float[Tensor, "H K D"],
    *,
    margin: float | Float[Tensor, ""],
    logit_scale: float | Float[Tensor, ""] = 1.0,
    maximum: float | None = MAX_MARGIN,
    gather: Gather = no_gather,
) -> Float[Tensor, ""]:
    """The margin of the next step: how far the true texts are ahead on average, over all ranks, within 0..`maximum`.

    Ranks come in with their means, as in the code; a rank without hard regions has none and does not count, but
    gathers, so that no rank waits for it. A negative that scores exactly 0 is filling and does not count either. Where
    no rank has any hard region the margin stays. One for all negatives, though the paper's equation has one for each
    place in the list: the places mean nothing.
    """
    # a rank without hard regions may not know K, so nothing of its texts is looked at
    ahead = images.new_zeros((), dtype=torch.float32)
    if len(images):
        scores = hard_similarity(images, texts) * logit_scale
        negatives = scores[:, 1:]
        is_negative = negatives != 0
        mean_negative = (negatives * is_negative).sum() / is_negative.sum().clamp(min=1)
        ahead = (scores[:, 0].mean() - mean_negative).float()
    ranks = gather(torch.stack([ahead, torch.full_like(ahead, float(len(images) > 0))])[None])
    num_ranks = ranks[:, 1].sum()
    found = (ranks[:, 0].sum() / num_ranks.clamp(min=1)).clamp(min=0.0, max=maximum)
    return torch.where(num_ranks > 0, found, torch.as_tensor(margin).to(found))


def _check_hard(images: Float[Tensor, "H D"], texts: Float[Tensor, "H K D"]) -> None:
    if not len(images) or texts.shape[1] < 2:
        raise ShapeError(
            f"hard texts {tuple(texts.shape)} of {len(images)} regions: at least one region, and at least one negative "
            "after its own text, are needed; skip the term on every rank"
        )
