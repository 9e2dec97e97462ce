"""CASS: CLIP patches that attend by a vision foundation model's object graphs, and text that looks at the image.

Axes: V views of one image, B views of several, P patches, Q queries, E text space, h w pixels. Source: CASS
(arXiv:2411.17150) and its code at commit 228ecdd. What the code does once a window is done once where it belongs: the
image's own embedding once an image and without the VFM, the clusters once a vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

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
from ovsops.masks.class_map import ClassMap
from ovsops.segmenters.build import tensor_dtype
from ovsops.segmenters.cass_config import CassConfig
from ovsops.segmenters.cass_features import CassFeatures, dense_patches, image_logits
from ovsops.segmenters.cass_views import cut_windows, in_whole_patches, squashed, vfm_pixels
from ovsops.segmenters.prompt_tree import ward_clusters
from ovsops.segmenters.queries import QueryTextFeatures, compute_query_features
from ovsops.segmenters.query_labels import label_queries
from ovsops.segmenters.segmenter import groups_of_views
from ovsops.segmenters.views import ViewPlan, plan_views, resize
from ovsops.text.vocabulary import Vocabulary


class CassSegmenter:
    """CLIP or SigLIP 2 with the graphs of DINO or DINOv2."""

    def __init__(
        self, config: CassConfig, text: QueryTextFeatures, clip: VisionTower, vfm: VfmKeys, *, device: str
    ) -> None:
        _check_towers(clip, vfm, text)
        self.config, self.clip, self.vfm, self.device = config, clip, vfm, device
        self.text = text.to(device)
        self.clusters = ward_clusters(self.text.queries, threshold=config.cluster_threshold)

    @torch.inference_mode()
    def segment(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[ClassMap]:
        """A class map per RGB image, in order; an image's map does not depend on the others."""
        plans = [plan_views((int(image.shape[0]), int(image.shape[1])), self.config) for image in images]
        maps: list[ClassMap] = []
        for first, end in groups_of_views([len(p.windows) for p in plans], limit=self.config.views_per_batch):
            features = self.encode(images[first:end], plans[first:end])
            maps += map(self.label, plans[first:end], features)
        return maps

    @torch.inference_mode()
    def encode(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], plans: Sequence[ViewPlan]
    ) -> list[CassFeatures]:
        """Features of each image; views of one size run together, whichever image they belong to."""
        limit = self.config.views_per_batch
        views = {
            place: self._views(image, plan)
            for place, (image, plan) in enumerate(zip(images, plans, strict=True))
        }
        own = {
            i for i, plan in enumerate(plans) if self.config.prior_from == "window" or len(plan.windows) == 1
        }
        found = _by_size({i: views[i] for i in views if i in own}, self._see, limit=limit)
        dense = _by_size({i: views[i] for i in views if i not in own}, self._see_patches, limit=limit)
        whole = {i: self._whole(images[i], plans[i]) for i in dense}
        pictures = _by_size(whole, self._see_picture, limit=limit)
        found |= {i: dense[i] + pictures[i] for i in dense}
        return [
            CassFeatures(patches=patches, pictures=picture, grid=self._grid(views[i]))
            for i, (patches, picture) in sorted(found.items())
        ]

    @torch.inference_mode()
    def label(self, plan: ViewPlan, features: CassFeatures) -> ClassMap:
        """The class map of an image from its features; cheap beside `encode`, which need not run again when
        only the text or a number of the labelling changes.
        """
        logits = image_logits(features, self.text.queries, self.clusters, self.config)
        labels, scores = label_queries(
            logits.unflatten(2, features.grid),
            self.text.query_class,
            plan,
            logit_scale=self.config.logit_scale,
            prob_threshold=self.config.prob_threshold,
            class_chunk=self.config.class_chunk,
        )
        return ClassMap(labels=labels.cpu().numpy().astype(np.uint16), scores=scores.cpu().numpy())

    def _views(self, image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan) -> Float[Tensor, "V 3 h2 w2"]:
        config, patch = self.config, self.clip.patch_size
        if config.views == "squash":
            return squashed(image, side=config.window, patch=patch)
        return cut_windows(image, plan, patch=patch, mode=config.mode)

    def _whole(self, image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan) -> Float[Tensor, "1 3 h2 w2"]:
        canvas = resize(image, plan.canvas_hw)[None]
        return in_whole_patches(canvas, patch=self.clip.patch_size, mode=self.config.mode)

    def _see(self, views: Float[Tensor, "B 3 h w"]) -> tuple[Tensor, ...]:
        """Unit patches and the unit picture of each view."""
        hidden = self._hidden(views, num_blocks=self.clip.num_layers)
        return self._patches(views, hidden.blocks[-2], hidden.grid), self._picture(hidden)

    def _see_patches(self, views: Float[Tensor, "B 3 h w"]) -> tuple[Tensor, ...]:
        """Unit patches of each view; the last block stays out."""
        hidden = self._hidden(views, num_blocks=self.clip.num_layers - 1)
        return (self._patches(views, hidden.blocks[-1], hidden.grid),)

    def _see_picture(self, views: Float[Tensor, "B 3 h w"]) -> tuple[Tensor, ...]:
        """The unit picture of each view; the VFM stays out."""
        return (self._picture(self._hidden(views, num_blocks=self.clip.num_layers)),)

    def _hidden(self, views: Float[Tensor, "B 3 h w"], *, num_blocks: int) -> ClipHidden:
        return self.clip.encode(views.to(self.device), position=self._position, num_blocks=num_blocks)

    def _picture(self, hidden: ClipHidden) -> Float[Tensor, "B E"]:
        return F.normalize(self.clip.image_embedding(hidden.blocks).float(), dim=-1)

    def _patches(
        self, views: Float[Tensor, "B 3 h w"], hidden: Float[Tensor, "B T D"], grid: tuple[int, int]
    ) -> Float[Tensor, "B P E"]:
        config = self.config
        seen = vfm_pixels(views, patch=self.vfm.patch_size, side=config.vfm_side, mode=config.mode)
        keys = self.vfm.last_keys(seen.to(self.device), position=self._position)
        return dense_patches(
            self.clip, hidden, keys, grid, config.distillation, locality_std=config.locality_std
        ).patches

    @property
    def _position(self) -> Literal["upstream", "native"]:
        return "upstream" if self.config.mode == "upstream" else "native"

    def _grid(self, views: Float[Tensor, "V 3 h w"]) -> tuple[int, int]:
        return views.shape[-2] // self.clip.patch_size, views.shape[-1] // self.clip.patch_size


