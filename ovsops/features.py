"""What backbones hand to the maths. Axes: B views, H W patch grid, D channels, N heads, T prompts."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PatchFeatures:
    """Patch tokens after the backbone's last norm; CLS and register tokens are cut off."""

    patch_tokens: Float[Tensor, "B H W D"]
    """Not normalised."""
    cls_patch_logits: Float[Tensor, "B N H W"] | None = None
    """Last layer's attention logits from the CLS token to each patch, per head, before any softmax."""


@dataclass(frozen=True, kw_only=True)
class TextFeatures:
    """Pooled prompt embeddings as the text tower gives them."""

    prompts: tuple[str, ...]
    embeddings: Float[Tensor, "T D"]
    """Not normalised, float32; row i belongs to `prompts[i]`."""
