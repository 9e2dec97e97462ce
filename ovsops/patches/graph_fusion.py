"""Spectral object-level distillation: the VFM's graphs, cleaned to low rank, fused into CLIP's. Source: CASS
(arXiv:2411.17150) and its code at commit 228ecdd.

Axes: B views, N heads, P patches, H W patch grid, d channels of a head.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ovsops.patches.head_matching import TIE_BREAK, HeadPairs, Matching, pair_heads, take_heads
from ovsops.patches.low_rank import EIGENSCALE, low_rank_graph
from ovsops.patches.spectra import Eigenpairs, eigenpairs, eigenvalues, graph, leading

_FLAT = 1e-6
"""Range over the largest absolute value below which numbers count as constant."""


@dataclass(frozen=True, kw_only=True)
class DistillationSettings:
    """The numbers of the fusion. The defaults are the corrected form; `published` is the code's."""

    num_eigenvalues: int = 20
    """Largest eigenvalues of a head's spectrum that are compared."""
    matching: Matching = "distant"
    """Which heads go together."""
    tie_break: float = TIE_BREAK
    """Weight that decides between pairings of equal cost; 0 leaves them to rounding."""
    swapped: bool = False
    """Pairs taken the wrong way round, as the published code does."""
    rank: int = 10
    """Eigenpairs that are kept; with `energy`, the first number tried."""
    energy: float | None = 0.95
    """Share of the spectrum that the kept pairs must hold; None keeps `rank` pairs, as the published code does."""
    rank_step: int = 5
    """By how much the rank grows until it holds the energy."""
    eigenscale: float | None = EIGENSCALE
    """Strength of the stretching of eigenvalues; None is off."""
    factor: float = 10.0
    """The VFM graph weighs this times the distance of the pair, the CLIP graph 1; 0 leaves the VFM out."""


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """Fused graphs and the pairing that made them."""

    fused: Float[Tensor, "B N P P"]
    """Before locality and softmax; one graph a CLIP head."""
    pairs: HeadPairs


def resize_keys(keys: Float[Tensor, "B N H W d"], grid: tuple[int, int]) -> Float[Tensor, "B N P d"]:
    """Keys on another patch grid, bilinear between patch centres."""
    batch, heads, height, width, channels = keys.shape
    if (height, width) == tuple(grid):
        return keys.flatten(2, 3).float()
    planes = keys.float().permute(0, 1, 4, 2, 3).reshape(batch, heads * channels, height, width)
    resized = F.interpolate(planes, size=list(grid), mode="bilinear", align_corners=False)
    return resized.view(batch, heads, channels, -1).mT.contiguous()  # B N P d


def match_range(
    keys: Float[Tensor, "B N P d"], reference: Float[Tensor, "B N P d"]
) -> Float[Tensor, "B N P d"]:
    """Keys moved to the range of the reference's, one range over all heads of a view.

    Constant keys say nothing about patches: they become zeros, and their graphs count as flat.
    """
    dims = (1, 2, 3)
    low, high = keys.amin(dim=dims, keepdim=True), keys.amax(dim=dims, keepdim=True)
    floor, ceiling = reference.amin(dim=dims, keepdim=True), reference.amax(dim=dims, keepdim=True)
    flat = _is_flat(low, high)
    share = (keys - low) / torch.where(flat, 1, high - low)
    return torch.where(flat, 0, share * (ceiling - floor) + floor)


def fuse_graphs(
    vfm: Float[Tensor, "*B P P"], clip: Float[Tensor, "*B P P"], weight: Float[Tensor, "*B"]
) -> Float[Tensor, "*B P P"]:
    """(w V + A) / (w + 1), where V is the VFM graph with a zero diagonal, moved to the range of the CLIP graph A.

    A VFM graph that is constant once its diagonal is zero (one patch, keys of zeros) has no range: A stays as it is.
    """
    return _fuse_in_place(vfm.clone(), clip, weight)


def distil(
    vfm_keys: Float[Tensor, "B N P d"], clip_keys: Float[Tensor, "B N P d"], settings: DistillationSettings
) -> Distilled:
    """Fused graphs of every CLIP head of every view.

    Takes keys on one grid and in one range (`resize_keys`, `match_range`). A view's result does not depend on the
    others. Raises `ShapeError` when the numbers of heads differ.
    """
    fixed = None if settings.energy is not None else settings.rank
    pairs_of_vfm = eigenpairs(vfm_keys, num_vectors=fixed)
    pairs = pair_heads(
        leading(pairs_of_vfm.values, settings.num_eigenvalues),
        leading(eigenvalues(clip_keys), settings.num_eigenvalues),
        matching=settings.matching,
        tie_break=settings.tie_break,
        swapped=settings.swapped,
    )
    vfm_graphs = low_rank_graph(
        _of_heads(pairs_of_vfm, pairs),
        rank=settings.rank,
        energy=settings.energy,
        step=settings.rank_step,
        strength=settings.eigenscale,
    )
    fused = _fuse_in_place(vfm_graphs, graph(clip_keys), settings.factor * pairs.distance)
    return Distilled(fused=fused, pairs=pairs)


def attend(
    fused: Float[Tensor, "B N P P"], values: Float[Tensor, "B N P d"], locality: Float[Tensor, "P P"] | None
) -> Float[Tensor, "B P D"]:
    """softmax(fused + locality) times the values, heads side by side."""
    weights = (fused if locality is None else fused + locality).softmax(dim=-1)
    return (weights @ values.float()).transpose(1, 2).flatten(2)


def _fuse_in_place(
    vfm: Float[Tensor, "*B P P"], clip: Float[Tensor, "*B P P"], weight: Float[Tensor, "*B"]
) -> Float[Tensor, "*B P P"]:
    """`fuse_graphs` that writes over the VFM graphs: at 441 patches a copy costs as much as all of the arithmetic."""
    if not vfm.numel():
        return vfm
    vfm.diagonal(dim1=-2, dim2=-1).zero_()
    low, high = vfm.amin(dim=(-2, -1)), vfm.amax(dim=(-2, -1))  # aminmax over rows is ten times slower
    floor, ceiling = clip.amin(dim=(-2, -1)), clip.amax(dim=(-2, -1))
    flat = _is_flat(low, high)
    share = torch.where(flat, 0, weight / (weight + 1))
    slope = share * (ceiling - floor) / torch.where(flat, 1, high - low)
    shift = share * floor - slope * low
    fused = vfm.mul_(slope[..., None, None]).add_(shift[..., None, None])
    return fused.addcmul_(clip, (1 - share)[..., None, None])


def _of_heads(found: Eigenpairs, pairs: HeadPairs) -> Eigenpairs:
    """Eigenpairs in the order of the CLIP heads that they go into: cheaper to move than whole graphs."""
    return Eigenpairs(
        values=found.values.gather(-2, pairs.vfm_head[..., None].expand(found.values.shape)),
        vectors=take_heads(found.vectors, pairs.vfm_head),
    )


def _is_flat(low: Tensor, high: Tensor) -> Tensor:
    return high - low <= _FLAT * torch.maximum(low.abs(), high.abs())
