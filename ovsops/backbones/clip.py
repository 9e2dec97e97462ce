"""CLIP: its text tower, whose pooled output feeds the mapper as Talk2DINO published it, and its vision tower, opened
up for dense work.

Axes: T prompts or tokens, L tokens of a prompt, B views, P patches, N heads, D channels, d channels of a head, E text
space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from ovsops.backbones.checkpoint import ResolvedCheckpoint, load_pretrained
from ovsops.backbones.pixels import CLIP_MEAN, CLIP_STD, normalized
from ovsops.backbones.prompts import embed_unique
from ovsops.backbones.tokenizers import ClipTokenizer
from ovsops.errors import ShapeError
from ovsops.features import TextFeatures

Position = Literal["upstream", "native"]
"""How position embeddings reach another grid than the trained one; both are the same on that.

`native` resizes them to the grid. `upstream` is what CASS (commit 228ecdd) and SC-CLIP (commit 0417ba9) took from
DINO: a resize by the factor (g + 0.1) / g0, whose tenth of a patch was meant against rounding and moves every sample.
"""


class ClipText:
    """A frozen CLIP text tower with its projection."""

    def __init__(self, checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> None:
        self.model: Any = load_pretrained(CLIPTextModelWithProjection, checkpoint, device=device, dtype=dtype)
        length = int(self.model.config.max_position_embeddings)
        self.tokenizer = ClipTokenizer(checkpoint.folder, length=length)

    def encode(self, prompts: Sequence[str], *, batch_size: int = 256) -> TextFeatures:
        """Projected EOS embeddings, one forward pass per distinct prompt, cut to the longest prompt of its
        batch.

        The tower is causal, so nothing behind the EOS can change what is pooled there: the cut is exact.
        """
        distinct = list(dict.fromkeys(prompts))
        ids = dict(zip(distinct, self.tokenizer(distinct), strict=True))
        return embed_unique(
            prompts,
            lambda batch: self.embed_ids([ids[p] for p in batch]),
            batch_size=batch_size,
            length=lambda p: len(ids[p]),
        )

    @torch.inference_mode()
    def embed_ids(self, rows: Sequence[Sequence[int]], *, pad_to: int = 0) -> Float[Tensor, "T D"]:
        """Projected EOS embeddings of token ids that end with EOS; `pad_to` runs longer than needed, for
        comparison.
        """
        longest = max(pad_to, max(len(row) for row in rows))
        pad = self.tokenizer.eos
        ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=self.model.device)
        ends = torch.tensor([len(row) - 1 for row in rows], device=self.model.device)
        hidden = self.model.text_model(input_ids=ids).last_hidden_state
        pooled = hidden[torch.arange(len(rows), device=hidden.device), ends]
        return self.model.text_projection(pooled).float()


@dataclass(frozen=True, kw_only=True)
class ClipHidden:
    """What the blocks of a tower of CLIP's family (CLIP, SigLIP) put out, before any final norm."""

    blocks: tuple[Float[Tensor, "B T D"], ...]
    """Output of block 1, 2, ...: the residual stream, in the tower's dtype; `num_prefix` tokens, then the patches."""
    grid: tuple[int, int]
    """Patch grid, rows and columns."""
    num_prefix: int = 1
    """Tokens before the patches: 1 (CLS) in CLIP, 0 in SigLIP."""

    def patches(self, block: int) -> Float[Tensor, "B P D"]:
        """Patch tokens after a block, counted from 1."""
        return self.blocks[block - 1][:, self.num_prefix :]


