"""SigLIP 2: patch tokens, patches in text space, and the text tower; fixed resolution and NaFlex.

Axes: B views, H W patch grid, P patches, R regions, D channels, T prompts. SigLIP has no projection after its pooling
head: what the head gives is compared with the text tower's output directly.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    Siglip2TextModel,
    Siglip2VisionModel,
    SiglipTextModel,
    SiglipVisionModel,
)

from ovsops.backbones.checkpoint import ResolvedCheckpoint, load_pretrained, read_config
from ovsops.backbones.pixels import SIGLIP_MEAN, SIGLIP_STD, normalized
from ovsops.backbones.prompts import embed_unique
from ovsops.backbones.tokenizers import SiglipTokenizer
from ovsops.errors import CheckpointError, ShapeError
from ovsops.features import PatchFeatures, TextFeatures

_FIXED, _NAFLEX = "siglip", "siglip2"


class SiglipVision:
    """A frozen SigLIP vision tower of fixed-resolution form; other sizes interpolate its position
    embedding.
    """

    def __init__(self, checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> None:
        self.model: Any = load_pretrained(SiglipVisionModel, checkpoint, device=device, dtype=dtype)

    @property
    def patch_size(self) -> int:
        """Pixels on a side of a patch."""
        return int(self.model.config.patch_size)

    @property
    def width(self) -> int:
        """Channels of a patch token and of the text space."""
        return int(self.model.config.hidden_size)

    @torch.inference_mode()
    def encode(self, pixels: Float[Tensor, "B 3 h w"]) -> PatchFeatures:
        """Tokens of RGB views in 0..255; they are not in text space, `align` brings them there."""
        grid = patch_grid(pixels, self.patch_size)
        views = normalized(pixels, mean=SIGLIP_MEAN, std=SIGLIP_STD)
        hidden: Tensor = self.model.encoder(inputs_embeds=self.embed(views, grid)).last_hidden_state
        tokens = self.model.post_layernorm(hidden)
        return PatchFeatures(patch_tokens=tokens.float().unflatten(1, grid))

    def embed(self, views: Float[Tensor, "B 3 h w"], grid: tuple[int, int]) -> Float[Tensor, "B P D"]:
        """What enters the first block: patches of normalised views, and their positions."""
        return self.model.embeddings(views, interpolate_pos_encoding=True)

    @torch.inference_mode()
    def align(
        self, patch_tokens: Float[Tensor, "B P D"], mixing: Float[Tensor, "B P P"] | None = None
    ) -> Float[Tensor, "B P D"]:
        """Each patch in text space, as the pooling head would give it if it attended to that patch alone."""
        return dense_pooling(self.model.head, patch_tokens, mixing)

    @torch.inference_mode()
    def pool(self, patch_tokens: Float[Tensor, "B P D"]) -> Float[Tensor, "B D"]:
        """The image in text space."""
        head = self.model.head
        return head(patch_tokens.to(head.probe.dtype)).float()


class SiglipNaflexVision(SiglipVision):
    """A frozen NaFlex vision tower: any grid.

    It had no self-distillation or masked prediction, so dense features are weaker.
    """

    def __init__(self, checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> None:
        self.model = load_pretrained(Siglip2VisionModel, checkpoint, device=device, dtype=dtype)

    def embed(self, views: Float[Tensor, "B 3 h w"], grid: tuple[int, int]) -> Float[Tensor, "B P D"]:
        """Patches in their own order of pixels, and positions resized to the grid."""
        embeddings = self.model.embeddings
        side = embeddings.position_embedding_size
        table = embeddings.position_embedding.weight.reshape(side, side, -1)
        shape = torch.tensor([grid], device=views.device)
        positions = embeddings.resize_positional_embeddings(table, shape, max_length=grid[0] * grid[1])
        patches = naflex_patches(views, self.patch_size).to(embeddings.patch_embedding.weight.dtype)
        return embeddings.patch_embedding(patches) + positions

    def encode_ragged(self, images: Sequence[Float[Tensor, "3 _h _w"]]) -> list[PatchFeatures]:
        """Features of views of different sizes, in order; views of one grid run together, so nothing is
        padded.
        """
        by_size: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(images):
            by_size.setdefault(tuple(image.shape[-2:]), []).append(place)
        found: dict[int, PatchFeatures] = {}
        for places in by_size.values():
            tokens = self.encode(torch.stack([images[i] for i in places])).patch_tokens
            found |= {i: PatchFeatures(patch_tokens=t) for i, t in zip(places, tokens.split(1), strict=True)}
        return [found[i] for i in range(len(images))]


class SiglipText:
    """A frozen SigLIP text tower, fixed-resolution or NaFlex family."""

    def __init__(self, checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> None:
        text_class = SiglipTextModel if siglip_family(checkpoint) == _FIXED else Siglip2TextModel
        self.model: Any = load_pretrained(text_class, checkpoint, device=device, dtype=dtype)
        length = int(self.model.config.max_position_embeddings)
        self.tokenizer = SiglipTokenizer(checkpoint.folder, length=length)

    def encode(self, prompts: Sequence[str], *, batch_size: int = 64) -> TextFeatures:
        """Pooled embeddings, one forward pass per distinct prompt.

        The tower attends both ways and pools the last position, padding or not, without a mask: prompts
        always run at full length, and only duplicates can be saved.
        """
        return embed_unique(prompts, self._embed, batch_size=batch_size)

    @torch.inference_mode()
    def _embed(self, prompts: Sequence[str]) -> Float[Tensor, "T D"]:
        ids = self.tokenizer(prompts).to(self.model.device)
        return self.model(input_ids=ids).pooler_output.float()


def load_siglip_vision(checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> SiglipVision:
    """The vision tower of either family, by the checkpoint's own config."""
    vision_class = SiglipVision if siglip_family(checkpoint) == _FIXED else SiglipNaflexVision
    return vision_class(checkpoint, device=device, dtype=dtype)


