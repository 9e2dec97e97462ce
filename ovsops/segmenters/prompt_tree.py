"""Clusters of a vocabulary's text, and the text of each cluster's likeliest query moved towards what is seen.

Axes: V views, Q queries, P patches, E text space, C clusters. Source: CASS (arXiv:2411.17150), section 3, and its
code at commit 228ecdd.
"""

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist
from torch import Tensor
from torch.nn import functional as F


def ward_clusters(queries: Float[Tensor, "Q E"], *, threshold: float) -> Int64[Tensor, " Q"]:
    """Cluster of every query, from 0: Ward linkage of cosine distances, cut at the distance `threshold`.

    One query is one cluster; none is none. Distances go to the linkage in condensed form; given a square matrix it
    would take the rows for points.
    """
    count = len(queries)
    if count < 2:
        return torch.zeros(count, dtype=torch.int64, device=queries.device)
    distances = pdist(queries.detach().double().cpu().numpy(), metric="cosine").clip(min=0)
    labels = fcluster(linkage(distances, method="ward"), t=threshold, criterion="distance")
    return torch.from_numpy(labels.astype(np.int64) - 1).to(queries.device)


def likeliest_of_cluster(prior: Float[Tensor, "V Q"], clusters: Int[Tensor, " Q"]) -> Int64[Tensor, "V C"]:
    """In each view the query of each cluster with the largest prior, the first of equals."""
    count = int(clusters.max()) + 1 if len(clusters) else 0
    member = clusters == torch.arange(count, device=clusters.device)[:, None]  # C Q
    return prior[:, None, :].masked_fill(~member, -torch.inf).argmax(dim=-1)


def adjusted_text(
    queries: Float[Tensor, "Q E"],
    patches: Float[Tensor, "V P E"],
    prior: Float[Tensor, "V Q"],
    clusters: Int[Tensor, " Q"],
    *,
    weight: float,
    num_patches: int,
) -> Float[Tensor, "V Q E"]:
    """Text of each view: in each cluster the likeliest query moves by `weight` towards the unit mean of the
    `num_patches` unit patches that are most like it (all of them where a view has fewer); the others stay.
    """
    views = len(patches)
    adjusted = queries.expand(views, -1, -1).clone()
    if not len(queries) or weight == 0:
        return adjusted
    chosen = likeliest_of_cluster(prior, clusters)
    text = queries[chosen]  # V C E
    best = (text @ patches.mT).topk(min(num_patches, patches.shape[1]), dim=-1).indices  # V C n
    seen = patches[torch.arange(views, device=patches.device)[:, None, None], best].mean(dim=2)
    moved = F.normalize((1 - weight) * text + weight * F.normalize(seen, dim=-1), dim=-1)
    return adjusted.scatter_(1, chosen[..., None].expand_as(moved), moved)


def query_logits(
    patches: Float[Tensor, "V P E"],
    text: Float[Tensor, "V Q E"],
    prior: Float[Tensor, "V Q"],
    *,
    prior_weight: float,
) -> Float[Tensor, "V Q P"]:
    """(1 - gamma) times the similarity with the view's text plus gamma times the prior of the unmoved text."""
    return torch.baddbmm(
        prior[..., None].to(patches.dtype), text, patches.mT, beta=prior_weight, alpha=1 - prior_weight
    )
