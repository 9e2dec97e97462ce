"""Heads of two models paired by the spectra of their graphs.

Axes: *B views, N heads, k eigenvalues. The distance of two heads is the Wasserstein distance of their sorted, L1-normed
spectra, here the sum of absolute differences, in [0, 2). CASS pairs heads that are far apart, because they complement
each other: it minimises the cost 1 - distance. Source: CASS (arXiv:2411.17150) and its code at commit 228ecdd, which
takes the pairs the wrong way round when it fuses.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ovsops.errors import ShapeError

Matching = Literal["distant", "similar", "same"]
"""Which heads go together: the most different ones (as published), the most alike, or those of one number."""

TIE_BREAK = 1e-4
"""Weight of (i - j)² / N² in the cost.

Spectra are sorted, so distances are nearly additive and many pairings cost the same up to rounding: this picks one of
them, and the total grows by less than this weight a head.
"""


@dataclass(frozen=True, kw_only=True)
class HeadPairs:
    """For every head of the one model, the VFM head that is fused into it."""

    cost: Float32[Tensor, "*B N N"]
    """1 - distance; rows are VFM heads, columns are CLIP heads. Without the tie-break."""
    clip_head: Int64[Tensor, "*B N"]
    """The assignment: the CLIP head of each VFM head."""
    vfm_head: Int64[Tensor, "*B N"]
    """Which VFM head goes into each CLIP head."""
    distance: Float32[Tensor, "*B N"]
    """Distance that weighs the pair, one for each CLIP head."""


def unit_spectra(values: Float64[Tensor, "*B k"]) -> Float64[Tensor, "*B k"]:
    """Eigenvalues over their sum; a spectrum of zeros stays one."""
    total = values.sum(dim=-1, keepdim=True)
    return values / torch.where(total > 0, total, 1)


def spectral_distance(
    vfm: Float64[Tensor, "*B N k"], clip: Float64[Tensor, "*B M k"]
) -> Float64[Tensor, "*B N M"]:
    """Distances of every VFM head to every CLIP head, from eigenvalues in descending order."""
    return torch.cdist(unit_spectra(vfm), unit_spectra(clip), p=1)


def assign(
    cost: Float[Tensor, "*B N N"], *, matching: Matching = "distant", tie_break: float = TIE_BREAK
) -> Int64[Tensor, "*B N"]:
    """The CLIP head (column) of each VFM head (row), by an optimal assignment.

    `tie_break` 0 leaves ties to rounding. The assignment is solved on the CPU: a matrix of 12 x 12 takes 30 us there.
    """
    heads = cost.shape[-1]
    places = np.arange(heads)
    if matching == "same":
        return torch.arange(heads, device=cost.device).expand(cost.shape[:-1]).clone()
    bias = tie_break * (places[:, None] - places) ** 2 / max(heads, 1) ** 2
    sign = 1.0 if matching == "distant" else -1.0
    matrices = sign * cost.detach().reshape(-1, heads, heads).double().cpu().numpy() + bias
    columns = [linear_sum_assignment(matrix)[1] for matrix in matrices]
    chosen = np.stack(columns) if columns else np.zeros((0, heads), np.int64)
    return torch.from_numpy(chosen).to(cost.device).view(cost.shape[:-1])


def pair_heads(
    vfm: Float64[Tensor, "*B N k"],
    clip: Float64[Tensor, "*B M k"],
    *,
    matching: Matching = "distant",
    tie_break: float = TIE_BREAK,
    swapped: bool = False,
) -> HeadPairs:
    """Pairs from the leading eigenvalues of both models' heads.

    `swapped` repeats the published code: slot i takes the VFM head with the number of the CLIP head that VFM head i was
    assigned to, at the weight of that pair. It means what the paper says only for pairings that are their own inverse.
    """
    num_vfm, num_clip = vfm.shape[-2], clip.shape[-2]
    if num_vfm != num_clip:
        raise ShapeError(
            f"{num_vfm} VFM heads cannot be paired one to one with {num_clip} heads of the other model; "
            "choose checkpoints with equally many heads (12 in ViT-B of CLIP, DINO, DINOv2 and SigLIP 2)"
        )
    cost = (1 - spectral_distance(vfm, clip)).float()
    clip_head = assign(cost, matching=matching, tie_break=tie_break)
    weight = 1 - cost.gather(-1, clip_head[..., None])[..., 0]  # of each VFM head's pair
    if swapped:
        return HeadPairs(cost=cost, clip_head=clip_head, vfm_head=clip_head, distance=weight)
    vfm_head = clip_head.argsort(dim=-1)
    return HeadPairs(cost=cost, clip_head=clip_head, vfm_head=vfm_head, distance=weight.gather(-1, vfm_head))


def take_heads(
    per_head: Float[Tensor, "*B N P Q"], heads: Int64[Tensor, "*B N"]
) -> Float[Tensor, "*B N P Q"]:
    """What stands at each of the heads, in their order."""
    num_heads = heads.shape[-1]
    rows = heads.reshape(-1, num_heads)
    firsts = num_heads * torch.arange(len(rows), device=heads.device)
    flat = per_head.reshape(-1, *per_head.shape[-2:])
    return flat.index_select(0, (rows + firsts[:, None]).flatten()).view(per_head.shape)
