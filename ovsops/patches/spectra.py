"""Spectra of attention graphs from their keys, without the graphs.

Axes: *B views, N heads, P patches, d channels of a head, k eigenvalues. A head's graph is A = K Kᵀ d^-1/2. Its
eigenvalues other than 0 are those of Kᵀ K d^-1/2, a matrix of d x d instead of P x P, and its eigenvectors are
K v / |K v|. Source: CASS (arXiv:2411.17150), section 3, and its code at commit 228ecdd, which decomposes the P x P
graphs one by one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional as F

_ZERO = 1e-12
"""Share of the largest eigenvalue below which one counts as 0: its eigenvector would be rounding noise."""


@dataclass(frozen=True, kw_only=True)
class Eigenpairs:
    """The eigenpairs of graphs that need not be 0, largest first."""

    values: Float64[Tensor, "*B k"]
    """0 or more."""
    vectors: Float[Tensor, "*B P n"]
    """Unit columns of the first n; zeros where the eigenvalue counts as 0."""


def graph(keys: Float[Tensor, "*B P d"]) -> Float[Tensor, "*B P P"]:
    """A = K Kᵀ d^-1/2."""
    scaled = keys.float() * keys.shape[-1] ** -0.5
    return scaled @ keys.float().mT


def eigenvalues(keys: Float[Tensor, "*B P d"]) -> Float64[Tensor, "*B k"]:
    """The min(P, d) largest eigenvalues of each graph, descending; the rest are 0."""
    return torch.linalg.eigvalsh(_small_gram(keys)).flip(-1).clamp_min(0)


def eigenpairs(keys: Float[Tensor, "*B P d"], *, num_vectors: int | None = None) -> Eigenpairs:
    """The min(P, d) leading eigenvalues of each graph, and the vectors of all or of the first `num_vectors`, from one
    batched decomposition.

    Eigenvalues are float64. Vectors of the d x d form are brought back to patches in the keys' precision, float32 at
    least.
    """
    values, vectors = torch.linalg.eigh(_small_gram(keys))
    values, vectors = values.flip(-1).clamp_min(0), vectors.flip(-1)[..., :num_vectors]
    num_patches, head_width = keys.shape[-2:]
    exact = keys if keys.dtype == torch.float64 else keys.float()
    if num_patches < head_width:
        return Eigenpairs(values=values, vectors=vectors.to(exact.dtype))
    lengths = (values[..., :num_vectors] * head_width**0.5).sqrt()  # |K v|
    kept = values[..., :num_vectors] > _ZERO * values[..., :1]
    inverse = torch.where(kept, 1 / torch.where(kept, lengths, 1), 0)
    return Eigenpairs(values=values, vectors=exact @ (vectors * inverse[..., None, :]).to(exact.dtype))


def eigenpairs_of_graphs(graphs: Float[Tensor, "*B P P"]) -> Eigenpairs:
    """All eigenpairs of symmetric, positive semi-definite graphs whose keys are not at hand."""
    values, vectors = torch.linalg.eigh(graphs.double())
    return Eigenpairs(values=values.flip(-1).clamp_min(0), vectors=vectors.flip(-1))


def leading(values: Float[Tensor, "*B n"], count: int) -> Float[Tensor, "*B k"]:
    """The first `count` eigenvalues; zeros where a graph has fewer."""
    present = values[..., :count]
    return F.pad(present, (0, count - present.shape[-1]))


def _small_gram(keys: Float[Tensor, "*B P d"]) -> Float64[Tensor, "*B m m"]:
    """Kᵀ K or K Kᵀ, whichever is smaller, times d^-1/2."""
    exact = keys.double()
    num_patches, head_width = keys.shape[-2:]
    gram = exact.mT @ exact if num_patches >= head_width else exact @ exact.mT
    return gram * head_width**-0.5
