"""Attention between patch tokens without queries: by their keys, and by the similarity of other features.

Axes: B images, N heads, P patch tokens, D channels, d channels of a head, R rows of P.

Source: SC-CLIP (repository SuleBai/SC-CLIP at 0417ba9), its last attention: half of softmax(K K^T / sqrt(d)) V per
head and half of softmax(3 (S - mean S)) V, where S is the cosine similarity of a middle block's tokens, its entries
below the mean are masked before the softmax, and all heads share it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ovsops.patches.aggregation import unit_tokens

SHARPNESS = 3.0
"""Multiplies the similarity before the softmax."""

Branch = tuple[Float[Tensor, "B N P d"], Float[Tensor, "B N P d"]]
"""Keys and values."""


def mixed_attention(
    branches: Sequence[Branch], reference: Float[Tensor, "B P D"] | None, *, chunk: int = 512
) -> Float[Tensor, "B P C"]:
    """Half attention by keys, half by the similarity of `reference`; summed over branches, heads side by side.

    Without a reference, attention by keys alone. The half that all branches and heads share is applied once, to the sum
    of their values, which is the same by linearity. Float32.
    """
    by_keys = _heads_merged(
        torch.stack([F.scaled_dot_product_attention(k, k, v).float() for k, v in branches]).sum(dim=0)
    )
    if reference is None:
        return by_keys
    values = _heads_merged(torch.stack([v.float() for _, v in branches]).sum(dim=0))
    return (by_keys + similarity_attention(values, reference, chunk=chunk)) / 2


def similarity_attention(
    values: Float[Tensor, "B P C"], reference: Float[Tensor, "B P D"], *, chunk: int = 512
) -> Float[Tensor, "B P C"]:
    """softmax(3 (S - mean S)) V with entries below the mean masked; S a chunk of rows at a time."""
    mixed = torch.empty_like(values)
    for image, units in enumerate(unit_tokens(reference)):
        num_tokens = len(units)
        mean = (units.sum(dim=0) / num_tokens).square().sum()  # of all P x P cosines
        for start in range(0, num_tokens, chunk):
            rows = slice(start, min(start + chunk, num_tokens))
            weights = similarity_weights(units[rows] @ units.T, mean, first_row=start)
            mixed[image, rows] = weights.to(values.dtype) @ values[image]
    return mixed


def similarity_weights(
    similarity: Float[Tensor, "R P"], mean: Float[Tensor, ""], *, first_row: int = 0
) -> Float[Tensor, "R P"]:
    """Rows of softmax(3 (S - mean)), entries below the mean masked, rows `first_row` and on of the whole.

    A token always keeps itself: where all tokens are equal, rounding alone would otherwise mask whole rows.
    """
    lead = similarity - mean
    is_masked = lead < 0
    is_masked.diagonal(first_row).fill_(False)
    return (SHARPNESS * lead).masked_fill_(is_masked, -torch.inf).softmax(dim=-1)


def _heads_merged(heads: Float[Tensor, "B N P d"]) -> Float[Tensor, "B P C"]:
    return heads.transpose(1, 2).flatten(2)
