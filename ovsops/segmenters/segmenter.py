"""The segmenter: images in, class maps out, batched over the windows of all images.

Axes: V views, P patches, h w pixels.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ovsops.backbones.dinov2 import Dinov2
from ovsops.backbones.siglip2 import SiglipVision
from ovsops.geometry import Window
from ovsops.masks.class_map import ClassMap
from ovsops.masks.refine import pamr
from ovsops.segmenters.config import SegmenterConfig
from ovsops.segmenters.fused import ViewFeatures, patch_logits, patch_scores
from ovsops.segmenters.labels import Refine, label_pixels
from ovsops.segmenters.similarity import proxy_mixing
from ovsops.segmenters.text_features import ClassTextFeatures
from ovsops.segmenters.views import ViewPlan, cut_views, plan_views, resize


@runtime_checkable
class Segmenter(Protocol):
    """Labels images."""

    def segment(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[ClassMap]:
        """A class map per RGB image, in order; an image's map does not depend on the other images."""


class FusedSegmenter:
    """SigLIP 2 and DINOv2 similarities on one patch grid (`ovsops.segmenters.fused`)."""

    def __init__(
        self,
        config: SegmenterConfig,
        text: ClassTextFeatures,
        dino: Dinov2,
        siglip: SiglipVision | None,
        *,
        device: str,
    ) -> None:
        self.config, self.dino, self.siglip, self.device = config, dino, siglip, device
        self.text = text.to(device)

    @torch.inference_mode()
    def segment(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[ClassMap]:
        """A class map per RGB image, in order."""
        plans = [plan_views((int(image.shape[0]), int(image.shape[1])), self.config) for image in images]
        maps: list[ClassMap] = []
        for first, end in groups_of_views([len(p.windows) for p in plans], limit=self.config.views_per_batch):
            features = self.encode(images[first:end], plans[first:end])
            maps += map(self.label, images[first:end], plans[first:end], features)
        return maps

    @torch.inference_mode()
    def encode(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], plans: Sequence[ViewPlan]
    ) -> list[ViewFeatures]:
        """Features of each image, from batches that hold the windows of several."""
        views = [
            self._views(image, plan, patch_size=self.dino.patch_size)
            for image, plan in zip(images, plans, strict=True)
        ]
        siglip_views = [
            None if self.siglip is None else self._views(image, plan, patch_size=self.siglip.patch_size)
            for image, plan in zip(images, plans, strict=True)
        ]
        dino_pixels = torch.cat(views).split(self.config.views_per_batch)
        siglip_pixels = (
            [None] * len(dino_pixels)
            if self.siglip is None
            else torch.cat([v for v in siglip_views if v is not None]).split(self.config.views_per_batch)
        )
        batches = [self._encode_batch(d, s) for d, s in zip(dino_pixels, siglip_pixels, strict=True)]
        sizes = [len(plan.windows) for plan in plans]
        tokens = torch.cat([b.patch_tokens for b in batches]).split(sizes)
        logits = _split([b.cls_logits for b in batches], sizes)
        aligned = _split([b.aligned for b in batches], sizes)
        return [
            ViewFeatures(patch_tokens=t, cls_logits=c, aligned=a)
            for t, c, a in zip(tokens, logits, aligned, strict=True)
        ]

    def _views(
        self, image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan, *, patch_size: int
    ) -> Float[Tensor, "V 3 s s"]:
        return cut_views(image, plan, side=patch_size * self.config.grid, window=self.config.window)

    def _encode_batch(
        self, dino_pixels: Float[Tensor, "V 3 s s"], siglip_pixels: Float[Tensor, "V 3 t t"] | None
    ) -> ViewFeatures:
        needs_attention = self.config.cleaning is not None or self.config.prior_weight > 0
        dino = self.dino.encode(dino_pixels.to(self.device), with_attention=needs_attention)
        tokens = dino.patch_tokens.flatten(1, 2)
        logits = None if dino.cls_patch_logits is None else dino.cls_patch_logits.flatten(2)
        aligned = None
        if self.siglip is not None and siglip_pixels is not None:
            proxy = self.config.proxy_attention
            mixing = None if proxy is None else proxy_mixing(tokens, beta=proxy.beta, gamma=proxy.gamma)
            hidden = self.siglip.encode(siglip_pixels.to(self.device)).patch_tokens.flatten(1, 2)
            aligned = self.siglip.align(hidden, mixing)
        return ViewFeatures(patch_tokens=tokens, cls_logits=logits, aligned=aligned)

    @torch.inference_mode()
    def label(self, image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan, views: ViewFeatures) -> ClassMap:
        """The class map of an image from its features; cheap beside `encode`, which need not run again when a
        number of the config changes.
        """
        config = self.config
        in_logits = config.mode == "corrected"
        rows = (patch_logits if in_logits else patch_scores)(views, self.text, config)
        labels, best = label_pixels(
            rows.unflatten(2, (config.grid, config.grid)),
            plan,
            num_classes=self.text.num_classes,
            threshold=_logit(config.threshold) if in_logits else config.threshold,
            mode=config.mode,
            class_chunk=config.class_chunk,
            refine=self._refiner(image, plan),
        )
        scores = best.sigmoid() if in_logits else best
        return ClassMap(labels=labels.cpu().numpy().astype(np.uint16), scores=scores.cpu().numpy())

    def _refiner(self, image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan) -> Refine | None:
        config = self.config.refinement
        if config is None:
            return None
        guide = resize(image, plan.canvas_hw).to(self.device)

        def refine(planes: Tensor, window: Window | None) -> Tensor:
            part = guide if window is None else guide[:, window.y1 : window.y2, window.x1 : window.x2]
            return pamr(part[None], planes[None], config)[0]

        return refine


def groups_of_views(num_views: Sequence[int], *, limit: int) -> Iterator[tuple[int, int]]:
    """Runs [first, end) of images with at most `limit` views together, or one image alone.

    What lies in memory is bounded by them, whatever a batch holds.
    """
    first, views = 0, 0
    for place, count in enumerate(num_views):
        if place > first and views + count > limit:
            yield first, place
            first, views = place, 0
        views += count
    if num_views:
        yield first, len(num_views)


def _logit(share: float) -> float:
    """Log odds of a share; infinite at 0 and 1."""
    if share in (0, 1):
        return -math.inf if share == 0 else math.inf
    return math.log(share / (1 - share))


def _split(batches: Sequence[Tensor | None], sizes: Sequence[int]) -> Sequence[Tensor | None]:
    present = [b for b in batches if b is not None]
    return torch.cat(present).split(list(sizes)) if present else [None] * len(sizes)
