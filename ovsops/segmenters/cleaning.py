"""Background cleaning: scores blended with the attention that a class's text picks among DINO's heads.

Axes: V views of one image, C rows that compete, N heads, P patches. Source: Talk2DINO (ICCV 2025), section
3.4, and its code at commit 4918c2d, from which `upstream` takes three slips: heads are embedded by raw
logits instead of attention; the rescaling divides by the maximum instead of the range; and each window is
rescaled by itself.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.mapper.alignment import head_embeddings, unit

Mode = Literal["upstream", "corrected"]
RANGE_EPS = 1e-6
"""Share of the maximum below which a map's range counts as flat."""


def head_weights(
    text: Float[Tensor, "C D"],
    patch_tokens: Float[Tensor, "V P D"],
    cls_logits: Float[Tensor, "V N P"],
    *,
    tau_head: float,
    mode: Mode,
) -> Float[Tensor, "V C N"]:
    """R: softmax over heads of the cosine of the row with what each head looks at."""
    heads = head_embeddings(patch_tokens, cls_logits, weights="logits" if mode == "upstream" else "softmax")
    cosines = torch.einsum("cd,vnd->vcn", unit(text), unit(heads))
    return (cosines / tau_head).softmax(dim=-1)


def class_attention(
    weights: Float[Tensor, "V C N"], cls_logits: Float[Tensor, "V N P"]
) -> Float[Tensor, "V C P"]:
    """F: softmax over patches of the heads' logits, mixed by the row's weights."""
    return (weights @ cls_logits.float()).softmax(dim=-1)


def rescale_to_scores(
    attention: Float[Tensor, "V C P"], scores: Float[Tensor, "V C P"], *, mode: Mode
) -> Float[Tensor, "V C P"]:
    """F moved to the range of the scores, jointly over all rows so that the order between classes stays.

    The joint range makes the result depend on the vocabulary, by design of the published method:
    similarities are independent of it, cleaned scores are not.
    """
    dims = (1, 2) if mode == "upstream" else (0, 1, 2)
    low, high = attention.amin(dim=dims, keepdim=True), attention.amax(dim=dims, keepdim=True)
    span = high if mode == "upstream" else high - low + RANGE_EPS * high
    floor, ceiling = scores.amin(dim=dims, keepdim=True), scores.amax(dim=dims, keepdim=True)
    return (attention - low) / span * (ceiling - floor) + floor


def clean_background(
    scores: Float[Tensor, "V C P"],
    text: Float[Tensor, "C D"],
    patch_tokens: Float[Tensor, "V P D"],
    cls_logits: Float[Tensor, "V N P"],
    *,
    weight: float,
    tau_head: float,
    mode: Mode,
) -> Float[Tensor, "V C P"]:
    """weight * scores + (1 - weight) * rescaled class attention."""
    mixed = class_attention(
        head_weights(text, patch_tokens, cls_logits, tau_head=tau_head, mode=mode), cls_logits
    )
    return weight * scores + (1 - weight) * rescale_to_scores(mixed, scores, mode=mode)
