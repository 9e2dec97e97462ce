"""CASS on the features of one batch or one image: patches in text space, and their similarity with the queries.

Axes: V views of one image, B views of several, T tokens, P patches, H W the VFM's patch grid, Q queries, N heads, D
channels, d channels of a head, E text space. Source: CASS (arXiv:2411.17150) and its code at commit 228ecdd.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ovsops.backbones.vlm import VisionTower
from ovsops.patches.graph_fusion import (
    DistillationSettings,
    Distilled,
    attend,
    distil,
    match_range,
    resize_keys,
)
from ovsops.patches.locality import gaussian_locality
from ovsops.segmenters.cass_config import CassConfig
from ovsops.segmenters.prompt_tree import adjusted_text, query_logits
from ovsops.segmenters.queries import QueryTextFeatures


@dataclass(frozen=True, kw_only=True)
class DensePatches:
    """Patches of a batch of views in text space, and the graphs that they came by."""

    patches: Float[Tensor, "B P E"]
    """Unit."""
    clip_keys: Float[Tensor, "B N P d"]
    vfm_keys: Float[Tensor, "B N P d"]
    """On CLIP's grid and in the range of its keys."""
    distilled: Distilled


@dataclass(frozen=True, kw_only=True)
class CassFeatures:
    """What the towers see in one image."""

    patches: Float[Tensor, "V P E"]
    """Unit, of every view."""
    pictures: Float[Tensor, "W E2"]
    """Unit embeddings that the prior compares queries with, in the text space of the prior's tower: of the image
    (W = 1), or of every view (W = V)."""
    grid: tuple[int, int]
    """Patch grid of a view."""


def dense_patches(
    tower: VisionTower,
    hidden: Float[Tensor, "B T D"],
    vfm_keys: Float[Tensor, "B N H W d"],
    grid: tuple[int, int],
    settings: DistillationSettings,
    *,
    locality_std: float | None,
) -> DensePatches:
    """Patches by CLIP's last block with the fused graphs in the place of its attention.

    `hidden` enters the last block, whose residual and MLP take no part; `grid` is CLIP's patch grid.
    """
    keys, values = tower.last_keys_values(hidden)
    ranged = match_range(resize_keys(vfm_keys, grid), keys.float())
    distilled = distil(ranged, keys, settings)
    locality = None
    if locality_std is not None:
        locality = gaussian_locality(grid, std=locality_std, device=keys.device)
    mixed = attend(distilled.fused, values, locality)
    patches = F.normalize(tower.project(tower.attend_out(mixed)).float(), dim=-1)
    return DensePatches(patches=patches, clip_keys=keys, vfm_keys=ranged, distilled=distilled)


def image_prior(
    pictures: Float[Tensor, "W E"], queries: Float[Tensor, "Q E"], *, num_views: int
) -> Float[Tensor, "V Q"]:
    """Similarity of every query with the picture of each view, or with the image's, which all views share."""
    return (pictures @ queries.T).expand(num_views, -1)


def image_logits(
    features: CassFeatures,
    text: QueryTextFeatures,
    clusters: Int[Tensor, " Q"],
    config: CassConfig,
) -> Float[Tensor, "V Q P"]:
    """Similarity of patches with the view's own text, mixed with the prior; in [-1, 1], before the scale."""
    pictured = text.queries if text.picture_queries is None else text.picture_queries
    prior = image_prior(features.pictures, pictured, num_views=len(features.patches))
    moved = adjusted_text(
        text.queries,
        features.patches,
        prior,
        clusters,
        weight=config.text_weight,
        num_patches=config.text_patches,
    )
    return query_logits(features.patches, moved, prior, prior_weight=config.prior_weight)