def compute_cass_text(
    config: CassConfig,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    cache_dir: Path | None = None,
) -> QueryTextFeatures:
    """A query for every prompt of every class and of the background."""
    return compute_query_features(
        config.clip, vocabulary, languages, device=device, dtype=dtype, cache_dir=cache_dir
    )


def build_cass(
    config: CassConfig,
    vocabulary: Vocabulary,
    text: QueryTextFeatures,
    *,
    device: str = "cpu",
    dtype: str = "auto",
) -> CassSegmenter:
    """Load both towers and check that they, the vocabulary and its queries belong together."""
    if text.class_ids != vocabulary.ids:
        raise ConfigError(
            f"vocabulary {vocabulary.name}: its ids are not those of the text features; compute them again"
        )
    number = tensor_dtype(dtype, device=device)
    clip = load_vision_tower(resolve(config.clip), device=device, dtype=number)
    vfm = load_vfm(resolve(config.vfm), device=device, dtype=number)
    return CassSegmenter(config, text, clip, vfm, device=device)


def _check_towers(clip: VisionTower, vfm: VfmKeys, text: QueryTextFeatures) -> None:
    width = clip.width // clip.num_heads
    if (clip.num_heads, width) != (vfm.num_heads, vfm.head_width):
        raise CheckpointError(
            f"cass: `clip` has {clip.num_heads} heads of {width} channels, `vfm` has {vfm.num_heads} of "
            f"{vfm.head_width}, and heads are paired one to one; choose towers of one shape, such as ViT-B (12 heads "
            "of 64) of CLIP B/16 or SigLIP 2 base with DINO B/8 or DINOv2 base"
        )
    if clip.num_layers < 2:
        raise CheckpointError(
            f"cass: `clip` has {clip.num_layers} block; what enters its last block is needed"
        )
    if text.queries.shape[1] != clip.text_width:
        raise CheckpointError(
            f"cass: queries have {text.queries.shape[1]} channels, `clip` has {clip.text_width} in text space: "
            "they were not made for each other; compute the text features again"
        )


def _by_size(
    views: Mapping[int, Float[Tensor, "_ 3 _ _"]],
    see: Callable[[Tensor], tuple[Tensor, ...]],
    *,
    limit: int,
) -> dict[int, tuple[Tensor, ...]]:
    """What `see` makes of each image's views, run on views of one size, at most `limit` together."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for place, pixels in views.items():
        by_size.setdefault(tuple(pixels.shape[-2:]), []).append(place)
    found: dict[int, tuple[Tensor, ...]] = {}
    for places in by_size.values():
        batches = [see(batch) for batch in torch.cat([views[i] for i in places]).split(limit)]
        counts = [len(views[i]) for i in places]
        parts = [torch.cat(same).split(counts) for same in zip(*batches, strict=True)]
        found |= dict(zip(places, zip(*parts, strict=True), strict=True))
    return found
