"""SC-CLIP: the last block of CLIP calibrated by CLIP's own features, without training.

Axes: B views, h w pixels of a view, H W patch grid, P patches, D channels, E text space.

Source: repository SuleBai/SC-CLIP at 0417ba9. Outliers of the last block but one are repaired; its tokens are averaged
over what a middle block finds similar; the last block's attention runs without its queries, residual and MLP, half by
its keys and half by that similarity; CLS is added; a sum of middle blocks goes the same way; both are averaged over
what a shallow block finds similar, and projected. Mode `upstream` keeps a slip: where rows and columns differ in
number, outliers are looked for in the wrong place.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ovsops.backbones.checkpoint import resolve
from ovsops.backbones.clip import ClipHidden
from ovsops.backbones.vlm import VisionTower, load_vision_tower
from ovsops.mapper.alignment import unit
from ovsops.patches.aggregation import ZeroRows, aggregate
from ovsops.patches.mixed_attention import mixed_attention
from ovsops.patches.outliers import local_outlier_factor, outlier_mask
from ovsops.patches.repair import repair_outliers
from ovsops.segmenters.build import tensor_dtype
from ovsops.segmenters.queries import QueryTextFeatures, compute_query_features
from ovsops.segmenters.query_segmenter import DenseSegmenter, check_queries
from ovsops.segmenters.scclip_config import ScClipConfig
from ovsops.text.vocabulary import Vocabulary


class ScClipSegmenter(DenseSegmenter):
    """A tower with SC-CLIP's calibration, and its text."""

    def __init__(
        self, config: ScClipConfig, text: QueryTextFeatures, tower: VisionTower, *, device: str
    ) -> None:
        config.check_tower(num_layers=tower.num_layers, num_prefix=tower.num_prefix)

        def encode(pixels: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B H W E"]:
            hidden = tower.encode(pixels, position=config.position, num_blocks=tower.num_layers - 1)
            return calibrated_features(tower, hidden, config)

        super().__init__(config, text, encode, patch_size=tower.patch_size, device=device)


@torch.inference_mode()
def calibrated_features(
    tower: VisionTower, hidden: ClipHidden, config: ScClipConfig
) -> Float[Tensor, "B H W E"]:
    """Unit patch features in text space, from the outputs of all blocks but the last.

    The output projection and the second aggregation are linear, so they run once, on the sum of both branches.
    """
    blocks = config.blocks_of(num_layers=tower.num_layers)
    last, similar = repaired_tokens(hidden, config, similar_block=blocks.similar)
    entering = [_aggregated(last, similar, config) if config.first_aggregation else last]
    if config.multi_level:
        levels = range(blocks.first_level, blocks.last_level + 1)
        entering.append(sum_of_blocks([hidden.patches(block) for block in levels]))
    branches = [tower.keys_values(tokens) for tokens in entering]
    mixed = mixed_attention(branches, similar if config.similarity_attention else None)
    tokens = len(branches) * tower.attend_out(mixed / len(branches)).float()  # its bias once a branch
    tokens = tokens + class_residual(hidden, config)[:, None]
    if config.second_aggregation:
        tokens = _aggregated(tokens, hidden.patches(blocks.shallow).float(), config)
    return unit(tower.project(tokens)).unflatten(1, hidden.grid)


def repaired_tokens(
    hidden: ClipHidden, config: ScClipConfig, *, similar_block: int
) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B P D"]]:
    """Patch tokens of the last block but one, and of the block that guides similarity; in both, what is an outlier of
    the former is repaired.
    """
    last = hidden.patches(len(hidden.blocks)).float()
    similar = hidden.patches(similar_block).float()
    if not config.repair:
        return last, similar
    outliers = find_outlier_tokens(last, hidden.grid, config)
    repaired = [
        repair_outliers(tokens.unflatten(1, hidden.grid), outliers).flatten(1, 2)
        for tokens in (last, similar)
    ]
    return repaired[0], repaired[1]


def find_outlier_tokens(
    tokens: Float[Tensor, "B P D"], grid: tuple[int, int], config: ScClipConfig
) -> Bool[Tensor, "B H W"]:
    """Where on the grid the local outlier factor finds outliers; nowhere, if no token stands out."""
    scores = local_outlier_factor(tokens, num_neighbours=config.num_neighbours, variant=config.lof_variant)
    outliers = outlier_mask(scores, contamination=config.contamination)
    height, width = grid
    if config.mode == "corrected" or height == width:
        return outliers.unflatten(1, grid)
    view, place = outliers.nonzero(as_tuple=True)
    row, column = place // height, place % height  # the slip: width is meant
    is_inside = (row < height) & (column < width)  # beyond, the published code raises
    misplaced = torch.zeros_like(outliers).unflatten(1, grid)
    misplaced[view[is_inside], row[is_inside], column[is_inside]] = True
    return misplaced


def class_residual(hidden: ClipHidden, config: ScClipConfig) -> Float[Tensor, "B D"]:
    """What is added to every patch: CLS after the last block but one, and the sum of CLS over the levels."""
    num_layers = len(hidden.blocks) + 1
    blocks = config.blocks_of(num_layers=num_layers)
    chosen = [num_layers - 1]
    if config.multi_level:
        chosen += range(blocks.first_level, blocks.last_level + 1)
    if config.residual_source == "cls":
        tokens = [hidden.blocks[block - 1][:, 0] for block in chosen]
    else:
        tokens = [hidden.patches(block).float().mean(dim=1) for block in chosen]
    return config.residual_of(num_layers=num_layers) * sum_of_blocks(tokens)


def sum_of_blocks(tokens: Sequence[Float[Tensor, "*B D"]]) -> Float[Tensor, "*B D"]:
    """Sum over blocks, float32."""
    return torch.stack(list(tokens)).float().sum(dim=0)


def _aggregated(
    tokens: Float[Tensor, "B P D"], reference: Float[Tensor, "B P D"], config: ScClipConfig
) -> Float[Tensor, "B P D"]:
    zero_rows: ZeroRows = "zero" if config.mode == "upstream" else "keep"
    return aggregate(tokens, reference, beta=config.beta, zero_rows=zero_rows)


def compute_scclip_text(
    config: ScClipConfig,
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


def build_scclip(
    config: ScClipConfig,
    vocabulary: Vocabulary,
    text: QueryTextFeatures,
    *,
    device: str = "cpu",
    dtype: str = "auto",
) -> ScClipSegmenter:
    """Load the tower and check that it, the config, the vocabulary and its queries belong together."""
    number = tensor_dtype(dtype, device=device)
    tower = load_vision_tower(resolve(config.clip), device=device, dtype=number)
    check_queries(vocabulary, text, text_width=tower.text_width)
    return ScClipSegmenter(config, text, tower, device=device)