def siglip_family(checkpoint: ResolvedCheckpoint) -> str:
    """`siglip` (fixed resolution, SigLIP 2's too) or `siglip2` (NaFlex)."""
    model_type = read_config(checkpoint).get("model_type")
    if model_type not in (_FIXED, _NAFLEX):
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: model_type {model_type!r}; "
            "siglip (fixed resolution) or siglip2 (NaFlex) is expected"
        )
    return str(model_type)


def dense_pooling(
    head: Any, patch_tokens: Float[Tensor, "B P D"], mixing: Float[Tensor, "B R P"] | None = None
) -> Float[Tensor, "B R D"]:
    """The pooling head with its attention replaced: by the identity, so that each patch stands alone (R = P), or
    by `mixing`, whose rows say what each of R patches or regions looks at.

    z = W_o (M v) + b_o, y = z + MLP(LN z), with v the head's values: exactly the head's output for a mask
    that leaves one patch, when M is the identity.
    """
    attention = head.attention
    width = attention.embed_dim
    tokens = patch_tokens.to(attention.in_proj_weight.dtype)
    values = F.linear(tokens, attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])
    if mixing is not None:
        values = mixing.to(values.dtype) @ values
    pooled = attention.out_proj(values)
    return (pooled + head.mlp(head.layernorm(pooled))).float()


def naflex_patches(views: Float[Tensor, "B 3 h w"], patch_size: int) -> Float[Tensor, "B P patch"]:
    """Views cut into flat patches, row, column, channel last: not the order of a convolution's kernel."""
    height, width = patch_grid(views, patch_size)
    tiles = views.unflatten(3, (width, patch_size)).unflatten(2, (height, patch_size))  # B 3 H p W p
    return tiles.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def patch_grid(pixels: Tensor, patch_size: int) -> tuple[int, int]:
    """Rows and columns of the patches of a view; its sides must be multiples of the patch."""
    height, width = pixels.shape[-2:]
    if height % patch_size or width % patch_size:
        raise ShapeError(
            f"SigLIP view of {width}x{height} px: sides must be multiples of the patch of {patch_size} px"
        )
    return height // patch_size, width // patch_size
