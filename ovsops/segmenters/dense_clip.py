"""Plain dense CLIP: every patch token in text space, labelled by its nearest query.

Axes: B views, h w pixels of a view, H W patch grid, P patches, D channels, E text space.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.backbones.checkpoint import resolve
from ovsops.backbones.vlm import VisionTower, load_vision_tower
from ovsops.mapper.alignment import unit
from ovsops.segmenters.build import tensor_dtype
from ovsops.segmenters.clip_config import DenseClipConfig
from ovsops.segmenters.queries import QueryTextFeatures, compute_query_features
from ovsops.segmenters.query_segmenter import DenseSegmenter, check_queries
from ovsops.text.vocabulary import Vocabulary


class DenseClipSegmenter(DenseSegmenter):
    """The baseline: a tower, its patches, its text."""

    def __init__(
        self, config: DenseClipConfig, text: QueryTextFeatures, tower: VisionTower, *, device: str
    ) -> None:
        super().__init__(
            config,
            text,
            lambda pixels: dense_features(tower, pixels, config),
            patch_size=tower.patch_size,
            device=device,
        )


@torch.inference_mode()
def dense_features(
    tower: VisionTower, pixels: Float[Tensor, "B 3 h w"], config: DenseClipConfig
) -> Float[Tensor, "B H W E"]:
    """Unit patch features in text space, of RGB views in 0..255."""
    with_values = config.last_block == "values"
    num_blocks = tower.num_layers - 1 if with_values else tower.num_layers
    hidden = tower.encode(pixels, position=config.position, num_blocks=num_blocks)
    tokens = hidden.patches(num_blocks)
    if with_values:
        _, values = tower.keys_values(tokens)
        tokens = tower.attend_out(values.transpose(1, 2).flatten(2))
    return unit(tower.project(tokens)).unflatten(1, hidden.grid)


def compute_clip_text(
    config: DenseClipConfig,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    cache_dir: Path | None = None,
) -> QueryTextFeatures:
    """The queries of a vocabulary."""
    return compute_query_features(
        config.clip, vocabulary, languages, device=device, dtype=dtype, cache_dir=cache_dir
    )


def build_clip(
    config: DenseClipConfig,
    vocabulary: Vocabulary,
    text: QueryTextFeatures,
    *,
    device: str = "cpu",
    dtype: str = "auto",
) -> DenseClipSegmenter:
    """Load the tower and check that it, the vocabulary and its queries belong together."""
    number = tensor_dtype(dtype, device=device)
    tower = load_vision_tower(resolve(config.clip), device=device, dtype=number)
    check_queries(vocabulary, text, text_width=tower.text_width)
    return DenseClipSegmenter(config, text, tower, device=device)
