"""Vision foundation models that see objects but know no text: the keys of their last block.

Axes: B views, H W patch grid, P patches, T tokens, N heads, D channels, d channels of a head. DINO's ViT
(arXiv:2104.14294) and DINOv2 with registers give the same thing, and which one a checkpoint is, its config says. The
last block stops at its keys: its attention and MLP are never run, which saves a twelfth of a ViT-B.
"""

from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Dinov2WithRegistersModel, ViTModel

from ovsops.backbones.checkpoint import ResolvedCheckpoint, load_pretrained, read_config
from ovsops.backbones.clip import Position, position_embedding
from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.errors import CheckpointError, ShapeError


@runtime_checkable
class VfmKeys(Protocol):
    """A frozen vision foundation model whose last keys tell which patches belong together."""

    @property
    def patch_size(self) -> int:
        """Pixels on a side of a patch."""

    @property
    def num_heads(self) -> int:
        """Attention heads of the last block."""

    @property
    def head_width(self) -> int:
        """Channels of a head."""

    def last_keys(
        self, pixels: Float[Tensor, "B 3 h w"], *, position: Position = "native"
    ) -> Float[Tensor, "B N H W d"]:
        """Keys of the last block's patches, float32, from RGB views in 0..255 whose sides are multiples of the
        patch.
        """


_K = TypeVar("_K", bound="_Keys")


class _Keys:
    """What the two models have in common."""

    model: Any

    @classmethod
    def of(cls: type[_K], model: Any) -> _K:
        """Around a model that is loaded already."""
        found = cls.__new__(cls)
        found.model = model.eval().requires_grad_(False)
        return found

    @property
    def patch_size(self) -> int:
        """Pixels on a side of a patch."""
        return int(self.model.config.patch_size)

    @property
    def num_heads(self) -> int:
        """Attention heads of a block."""
        return int(self.model.config.num_attention_heads)

    @property
    def head_width(self) -> int:
        """Channels of a head."""
        return int(self.model.config.hidden_size) // self.num_heads


class DinoKeys(_Keys):
    """DINO's ViT."""

    def __init__(self, checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> None:
        self.model = load_pretrained(
            ViTModel,
            checkpoint,
            device=device,
            dtype=dtype,
            add_pooling_layer=False,  # DINO has none
        )

    def last_keys(
        self, pixels: Float[Tensor, "B 3 h w"], *, position: Position = "native"
    ) -> Float[Tensor, "B N H W d"]:
        """Keys of RGB views in 0..255; `position` says how the position table reaches another grid than its
        own.
        """
        views = normalized(pixels, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        return vit_last_keys(self.model, views, position=position)


class Dinov2Keys(_Keys):
    """DINOv2 with registers."""

    def __init__(self, checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> None:
        self.model = load_pretrained(Dinov2WithRegistersModel, checkpoint, device=device, dtype=dtype)

    def last_keys(
        self, pixels: Float[Tensor, "B 3 h w"], *, position: Position = "native"
    ) -> Float[Tensor, "B N H W d"]:
        """Keys of RGB views in 0..255.

        Positions are resized to the grid whatever `position` says: this model's own code has no offset.
        """
        views = normalized(pixels, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        return dinov2_last_keys(self.model, views)


def load_vfm(checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> DinoKeys | Dinov2Keys:
    """The model by its config's `model_type`: `vit` (DINO) or `dinov2_with_registers`."""
    model_type = read_config(checkpoint).get("model_type")
    if model_type == "vit":
        return DinoKeys(checkpoint, device=device, dtype=dtype)
    if model_type == "dinov2_with_registers":
        return Dinov2Keys(checkpoint, device=device, dtype=dtype)
    raise CheckpointError(
        f"checkpoint {checkpoint.folder}: model_type {model_type!r} cannot be the vision foundation model; "
        "vit (DINO: facebook/dino-vitb8) or dinov2_with_registers (facebook/dinov2-with-registers-base) is expected"
    )


@torch.inference_mode()
def vit_last_keys(
    model: Any, views: Float[Tensor, "B 3 h w"], *, position: Position = "native"
) -> Float[Tensor, "B N H W d"]:
    """Keys of the last block of a `ViTModel`, CLS dropped, from normalised views."""
    embeddings = model.embeddings
    grid = _grid(views, int(model.config.patch_size))
    projection = embeddings.patch_embeddings.projection
    patches = projection(views.to(projection.weight.dtype)).flatten(2).transpose(1, 2)
    tokens = torch.cat([embeddings.cls_token.expand(len(views), -1, -1), patches], dim=1)  # B T D
    tokens = tokens + position_embedding(embeddings.position_embeddings[0], grid, position=position)
    for layer in model.layers[:-1]:
        tokens = layer(tokens, None)
    last = model.layers[-1]
    return _keys(last.attention, last.layernorm_before(tokens)[:, 1:], grid)


@torch.inference_mode()
def dinov2_last_keys(model: Any, views: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B N H W d"]:
    """Keys of the last block of a `Dinov2WithRegistersModel`, CLS and registers dropped, from normalised
    views.
    """
    grid = _grid(views, int(model.config.patch_size))
    tokens = model.embeddings(views.to(model.embeddings.cls_token.dtype))
    for layer in model.encoder.layer[:-1]:
        tokens = layer(tokens)
    last, num_prefix = model.encoder.layer[-1], 1 + int(model.config.num_register_tokens)
    return _keys(last.attention, last.norm1(tokens)[:, num_prefix:], grid)


def _keys(
    attention: Any, normed: Float[Tensor, "B P D"], grid: tuple[int, int]
) -> Float[Tensor, "B N H W d"]:
    keys = attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)  # B N P d
    return keys.float().unflatten(2, grid)


def _grid(views: Float[Tensor, "B 3 h w"], patch: int) -> tuple[int, int]:
    height, width = views.shape[-2:]
    if height % patch or width % patch:
        raise ShapeError(
            f"view of {width}x{height} px: sides must be multiples of the patch of {patch} px, "
            "the rest would be cut off without a word"
        )
    return height // patch, width // patch
