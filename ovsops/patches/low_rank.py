"""Low-rank forms of graphs: how many eigenpairs are kept, and how their eigenvalues are stretched.

Axes: *B graphs, P patches, k eigenpairs, largest first. Source: CASS (arXiv:2411.17150) and its code at commit
228ecdd. The code measures a rank's energy against the eigenvalues that it has just computed, so the first rank it
tries always holds all of it: rank 10, whatever the graph. Here the denominator is the whole spectrum.
"""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ovsops.patches.spectra import Eigenpairs, leading

EIGENSCALE = 1.5
"""Epsilon of the published eigenscaling."""


def energy_share(values: Float64[Tensor, "*B k"]) -> Float64[Tensor, "*B k"]:
    """Share of the sum of all eigenvalues that the first 1, 2, ... hold; 1 throughout for a graph of zeros."""
    total = values.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, values.cumsum(dim=-1) / torch.where(total > 0, total, 1), 1)


def energy_rank(
    values: Float64[Tensor, "*B k"], *, energy: float, first: int = 1, step: int = 1
) -> Int64[Tensor, "*B"]:
    """The first of the ranks first, first + step, ... whose eigenvalues hold the share `energy` of the spectrum.

    `values` is the whole spectrum; a rank is never more than it has. With `first` and `step` 1 this is the smallest
    rank that suffices.
    """
    count = values.shape[-1]
    below = energy_share(values) < energy
    smallest = (below.sum(dim=-1) + 1).clamp_max(count)
    steps = (smallest - first).clamp_min(0).add(step - 1).div(step, rounding_mode="floor")
    return (first + steps * step).clamp_max(count)


def eigenscale(
    values: Float64[Tensor, "*B k"], rank: Int64[Tensor, "*B"], *, strength: float = EIGENSCALE
) -> Float64[Tensor, "*B k"]:
    """Kept eigenvalues stretched from [low, high] to [(2 - e) low, e high], e the strength; zeros beyond the rank.

    low and high are the smallest and the largest kept value. Where all kept values are equal there is nothing to
    stretch, and they stay.
    """
    kept = torch.arange(values.shape[-1], device=values.device) < rank[..., None]
    high = values[..., :1]
    low = values.gather(-1, (rank[..., None] - 1).clamp_min(0))
    span = high - low
    share = (values - low) / torch.where(span > 0, span, 1)
    scaled = share * (strength * high - (2 - strength) * low) + (2 - strength) * low
    return torch.where(kept, torch.where(span > 0, scaled, values), 0)


def truncated(values: Float64[Tensor, "*B k"], rank: Int64[Tensor, "*B"]) -> Float64[Tensor, "*B k"]:
    """Eigenvalues as they are, zeros beyond the rank."""
    return torch.where(torch.arange(values.shape[-1], device=values.device) < rank[..., None], values, 0)


def fixed_rank(values: Float64[Tensor, "*B n"], *, rank: int, num_patches: int) -> Float64[Tensor, "*B k"]:
    """`rank` eigenvalues, or one a patch where there are fewer patches; padded with the zeros that belong to them."""
    return leading(values, min(rank, num_patches))


def rebuilt(vectors: Float[Tensor, "*B P n"], values: Float64[Tensor, "*B k"]) -> Float[Tensor, "*B P P"]:
    """U diag(values) Uᵀ over the pairs that both have; padding zeros need no vector."""
    count = min(vectors.shape[-1], values.shape[-1])
    axes = vectors[..., :count]
    return (axes * values[..., None, :count].to(axes.dtype)) @ axes.mT


def low_rank_graph(
    pairs: Eigenpairs, *, rank: int, energy: float | None, step: int, strength: float | None
) -> Float[Tensor, "*B P P"]:
    """The graph from its leading eigenpairs.

    `energy` None keeps `rank` pairs; otherwise ranks grow from `rank` by `step` until they hold that share.
    `strength` None leaves the eigenvalues as they are.
    """
    if energy is None:
        values = fixed_rank(pairs.values, rank=rank, num_patches=pairs.vectors.shape[-2])
        kept = torch.full(values.shape[:-1], values.shape[-1], device=values.device)
    else:
        kept = energy_rank(pairs.values, energy=energy, first=rank, step=step)
        values = pairs.values[..., : max(1, int(kept.max()))] if kept.numel() else pairs.values
    chosen = truncated(values, kept) if strength is None else eigenscale(values, kept, strength=strength)
    return rebuilt(pairs.vectors, chosen)
