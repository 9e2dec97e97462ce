"""Similarities between text and patches, and how the two streams join.

Axes: V views of one image, R text rows, P patches, D channels.

Every function treats an image by itself: nothing here may depend on other images of a batch, and a row's
similarity never depends on which other rows there are.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ovsops.mapper.alignment import head_embeddings, unit


def patch_similarity(text: Float[Tensor, "R D"], patches: Float[Tensor, "V P D"]) -> Float[Tensor, "V R P"]:
    """Cosine of each row with each patch."""
    return torch.einsum("vpd,rd->vrp", unit(patches, eps=1e-6), unit(text, eps=1e-6))


def proxy_mixing(
    patch_tokens: Float[Tensor, "V P D"], *, beta: float, gamma: float
) -> Float[Tensor, "V P P"]:
    """Rows of weights by which SigLIP's values are mixed: softmax of gamma (s - beta mean s), s the
    affinity of DINO patches.

    After ProxyCLIP (ECCV 2024), with its two faults mended: the mean is that of this view, not of the
    batch, and a patch always keeps itself, because a flat image has mean(s) > 1 / beta, which would leave
    its rows empty.
    """
    tokens = unit(patch_tokens, eps=1e-6)
    affinity = tokens @ tokens.transpose(1, 2)
    lead = affinity - beta * affinity.mean(dim=(1, 2), keepdim=True)
    itself = torch.eye(affinity.shape[1], dtype=torch.bool, device=affinity.device)
    return (gamma * lead).masked_fill((lead < 0) & ~itself, -torch.inf).softmax(dim=-1)


def fuse(
    dino: Float[Tensor, "V R P"],
    siglip: Float[Tensor, "V R P"] | None,
    *,
    alpha: float,
    siglip_scale: float,
    siglip_shift: float,
) -> Float[Tensor, "V R P"]:
    """alpha S_dino + (1 - alpha)(kappa S_siglip + c), with constants from calibration.

    Standardising per image instead would let every new class move all scores; constants keep a score's
    meaning the same everywhere in a corpus.
    """
    if siglip is None or alpha == 1:
        return dino
    return alpha * dino + (1 - alpha) * (siglip_scale * siglip + siglip_shift)


def class_prior(
    text: Float[Tensor, "R D"], patch_tokens: Float[Tensor, "V P D"], cls_logits: Float[Tensor, "V N P"]
) -> Float[Tensor, " R"]:
    """G_j: cosine of the row with the head of this image that is closest to it.

    A maximum over heads is biased upward for classes that are absent: it cannot say where a class is, only
    move which class wins. That is why its weight is 0 by default.
    """
    heads = head_embeddings(patch_tokens, cls_logits)
    cosines = torch.einsum("rd,vnd->rvn", unit(text), unit(heads))
    return cosines.amax(dim=(1, 2))


def with_prior(
    similarity: Float[Tensor, "V R P"], prior: Float[Tensor, " R"], *, weight: float, center: float
) -> Float[Tensor, "V R P"]:
    """(1 - omega) S + omega (G - c_G).

    The centre is a constant: the vocabulary's mean would tie rows together.
    """
    return (1 - weight) * similarity + weight * (prior - center)[None, :, None]


def with_negatives(
    similarity: Float[Tensor, "V C P"],
    negatives: Float[Tensor, "V G P"],
    owner: Int[Tensor, " G"],
    *,
    weight: float,
) -> Float[Tensor, "V C P"]:
    """Similarity lowered where one of the class's own negative prompts beats it:

    S - weight * max(0, max_n S_n - S).

    At weight 1 a negative that leads by d costs the class d, so the change is continuous at the border.
    Classes without negatives, and pixels where the negative loses, keep their similarity exactly.
    """
    if not len(owner) or weight == 0:
        return similarity
    best = torch.full_like(similarity, -torch.inf)
    best.scatter_reduce_(1, owner[None, :, None].expand_as(negatives), negatives, reduce="amax")
    return similarity - weight * (best - similarity).clamp_min(0)
