"""DINO's attention heads as parts of an image, and which of them a text means (Talk2DINO, sections 3.2-3.3).

Axes: B images, N heads, P patches, D channels, C texts.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

UNIT_EPS = 1e-12


def unit(vectors: Float[Tensor, "*B D"], *, eps: float = UNIT_EPS) -> Float[Tensor, "*B D"]:
    """Vectors of length one, in float32; the zero vector stays zero."""
    vectors = vectors.float()
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(eps)


def cls_patch_logits(
    qkv: Float[Tensor, "B T D3"], *, num_heads: int, num_prefix_tokens: int, scale: float
) -> Float[Tensor, "B N P"]:
    """Attention logits from the CLS token to the patches, from a fused q|k|v projection with heads
    contiguous.

    Only the CLS row is formed: T scores a head, not T x T.
    """
    width = qkv.shape[-1] // 3
    query = qkv[:, 0, :width].unflatten(-1, (num_heads, -1))  # B N d
    key = qkv[:, num_prefix_tokens:, width : 2 * width].unflatten(-1, (num_heads, -1))  # B P N d
    return torch.einsum("bnd,bpnd->bnp", query.float(), key.float()) * scale


def head_embeddings(
    patch_tokens: Float[Tensor, "B P D"],
    logits: Float[Tensor, "B N P"],
    *,
    weights: Literal["softmax", "logits"] = "softmax",
) -> Float[Tensor, "B N D"]:
    """v_h: what each head looks at, the mean over patches of attention times token.

    `softmax` is the paper and the training code; `logits` weighs by the raw logits, which may be negative,
    as the published background cleaning does.
    """
    logits = logits.float()
    attention = logits.softmax(dim=-1) if weights == "softmax" else logits
    return attention @ patch_tokens.float() / patch_tokens.shape[1]


def average_attention(logits: Float[Tensor, "B N P"]) -> Float[Tensor, "B P"]:
    """One map an image: softmax of the mean logits of the heads."""
    return logits.float().mean(dim=1).softmax(dim=-1)


def head_cosines(heads: Float[Tensor, "B N D"], text: Float[Tensor, "B D"]) -> Float[Tensor, "B N"]:
    """Cosine of each image's own text with each of its heads."""
    return torch.einsum("bnd,bd->bn", unit(heads), unit(text))


def choose_heads(
    heads: Float[Tensor, "B N D"], text: Float[Tensor, "B D"]
) -> tuple[Float[Tensor, "B D"], Int[Tensor, " B"]]:
    """The unit head that each image's own text is closest to, and its index; no gradient runs through the
    choice.
    """
    index = head_cosines(heads, text).detach().argmax(dim=1)
    chosen = heads[torch.arange(heads.shape[0], device=heads.device), index]
    return unit(chosen), index


def text_head_similarity(text: Float[Tensor, "B D"], heads: Float[Tensor, "B N D"]) -> Float[Tensor, "B B"]:
    """S_ij: text i against the chosen head of image j (chosen by text j)."""
    chosen, _ = choose_heads(heads, text)
    return unit(text) @ chosen.T
