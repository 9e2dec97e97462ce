"""A vision tower that shares a space with text, opened up for dense work, and its text tower: which one, the
checkpoint's own config says.

Axes: B views, T tokens, P patches, N heads, D channels, d channels of a head, E text space, h w pixels.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.backbones.checkpoint import ResolvedCheckpoint, read_config
from ovsops.backbones.clip import ClipHidden, ClipText, ClipVision, Position
from ovsops.backbones.siglip2 import SiglipText
from ovsops.backbones.siglip_blocks import SiglipBlocks
from ovsops.errors import CheckpointError

_CLIP = ("clip", "clip_vision_model", "clip_text_model")
_SIGLIP = ("siglip", "siglip2")


@runtime_checkable
class VisionTower(Protocol):
    """What CASS, SC-CLIP and plain dense labelling need of a tower; `ClipVision` says what each part is."""

    @property
    def num_prefix(self) -> int:
        """Tokens before the patches: 1 (CLS) in CLIP, 0 in SigLIP."""

    @property
    def patch_size(self) -> int:
        """Pixels on a side of a patch."""

    @property
    def width(self) -> int:
        """Channels of a token."""

    @property
    def text_width(self) -> int:
        """Channels of the space that is shared with the text tower."""

    @property
    def num_heads(self) -> int:
        """Attention heads of a block."""

    @property
    def num_layers(self) -> int:
        """Blocks."""

    def encode(
        self, pixels: Float[Tensor, "B 3 h w"], *, position: Position, num_blocks: int | None = None
    ) -> ClipHidden:
        """Tokens after every block, from RGB views in 0..255."""

    def last_keys_values(
        self, hidden_before_last: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B N P d"], Float[Tensor, "B N P d"]]:
        """Keys and values of the last block, of the patches among all tokens."""

    def keys_values(
        self, tokens: Float[Tensor, "B P D"]
    ) -> tuple[Float[Tensor, "B N P d"], Float[Tensor, "B N P d"]]:
        """Keys and values of the last block, of any tokens."""

    def attend_out(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """The last block's output projection."""

    def project(self, tokens: Float[Tensor, "B P D"]) -> Float[Tensor, "B P E"]:
        """Tokens in text space."""

    def image_embedding(self, blocks: Sequence[Float[Tensor, "B T D"]]) -> Float[Tensor, "B E"]:
        """The image in text space."""


def load_vision_tower(
    checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype
) -> ClipVision | SiglipBlocks:
    """CLIP's or SigLIP's vision tower."""
    if _model_type(checkpoint) in _CLIP:
        return ClipVision(checkpoint, device=device, dtype=dtype)
    return SiglipBlocks(checkpoint, device=device, dtype=dtype)


def load_text_tower(
    checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype
) -> ClipText | SiglipText:
    """CLIP's or SigLIP's text tower."""
    if _model_type(checkpoint) in _CLIP:
        return ClipText(checkpoint, device=device, dtype=dtype)
    return SiglipText(checkpoint, device=device, dtype=dtype)


def _model_type(checkpoint: ResolvedCheckpoint) -> str:
    found = read_config(checkpoint).get("model_type")
    if found not in (*_CLIP, *_SIGLIP):
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: model_type {found!r} has no text beside its pictures; "
            f"one of {', '.join((*_CLIP, *_SIGLIP))} is expected here"
        )
    return str(found)
