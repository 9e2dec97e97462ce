"""What a checkpoint's config.json says about its towers: depth, heads, widths. No weight is read.

What the file leaves out is the default of transformers, as when the model is loaded.
"""

from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CLIPConfig,
    Dinov2WithRegistersConfig,
    Sam3Config,
    Siglip2Config,
    SiglipConfig,
    ViTConfig,
)

from ovsops.backbones.checkpoint import ResolvedCheckpoint, quiet_transformers, read_config
from ovsops.errors import CheckpointError

_TOWERS = {"clip": CLIPConfig, "siglip": SiglipConfig, "siglip2": Siglip2Config}
_VFMS = {"vit": ViTConfig, "dinov2_with_registers": Dinov2WithRegistersConfig}
_SAM3 = ("sam3", "sam3_video")


@dataclass(frozen=True, kw_only=True)
class VisionShape:
    """A vision tower."""

    model_type: str
    num_layers: int
    """Blocks."""
    num_heads: int
    width: int
    """Channels of a token."""
    patch_size: int
    """Pixels on a side of a patch."""
    num_prefix: int
    """Tokens before the patches that text was trained with: CLS."""

    @property
    def head_width(self) -> int:
        """Channels of a head."""
        return self.width // self.num_heads


@dataclass(frozen=True, kw_only=True)
class TextShape:
    """A text tower."""

    width: int
    """Channels of what it gives."""
    length: int
    """Tokens that it reads, those that begin and end a prompt among them."""


@dataclass(frozen=True, kw_only=True)
class Sam3Shape:
    """SAM 3's image encoder and text tower."""

    num_blocks: int
    global_blocks: tuple[int, ...]
    """Blocks that attend to the whole image, from 0."""
    text_length: int
    """Tokens that the text tower reads."""


def vlm_shapes(checkpoint: ResolvedCheckpoint) -> tuple[VisionShape, TextShape]:
    """Both towers of a CLIP, SigLIP or SigLIP 2 checkpoint, which share a space.

    Raises `CheckpointError` for another model, and where the towers do not end in one space.
    """
    model_type = _model_type(checkpoint, tuple(_TOWERS), "picture and text towers")
    config = _config(checkpoint, _TOWERS[model_type])
    vision, text = config.vision_config, config.text_config
    is_clip = model_type == "clip"
    shape = VisionShape(
        model_type=model_type,
        num_layers=int(vision.num_hidden_layers),
        num_heads=int(vision.num_attention_heads),
        width=int(vision.hidden_size),
        patch_size=int(vision.patch_size),
        num_prefix=1 if is_clip else 0,
    )
    if not is_clip and getattr(vision, "vision_use_head", True) is False:
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: its vision tower has no pooling head (vision_use_head is false), which "
            "brings patches into text space; choose a checkpoint with it"
        )
    widths = (
        int(vision.projection_dim) if is_clip else shape.width,
        int(text.projection_dim if is_clip else text.projection_size),
    )
    if widths[0] != widths[1]:
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: pictures end in {widths[0]} channels and text in {widths[1]}: "
            "they share no space; is config.json that of these weights?"
        )
    return shape, TextShape(width=widths[1], length=int(text.max_position_embeddings))


def text_shape(checkpoint: ResolvedCheckpoint) -> TextShape:
    """The text tower of a CLIP, SigLIP or SigLIP 2 checkpoint, or of one that holds CLIP's text tower alone."""
    if read_config(checkpoint).get("model_type") != "clip_text_model":
        return vlm_shapes(checkpoint)[1]
    from transformers import CLIPTextConfig

    config = _config(checkpoint, CLIPTextConfig)
    return TextShape(width=int(config.projection_dim), length=int(config.max_position_embeddings))


def vfm_shape(checkpoint: ResolvedCheckpoint, *allowed: str) -> VisionShape:
    """A vision foundation model that knows no text: DINO (`vit`) or DINOv2 (`dinov2_with_registers`).

    `allowed` are the model types that will do; none given, both.
    """
    model_type = _model_type(checkpoint, allowed or tuple(_VFMS), "a vision foundation model")
    config = _config(checkpoint, _VFMS[model_type])
    return VisionShape(
        model_type=model_type,
        num_layers=int(config.num_hidden_layers),
        num_heads=int(config.num_attention_heads),
        width=int(config.hidden_size),
        patch_size=int(config.patch_size),
        num_prefix=1 + int(getattr(config, "num_register_tokens", 0)),
    )


def sam3_shape(checkpoint: ResolvedCheckpoint) -> Sam3Shape:
    """SAM 3, as an image model or inside the published video model."""
    _model_type(checkpoint, _SAM3, "SAM 3")
    plain = read_config(checkpoint)
    config = _config(checkpoint, Sam3Config, plain.get("detector_config") or plain)
    backbone = config.vision_config.backbone_config
    return Sam3Shape(
        num_blocks=int(backbone.num_hidden_layers),
        global_blocks=tuple(int(block) for block in backbone.global_attn_indexes),
        text_length=int(config.text_config.max_position_embeddings),
    )


def _model_type(checkpoint: ResolvedCheckpoint, allowed: tuple[str, ...], what: str) -> str:
    found = read_config(checkpoint).get("model_type")
    if found not in allowed:
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: model_type is {found!r}, and {what} ({', '.join(allowed)}) "
            "must stand here; is this the right checkpoint for this place in the recipe?"
        )
    return str(found)


def _config(checkpoint: ResolvedCheckpoint, config_class: Any, plain: dict[str, Any] | None = None) -> Any:
    fields = read_config(checkpoint) if plain is None else plain
    try:
        with quiet_transformers():
            return config_class(**{key: value for key, value in fields.items() if key != "model_type"})
    except (StrictDataclassError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: config.json describes no {config_class.__name__} that can be built: "
            f"{error}"
        ) from error
