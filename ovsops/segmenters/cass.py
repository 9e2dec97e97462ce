"""CASS: CLIP patches that attend by a vision foundation model's object graphs, and text that looks at the image.

Axes: V views of one image, B views of several, P patches, Q queries, E text space, h w pixels. Source: CASS
(arXiv:2411.17150) and its code at commit 228ecdd. What the code does once a window is done once where it belongs: the
image's own embedding once an image and without the VFM, the clusters once a vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from ovsops.backbones.checkpoint import resolve
from ovsops.backbones.clip import ClipHidden
from ovsops.backbones.dino import VfmKeys, load_vfm
from ovsops.backbones.vlm import VisionTower, load_vision_tower
from ovsops.errors import CheckpointError, ConfigError
from ovsops.segmenters.build import tensor_dtype
from ovsops.segmenters.cass_config import CassConfig
from ovsops.segmenters.cass_features import CassFeatures, dense_patches, image_logits
from ovsops.segmenters.cass_views import vfm_pixels
from ovsops.segmenters.fitting import check_depth, check_paired_heads
from ovsops.segmenters.prompt_tree import ward_clusters
from ovsops.segmenters.queries import QueryTextFeatures, compute_query_features
from ovsops.segmenters.query_segmenter import QuerySegmenter, see_by_size
from ovsops.segmenters.views import ViewPlan, in_whole_patches, resize
from ovsops.text.vocabulary import Vocabulary


class CassSegmenter(QuerySegmenter):
    """CLIP or SigLIP 2 with the graphs of DINO or DINOv2."""

    def __init__(
        self,
        config: CassConfig,
        text: QueryTextFeatures,
        clip: VisionTower,
        vfm: VfmKeys,
        *,
        prior_clip: VisionTower | None = None,
        device: str,
    ) -> None:
        super().__init__(config, text, patch_size=clip.patch_size, device=device)
        self.cass = config
        self.clip, self.vfm, self.prior_clip = clip, vfm, prior_clip
        _check_towers(clip, vfm, prior_clip, text)
        self.clusters = ward_clusters(self.text.queries, threshold=config.cluster_threshold)

    @torch.inference_mode()
    def similarity(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], plans: Sequence[ViewPlan]
    ) -> list[Float[Tensor, "_ Q _ _"]]:
        """Similarities of the patches with each view's own text, mixed with the prior."""
        return [
            image_logits(features, self.text, self.clusters, self.cass).unflatten(2, features.grid)
            for features in self.encode(images, plans)
        ]

    @torch.inference_mode()
    def encode(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], plans: Sequence[ViewPlan]
    ) -> list[CassFeatures]:
        """Features of each image; views of one size run together, whichever image they belong to."""
        limit = self.config.views_per_batch
        pairs = list(zip(images, plans, strict=True))
        views = {place: self.views(image, plan) for place, (image, plan) in enumerate(pairs)}
        own = {
            i for i, plan in enumerate(plans) if self.cass.prior_from == "window" or len(plan.windows) == 1
        }
        at_once = own if self.prior_clip is None else set()
        found = see_by_size({i: views[i] for i in at_once}, self._see, limit=limit)
        rest = {i: pair for i, pair in enumerate(pairs) if i not in at_once}
        dense = see_by_size({i: views[i] for i in rest}, self._see_patches, limit=limit)
        seen = {i: self._seen_by_prior(image, plan, whole=i not in own) for i, (image, plan) in rest.items()}
        pictures = see_by_size(seen, self._see_picture, limit=limit)
        found |= {i: dense[i] + pictures[i] for i in rest}
        return [
            CassFeatures(patches=patches, pictures=picture, grid=self._grid(views[i]))
            for i, (patches, picture) in sorted(found.items())
        ]

    def _seen_by_prior(
        self, image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan, *, whole: bool
    ) -> Float[Tensor, "V 3 h2 w2"]:
        """The resized image, or its windows, in whole patches of the tower of the prior."""
        patch = (self.prior_clip or self.clip).patch_size
        if not whole:
            return self.views(image, plan, patch_size=patch)
        return in_whole_patches(resize(image, plan.canvas_hw)[None], patch=patch, mode=self.config.mode)

    def _see(self, views: Float[Tensor, "B 3 h w"]) -> tuple[Tensor, ...]:
        """Unit patches and the unit picture of each view."""
        hidden = self._hidden(self.clip, views, num_blocks=self.clip.num_layers)
        return self._patches(views, hidden.blocks[-2], hidden.grid), _picture(self.clip, hidden)

    def _see_patches(self, views: Float[Tensor, "B 3 h w"]) -> tuple[Tensor, ...]:
        """Unit patches of each view; the last block stays out."""
        hidden = self._hidden(self.clip, views, num_blocks=self.clip.num_layers - 1)
        return (self._patches(views, hidden.blocks[-1], hidden.grid),)

    def _see_picture(self, views: Float[Tensor, "B 3 h w"]) -> tuple[Tensor, ...]:
        """The unit picture of each view; the VFM stays out."""
        tower = self.prior_clip or self.clip
        return (_picture(tower, self._hidden(tower, views, num_blocks=tower.num_layers)),)

    def _hidden(self, tower: VisionTower, views: Float[Tensor, "B 3 h w"], *, num_blocks: int) -> ClipHidden:
        return tower.encode(views.to(self.device), position=self.config.position, num_blocks=num_blocks)

    def _patches(
        self, views: Float[Tensor, "B 3 h w"], hidden: Float[Tensor, "B T D"], grid: tuple[int, int]
    ) -> Float[Tensor, "B P E"]:
        config = self.cass
        seen = vfm_pixels(views, patch=self.vfm.patch_size, side=config.vfm_side, mode=config.mode)
        keys = self.vfm.last_keys(seen.to(self.device), position=config.position)
        return dense_patches(
            self.clip, hidden, keys, grid, config.distillation, locality_std=config.locality_std
        ).patches

    def _grid(self, views: Float[Tensor, "V 3 h w"]) -> tuple[int, int]:
        return views.shape[-2] // self.patch_size, views.shape[-1] // self.patch_size


