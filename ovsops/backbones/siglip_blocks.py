"""SigLIP 2 opened up as CLIP is in `ovsops.backbones.clip`: methods that were made for CLIP's last block run on it.

Axes: B views, T tokens = P patches, N heads, D channels, d channels of a head. There is no CLS token, and text space
has the tower's own width. A patch comes there as the pooling head gives it when it attends to that patch alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.backbones.checkpoint import ResolvedCheckpoint
from ovsops.backbones.clip import ClipHidden, Position
from ovsops.backbones.pixels import SIGLIP_MEAN, SIGLIP_STD, normalized
from ovsops.backbones.siglip2 import SiglipVision, dense_pooling, load_siglip_vision, patch_grid


class SiglipBlocks:
    """A frozen SigLIP vision tower of either family, whose last block can be taken apart."""

    num_prefix = 0
    """Tokens before the patches: none."""

    def __init__(self, checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> None:
        self.tower: SiglipVision = load_siglip_vision(checkpoint, device=device, dtype=dtype)
        self.model: Any = self.tower.model

    @property
    def patch_size(self) -> int:
        """Pixels on a side of a patch."""
        return self.tower.patch_size

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.tower.width

    @property
    def text_width(self) -> int:
        """Channels of the text space: those of a token."""
        return self.tower.width

    @property
    def num_heads(self) -> int:
        """Attention heads of a block."""
        return int(self.model.config.num_attention_heads)

    @property
    def num_layers(self) -> int:
        """Blocks."""
        return int(self.model.config.num_hidden_layers)

    @torch.inference_mode()
    def encode(
        self, pixels: Float[Tensor, "B 3 h w"], *, position: Position, num_blocks: int | None = None
    ) -> ClipHidden:
        """Tokens after every block (after the first `num_blocks`), from RGB views in 0..255 whose sides are
        multiples of the patch.

        Positions are resized as SigLIP does, whatever `position` says: it names two ways of CLIP's.
        """
        grid = patch_grid(pixels, self.patch_size)
        tokens = self.tower.embed(normalized(pixels, mean=SIGLIP_MEAN, std=SIGLIP_STD), grid)
        blocks = []
        for layer in self.model.encoder.layers[:num_blocks]:
            tokens = layer(tokens, None)
            blocks.append(tokens)
        return ClipHidden(blocks=tuple(blocks), grid=grid, num_prefix=0)

    def last_keys_values(
        self, hidden_before_last: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B N P d"], Float[Tensor, "B N P d"]]:
        """Keys and values of the last block, from all tokens that enter it."""
        return self.keys_values(hidden_before_last)

    @torch.inference_mode()
    def keys_values(
        self, tokens: Float[Tensor, "B P D"]
    ) -> tuple[Float[Tensor, "B N P d"], Float[Tensor, "B N P d"]]:
        """Keys and values of the last block: its first norm, then its projections, of any tokens."""
        layer = self.model.encoder.layers[-1]
        normed = layer.layer_norm1(tokens.to(layer.layer_norm1.weight.dtype))
        keys, values = layer.self_attn.k_proj(normed), layer.self_attn.v_proj(normed)
        heads = (self.num_heads, -1)
        return keys.unflatten(-1, heads).transpose(1, 2), values.unflatten(-1, heads).transpose(1, 2)

    @torch.inference_mode()
    def attend_out(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """The last block's output projection, of mixed values with their heads put side by side."""
        out = self.model.encoder.layers[-1].self_attn.out_proj
        return out(tokens.to(out.weight.dtype))

    @torch.inference_mode()
    def project(self, tokens: Float[Tensor, "*B P D"]) -> Float[Tensor, "*B P D"]:
        """Tokens in text space, each by itself: final norm, then the pooling head on it alone; not unit."""
        norm = self.model.post_layernorm
        return dense_pooling(self.model.head, norm(tokens.to(norm.weight.dtype)))

    @torch.inference_mode()
    def image_embedding(self, blocks: Sequence[Float[Tensor, "B T D"]]) -> Float[Tensor, "B D"]:
        """The image in text space, from the outputs of all blocks: the pooling head on all patches; not unit."""
        return self.model.head(self.model.post_layernorm(blocks[-1])).float()