class ClipVision:
    """A frozen CLIP vision tower with its projection, whose last block can be taken apart."""

    num_prefix = 1
    """Tokens before the patches: CLS."""

    def __init__(self, checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> None:
        self.model: Any = load_pretrained(
            CLIPVisionModelWithProjection, checkpoint, device=device, dtype=dtype
        )

    @classmethod
    def of(cls, model: CLIPVisionModelWithProjection) -> "ClipVision":
        """The tower around a model that is loaded already."""
        tower = cls.__new__(cls)
        tower.model = model.eval().requires_grad_(False)
        return tower

    @property
    def patch_size(self) -> int:
        """Pixels on a side of a patch."""
        return int(self.model.config.patch_size)

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self.model.config.hidden_size)

    @property
    def text_width(self) -> int:
        """Channels of the space that is shared with the text tower."""
        return int(self.model.config.projection_dim)

    @property
    def num_heads(self) -> int:
        """Attention heads of a block."""
        return int(self.model.config.num_attention_heads)

    @property
    def num_layers(self) -> int:
        """Blocks."""
        return int(self.model.config.num_hidden_layers)

    def encode(
        self, pixels: Float[Tensor, "B 3 h w"], *, position: Position, num_blocks: int | None = None
    ) -> ClipHidden:
        """Tokens after every block (after the first `num_blocks`), from RGB views in 0..255 whose sides are
        multiples of the patch.
        """
        views = normalized(pixels, mean=CLIP_MEAN, std=CLIP_STD)
        return self.encode_views(views, position=position, num_blocks=num_blocks)

    @torch.inference_mode()
    def encode_views(
        self, views: Float[Tensor, "B 3 h w"], *, position: Position, num_blocks: int | None = None
    ) -> ClipHidden:
        """As `encode`, from views that are normalised already."""
        patch, (height, width) = self.patch_size, views.shape[-2:]
        if height % patch or width % patch:
            raise ShapeError(
                f"CLIP view of {width}x{height} px: sides must be multiples of the patch of {patch} px, "
                "the rest would be cut off without a word"
            )
        vision, grid = self.model.vision_model, (height // patch, width // patch)
        embeddings = vision.embeddings
        patches = embeddings.patch_embedding(views.to(embeddings.patch_embedding.weight.dtype))
        cls_token = embeddings.class_embedding.expand(len(views), 1, -1)
        tokens = torch.cat([cls_token, patches.flatten(2).transpose(1, 2)], dim=1)  # B 1+P D
        table = embeddings.position_embedding.weight
        tokens = vision.pre_layrnorm(tokens + position_embedding(table, grid, position=position))
        blocks = []
        for layer in vision.encoder.layers[:num_blocks]:
            tokens = layer(tokens, None)
            blocks.append(tokens)
        return ClipHidden(blocks=tuple(blocks), grid=grid)

    def last_keys_values(
        self, hidden_before_last: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B N P d"], Float[Tensor, "B N P d"]]:
        """Keys and values of the last block, from all tokens that enter it; CLS is dropped."""
        return self.keys_values(hidden_before_last[:, 1:])

    @torch.inference_mode()
    def keys_values(
        self, tokens: Float[Tensor, "B P D"]
    ) -> tuple[Float[Tensor, "B N P d"], Float[Tensor, "B N P d"]]:
        """Keys and values of the last block: its first norm, then its projections, of any tokens."""
        layer = self.model.vision_model.encoder.layers[-1]
        normed = layer.layer_norm1(tokens.to(layer.layer_norm1.weight.dtype))
        keys, values = layer.self_attn.k_proj(normed), layer.self_attn.v_proj(normed)
        return _heads(keys, self.num_heads), _heads(values, self.num_heads)

    @torch.inference_mode()
    def attend_out(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """The last block's output projection, of mixed values with their heads put side by side."""
        out = self.model.vision_model.encoder.layers[-1].self_attn.out_proj
        return out(tokens.to(out.weight.dtype))

    @torch.inference_mode()
    def project(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
        """Tokens in text space: final norm and projection, float32, not unit."""
        norm = self.model.vision_model.post_layernorm
        return self.model.visual_projection(norm(tokens.to(norm.weight.dtype))).float()

    def image_embedding(self, blocks: Sequence[Float[Tensor, "B T D"]]) -> Float[Tensor, "B E"]:
        """The image in text space, from the outputs of all blocks: CLS after the last, projected; not unit."""
        return self.project(blocks[-1][:, 0])


def position_embedding(
    table: Float[Tensor, "T0 D"], grid: tuple[int, int], *, position: Position
) -> Float[Tensor, "T D"]:
    """Rows of a square position table (CLS first) on another patch grid, bicubic; the table itself on its own."""
    side = round((len(table) - 1) ** 0.5)
    if grid == (side, side):
        return table
    plane = table[1:].float().unflatten(0, (side, side)).permute(2, 0, 1)[None]
    if position == "native":
        resized = F.interpolate(plane, size=grid, mode="bicubic", align_corners=False)
    else:
        factors = tuple((length + 0.1) / side for length in grid)
        resized = F.interpolate(plane, scale_factor=factors, mode="bicubic", align_corners=False)
    return torch.cat([table[:1], resized[0].flatten(1).T.to(table.dtype)])


def _heads(projected: Float[Tensor, "B P D"], num_heads: int) -> Float[Tensor, "B N P d"]:
    return projected.unflatten(-1, (num_heads, -1)).transpose(1, 2)