def _picture(tower: VisionTower, hidden: ClipHidden) -> Float[Tensor, "B E"]:
    return F.normalize(tower.image_embedding(hidden.blocks).float(), dim=-1)


def compute_cass_text(
    config: CassConfig,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    cache_dir: Path | None = None,
) -> QueryTextFeatures:
    """A query for every prompt of every class and of the background; where `prior_clip` gives the prior, in its text
    space, too.
    """
    options: dict[str, Any] = {"device": device, "dtype": dtype, "cache_dir": cache_dir}
    text = compute_query_features(config.clip, vocabulary, languages, **options)
    if config.prior_clip is None:
        return text
    prior = compute_query_features(config.prior_clip, vocabulary, languages, **options)
    return replace(
        text, picture_queries=prior.queries, identity=f"{text.identity}, of the prior {prior.identity}"
    )


def build_cass(
    config: CassConfig,
    vocabulary: Vocabulary,
    text: QueryTextFeatures,
    *,
    device: str = "cpu",
    dtype: str = "auto",
) -> CassSegmenter:
    """Load the towers and check that they, the vocabulary and its queries belong together."""
    if text.class_ids != vocabulary.ids:
        raise ConfigError(
            f"vocabulary {vocabulary.name}: its ids are not those of the text features; compute them again"
        )
    number = tensor_dtype(dtype, device=device)
    clip = load_vision_tower(resolve(config.clip), device=device, dtype=number)
    vfm = load_vfm(resolve(config.vfm), device=device, dtype=number)
    prior = None
    if config.prior_clip is not None:
        prior = load_vision_tower(resolve(config.prior_clip), device=device, dtype=number)
    return CassSegmenter(config, text, clip, vfm, prior_clip=prior, device=device)


def _check_towers(
    clip: VisionTower, vfm: VfmKeys, prior: VisionTower | None, text: QueryTextFeatures
) -> None:
    heads = (clip.num_heads, clip.width // clip.num_heads)
    check_paired_heads(clip=heads, vfm=(vfm.num_heads, vfm.head_width))
    check_depth(clip.num_layers)
    if text.queries.shape[1] != clip.text_width:
        raise CheckpointError(
            f"cass: queries have {text.queries.shape[1]} channels, `clip` has {clip.text_width} in text space: "
            "they were not made for each other; compute the text features again"
        )
    seen = None if text.picture_queries is None else text.picture_queries.shape[1]
    if seen != (None if prior is None else prior.text_width):
        raise CheckpointError(
            f"cass: queries of the prior have {seen} channels, `prior_clip` has "
            f"{None if prior is None else prior.text_width} in text space: compute the text features again"
        )
