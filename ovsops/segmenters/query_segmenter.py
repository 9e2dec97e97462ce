"""The loop of segmenters that compare patches with queries: images in, class maps out, batched over windows.

Axes: B V views, H W patch grid, Q queries, E text space, h w pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ovsops.errors import CheckpointError, ConfigError
from ovsops.masks.class_map import ClassMap
from ovsops.segmenters.queries import QueryTextFeatures
from ovsops.segmenters.query_config import QuerySegmenterConfig
from ovsops.segmenters.query_labels import label_queries
from ovsops.segmenters.refinement import refined_similarity
from ovsops.segmenters.segmenter import groups_of_views
from ovsops.segmenters.views import ViewPlan, plan_views, window_views
from ovsops.text.vocabulary import Vocabulary

DenseEncoder = Callable[[Float[Tensor, "B 3 h w"]], Float[Tensor, "B H W E"]]
"""RGB views in 0..255 to unit patch features in text space; a view's features never depend on other views."""


class QuerySegmenter(ABC):
    """Windows that keep their shape, similarities of their patches with the queries, labels."""

    def __init__(
        self, config: QuerySegmenterConfig, text: QueryTextFeatures, *, patch_size: int, device: str
    ) -> None:
        self.config, self.patch_size, self.device = config, patch_size, device
        self.text = text.to(device)

    @torch.inference_mode()
    def segment(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[ClassMap]:
        """A class map per RGB image, in order; an image's map does not depend on the other images."""
        plans = [plan_views((int(image.shape[0]), int(image.shape[1])), self.config) for image in images]
        maps: list[ClassMap] = []
        for first, end in groups_of_views([len(p.windows) for p in plans], limit=self.config.views_per_batch):
            similarity = self.similarity(images[first:end], plans[first:end])
            maps += map(self.label, images[first:end], plans[first:end], similarity)
        return maps

    @abstractmethod
    def similarity(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], plans: Sequence[ViewPlan]
    ) -> list[Float[Tensor, "_ Q _ _"]]:
        """Similarities of the patches of each image's windows with the queries, before the scale."""

    @torch.inference_mode()
    def label(
        self, image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan, similarity: Float[Tensor, "V Q H W"]
    ) -> ClassMap:
        """The class map of an image from its similarities; cheap beside `similarity`, which need not run again when a
        threshold changes.
        """
        config = self.config
        if config.refinement is not None:
            similarity, plan = refined_similarity(
                image, plan, similarity, config.refinement, mode=config.mode
            )
        labels, scores = label_queries(
            similarity,
            self.text.query_class,
            plan,
            logit_scale=config.logit_scale,
            prob_threshold=config.prob_threshold,
            area_threshold=config.area_threshold,
            class_chunk=config.class_chunk,
        )
        return ClassMap(labels=labels.cpu().numpy().astype(np.uint16), scores=scores.cpu().numpy())

    def views(
        self, image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan, *, patch_size: int | None = None
    ) -> Float[Tensor, "V 3 h2 w2"]:
        """The image's windows in whole patches of the tower, or of another one."""
        return window_views(
            image, plan, self.config, patch=patch_size or self.patch_size, mode=self.config.mode
        )


class DenseSegmenter(QuerySegmenter):
    """A tower's dense features, and their cosines with the queries."""

    def __init__(
        self,
        config: QuerySegmenterConfig,
        text: QueryTextFeatures,
        encode: DenseEncoder,
        *,
        patch_size: int,
        device: str,
    ) -> None:
        super().__init__(config, text, patch_size=patch_size, device=device)
        self.encode = encode

    @torch.inference_mode()
    def similarity(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], plans: Sequence[ViewPlan]
    ) -> list[Float[Tensor, "_ Q _ _"]]:
        """Cosines of each image's patches with the queries, from batches that hold the windows of several."""

        def see(pixels: Float[Tensor, "B 3 h w"]) -> tuple[Tensor, ...]:
            return (torch.einsum("bhwe,qe->bqhw", self.encode(pixels.to(self.device)), self.text.queries),)

        views = {
            place: self.views(image, plan)
            for place, (image, plan) in enumerate(zip(images, plans, strict=True))
        }
        found = see_by_size(views, see, limit=self.config.views_per_batch)
        return [found[place][0] for place in range(len(images))]


def see_by_size(
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


def check_queries(vocabulary: Vocabulary, text: QueryTextFeatures, *, text_width: int) -> None:
    """Refuse queries that belong to another vocabulary or to another tower."""
    if text.class_ids != vocabulary.ids:
        raise ConfigError(
            f"vocabulary {vocabulary.name}: its ids are not those of the query features; compute them again"
        )
    if text.queries.shape[1] != text_width:
        raise CheckpointError(
            f"query features have {text.queries.shape[1]} channels, the vision tower's text space has {text_width}: "
            "they come from another checkpoint; compute them again"
        )
