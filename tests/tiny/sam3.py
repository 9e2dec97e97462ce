"""Tiny SAM 3 models in memory, with weights that give scores and masks worth looking at."""

from typing import Any

import torch
from torch import Tensor
from transformers import Sam3Model

from ovsops.backbones.untrained_sam3 import clip_vocabulary, randomize_sam3, tiny_sam3_config

SMALLEST: dict[str, Any] = {
    "image_size": 112,
    "num_blocks": 6,
    "width": 32,
    "heads": 2,
    "global_blocks": (2, 5),
    "num_queries": 10,
    "text_layers": 1,
}
"""Fields of the smallest model whose parts are all there: 64 patch tokens, masks of 32x32."""
OUTPUTS = ("pred_masks", "pred_boxes", "pred_logits", "presence_logits", "semantic_seg")


def tiny_model(seed: int = 0, **fields: Any) -> Any:
    """`transformers.Sam3Model`, by default of 12 blocks, so that every preset's blocks exist."""
    model = Sam3Model(tiny_sam3_config(**fields)).eval()
    randomize_sam3(model, seed=seed)
    return model


def random_pixels(num_images: int, side: int = 168, seed: int = 5) -> Tensor:
    """RGB images in 0..255 with structure at several scales."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num_images, 3, 6, 6, generator=generator) * 200
    up = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return up + torch.rand(num_images, 3, side, side, generator=generator) * 55


def random_ids(num_prompts: int, seed: int = 6) -> tuple[Tensor, Tensor]:
    """Token ids and mask of prompts of different length."""
    generator = torch.Generator().manual_seed(seed)
    size = len(clip_vocabulary())
    ids = torch.full((num_prompts, 32), size - 1)
    mask = torch.zeros(num_prompts, 32, dtype=torch.int64)
    for row in range(num_prompts):
        length = 3 + row % 7
        ids[row, 0] = size - 2
        ids[row, 1 : length - 1] = torch.randint(0, size - 2, (length - 2,), generator=generator)
        mask[row, :length] = 1
    return ids, mask


@torch.no_grad()
def text_tokens(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Projected prompt features of the whole model's own text side."""
    return model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
