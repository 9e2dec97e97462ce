"""Patch tokens replaced by the mean of the tokens that resemble them.

Axes: B images, N patch tokens, D channels of the reference, C channels of the values.

Source: SC-CLIP (repository SuleBai/SC-CLIP at 0417ba9), its adaptive aggregation: S = cosine similarity of the
reference with entries below beta set to 0, out = S V over the row sums. It is a low-pass filter: where all tokens
share a mean direction nearly every pair exceeds beta and everything becomes one mean; `centred` takes that direction
out first. S is made a chunk of rows at a time, never N x N.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.errors import ConfigError, ShapeError

ZeroRows = Literal["keep", "zero"]

ROW_SUM_EPS = 1e-6
"""Added to each row sum, as published."""


class Aggregation(NamedTuple):
    """What `aggregate_counted` made."""

    values: Float[Tensor, "*B N C"]
    kept_fraction: Float[Tensor, "*B"]
    """Share of the N x N pairs of each image that had weight: near 1, all tokens became one mean."""


def aggregate(
    values: Float[Tensor, "*B N C"],
    reference: Float[Tensor, "*B N D"],
    *,
    beta: float,
    chunk: int = 512,
    centred: bool = False,
    topk: int | None = None,
    zero_rows: ZeroRows = "keep",
) -> Float[Tensor, "*B N C"]:
    """Weighted mean of the values of the tokens with cosine similarity of at least `beta`, weighted by it.

    `centred` subtracts the mean of the reference over its tokens first; `topk` keeps only the largest similarities of
    each row. A token whose reference is zero (or equals the mean, when centred) resembles nothing: it keeps its
    values, or becomes zero as published (`zero_rows`). Works in float32 (float64 for float64), result as `values`.
    """
    return aggregate_counted(
        values, reference, beta=beta, chunk=chunk, centred=centred, topk=topk, zero_rows=zero_rows
    ).values


def aggregate_counted(
    values: Float[Tensor, "*B N C"],
    reference: Float[Tensor, "*B N D"],
    *,
    beta: float,
    chunk: int = 512,
    centred: bool = False,
    topk: int | None = None,
    zero_rows: ZeroRows = "keep",
) -> Aggregation:
    """`aggregate` and how many pairs took part in it."""
    if not 0 <= beta < 1:
        raise ConfigError(f"aggregation: beta {beta} must be a cosine similarity from 0 to below 1")
    if chunk < 1 or (topk is not None and topk < 1):
        raise ConfigError(f"aggregation: chunk {chunk} and topk {topk}: expected at least 1, topk or None")
    leading, num_tokens = values.shape[:-2], values.shape[-2]
    flat_values = values.reshape(math.prod(leading), *values.shape[-2:])
    flat_reference = reference.reshape(math.prod(leading), *reference.shape[-2:])
    aggregated = torch.empty(flat_values.shape, dtype=values.dtype, device=values.device)
    kept = torch.zeros(len(flat_values), dtype=torch.int64, device=values.device)
    is_finite = torch.ones(len(flat_values), dtype=torch.bool, device=values.device)
    for image, (image_values, image_reference) in enumerate(zip(flat_values, flat_reference, strict=True)):
        units = unit_tokens(image_reference, centred=centred)
        working = image_values.to(torch.promote_types(units.dtype, values.dtype))
        units = units.to(working.dtype)
        for start in range(0, num_tokens, chunk):
            rows = slice(start, start + chunk)
            weights = _thresholded(units[rows] @ units.T, beta, topk)
            row_sums = weights.sum(dim=1, keepdim=True)
            means = (weights @ working).div_(row_sums + ROW_SUM_EPS)
            kept[image] += weights.count_nonzero()
            del weights  # before the next chunk makes its own
            if zero_rows == "keep":
                means = torch.where(row_sums == 0, working[rows], means)
            is_finite[image] &= means.isfinite().all()
            aggregated[image, rows] = means.to(values.dtype)
    if not bool(is_finite.all()):
        raise ShapeError(
            f"patch tokens of images {(~is_finite).nonzero().flatten().tolist()} cannot be averaged: expected finite "
            "values and reference; look for NaN or infinity in what made them, or make them in float32"
        )
    fraction = kept.to(torch.float64) / max(1, num_tokens**2)
    return Aggregation(aggregated.view(values.shape), fraction.to(torch.float32).view(leading))


def cosine_similarity(tokens: Float[Tensor, "*B N D"], *, centred: bool = False) -> Float[Tensor, "*B N N"]:
    """Cosine similarity of every pair of patch tokens of an image; 0 with a zero token. For grids where N x N fits."""
    units = unit_tokens(tokens, centred=centred)
    return units @ units.mT


def unit_tokens(tokens: Float[Tensor, "*B N D"], *, centred: bool = False) -> Float[Tensor, "*B N D"]:
    """Tokens of length 1, zero where there is no direction; float32 (float64 for float64).

    `centred`: after subtracting the mean over the image's tokens. A token that equals the mean up to rounding has no
    direction.
    """
    working = tokens.to(torch.float64 if tokens.dtype == torch.float64 else torch.float32)
    norms = torch.linalg.vector_norm(working, dim=-1, keepdim=True)
    if not centred:
        return working / norms.masked_fill(norms == 0, 1)
    rounding = 8 * torch.finfo(working.dtype).eps * norms
    working = working - working.mean(dim=-2, keepdim=True)
    norms = torch.linalg.vector_norm(working, dim=-1, keepdim=True)
    return working.div_(norms.masked_fill(norms <= rounding, torch.inf))


def _thresholded(similarity: Float[Tensor, "R N"], beta: float, topk: int | None) -> Float[Tensor, "R N"]:
    """Entries below beta set to 0, in place; with `topk` only the largest of each row stay."""
    similarity.masked_fill_(similarity < beta, 0)
    if topk is None or topk >= similarity.shape[1]:
        return similarity
    largest = similarity.topk(topk, dim=1)
    return torch.zeros_like(similarity).scatter_(1, largest.indices, largest.values)
