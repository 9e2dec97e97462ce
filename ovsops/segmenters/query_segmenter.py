"""The loop of segmenters that compare patches with queries: images in, class maps out, batched over windows.

Axes: B V views, H W patch grid, Q queries, E text space, h w pixels.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ovsops.errors import CheckpointError, ConfigError
from ovsops.masks.class_map import ClassMap
from ovsops.segmenters.queries import QueryTextFeatures
from ovsops.segmenters.query_config import QuerySegmenterConfig
from ovsops.segmenters.query_labels import label_queries
from ovsops.segmenters.segmenter import groups_of_views
from ovsops.segmenters.views import ViewPlan, cut_views, plan_views
from ovsops.text.vocabulary import Vocabulary

DenseEncoder = Callable[[Float[Tensor, "B 3 s s"]], Float[Tensor, "B H W E"]]
"""RGB views in 0..255 to unit patch features in text space; a view's features never depend on other views."""


class QuerySegmenter:
    """Windows, dense features, cosines with the queries, labels."""

    def __init__(
        self,
        config: QuerySegmenterConfig,
        text: QueryTextFeatures,
        encode: DenseEncoder,
        *,
        patch_size: int,
        device: str,
    ) -> None:
        self.config, self.encode, self.device = config, encode, device
        self.side = patch_size * max(1, round(config.window / patch_size))
        self.text = text.to(device)

    @torch.inference_mode()
    def segment(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[ClassMap]:
        """A class map per RGB image, in order; an image's map does not depend on the other images."""
        plans = [plan_views((int(image.shape[0]), int(image.shape[1])), self.config) for image in images]
        maps: list[ClassMap] = []
        for first, end in groups_of_views([len(p.windows) for p in plans], limit=self.config.views_per_batch):
            similarity = self.similarity(images[first:end], plans[first:end])
            maps += map(self.label, plans[first:end], similarity)
        return maps

    @torch.inference_mode()
    def similarity(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], plans: Sequence[ViewPlan]
    ) -> list[Float[Tensor, "_ Q H W"]]:
        """Cosines of each image's patches with the queries, from batches that hold the windows of several."""
        views = [
            cut_views(image, plan, side=self.side, window=self.config.window)
            for image, plan in zip(images, plans, strict=True)
        ]
        found = []
        for pixels in torch.cat(views).split(self.config.views_per_batch):
            dense = self.encode(pixels.to(self.device))
            found.append(torch.einsum("bhwe,qe->bqhw", dense, self.text.queries))
        return list(torch.cat(found).split([len(plan.windows) for plan in plans]))

    @torch.inference_mode()
    def label(self, plan: ViewPlan, similarity: Float[Tensor, "V Q H W"]) -> ClassMap:
        """The class map of an image from its cosines; cheap beside `similarity`, which need not run again when a
        threshold changes.
        """
        config = self.config
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
