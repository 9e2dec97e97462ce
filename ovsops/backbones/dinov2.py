"""DINOv2 with registers: patch tokens, and what the CLS token attends to.

Axes: B views, H W patch grid, N heads, D channels.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import Dinov2WithRegistersModel

from ovsops.backbones.checkpoint import ResolvedCheckpoint, load_pretrained
from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.errors import ShapeError
from ovsops.features import PatchFeatures


class Dinov2:
    """A frozen DINOv2 with registers."""

    def __init__(self, checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> None:
        self.model: Any = load_pretrained(Dinov2WithRegistersModel, checkpoint, device=device, dtype=dtype)

    @property
    def patch_size(self) -> int:
        """Pixels on a side of a patch."""
        return int(self.model.config.patch_size)

    @property
    def width(self) -> int:
        """Channels of a patch token."""
        return int(self.model.config.hidden_size)

    def encode(
        self,
        pixels: Float[Tensor, "B 3 h w"],
        *,
        with_attention: bool,
        masked: Bool[Tensor, "B H W"] | None = None,
    ) -> PatchFeatures:
        """Features of RGB views in 0..255, whose sides are multiples of the patch.

        Where `masked` is true the model sees its mask token in place of the patch.
        """
        views = normalized(pixels, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        return dinov2_features(self.model, views, with_attention=with_attention, masked=masked)


@torch.inference_mode()
def dinov2_features(
    model: Any,
    views: Float[Tensor, "B 3 h w"],
    *,
    with_attention: bool = True,
    masked: Bool[Tensor, "B H W"] | None = None,
) -> PatchFeatures:
    """Patch tokens after the final norm, CLS and registers dropped, float32.

    The CLS row of the last layer's attention logits is formed from that layer's own query and key, so every
    layer runs its fused attention and no T x T matrix exists; this costs half a percent of the encoder. It
    is taken before the softmax, which could not be undone.
    """
    config = model.config
    patch, (height, width) = int(config.patch_size), views.shape[-2:]
    if height % patch or width % patch:
        raise ShapeError(
            f"DINOv2 view of {width}x{height} px: sides must be multiples of the patch of {patch} px, "
            "the rest would be cut off without a word"
        )
    num_prefix = 1 + int(config.num_register_tokens)
    grid = (height // patch, width // patch)
    tokens = model.embeddings(views, bool_masked_pos=None if masked is None else masked.flatten(1))
    for layer in model.encoder.layer[:-1]:
        tokens = layer(tokens)
    last = model.encoder.layer[-1]
    logits = _cls_patch_logits(last, tokens, num_prefix=num_prefix) if with_attention else None
    patch_tokens = model.layernorm(last(tokens))[:, num_prefix:].float()
    return PatchFeatures(
        patch_tokens=patch_tokens.unflatten(1, grid),
        cls_patch_logits=None if logits is None else logits.unflatten(2, grid),
    )


def _cls_patch_logits(
    layer: Any, tokens: Float[Tensor, "B T D"], *, num_prefix: int
) -> Float[Tensor, "B N P"]:
    normed = layer.norm1(tokens)
    attention = layer.attention
    head_width = attention.head_dim
    query = attention.q_proj(normed[:, 0]).unflatten(-1, (-1, head_width)).float()  # B N d
    key = attention.k_proj(normed[:, num_prefix:]).unflatten(-1, (-1, head_width)).float()  # B P N d
    return torch.einsum("bnd,bpnd->bnp", query, key) * head_width**-0.5
