"""Published checkpoints by name: repository, licence, class and full-size configuration.

A preset's name may stand as a checkpoint's source. It gives no revision: a recipe pins the full commit itself, and the
manifest records it. The
configurations are here so that shapes, memory and FLOPs are known before anything is downloaded.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ovsops.errors import ConfigError

Family = Literal[
    "siglip",
    "siglip2-naflex",
    "dinov2-registers",
    "clip",
    "sam3",
    "fgclip2",
    "mm-grounding-dino",
    "florence2",
]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One published checkpoint."""

    family: Family
    repo: str
    licence: str
    config: Mapping[str, Any]
    """Keyword arguments of the transformers config; the rest is its default."""
    gated: bool = False
    """Whether the hub hands the files only to accounts that accepted the licence there."""


def preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise ConfigError(f"checkpoint preset {name!r} is not one of {', '.join(PRESETS)}")
    return PRESETS[name]


def empty_model(chosen: Preset) -> torch.nn.Module:
    """The full-size model on the meta device: every name and shape, no memory."""
    import transformers

    from ovsops.backbones.fgclip2_model import FgClip2Config, FgClip2Model

    config_class, model_class = {
        "siglip": (transformers.SiglipConfig, transformers.SiglipModel),
        "siglip2-naflex": (transformers.Siglip2Config, transformers.Siglip2Model),
        "dinov2-registers": (transformers.Dinov2WithRegistersConfig, transformers.Dinov2WithRegistersModel),
        "clip": (transformers.CLIPConfig, transformers.CLIPModel),
        "sam3": (transformers.Sam3Config, transformers.Sam3Model),
        "fgclip2": (FgClip2Config, FgClip2Model),
        "mm-grounding-dino": (
            transformers.MMGroundingDinoConfig,
            transformers.MMGroundingDinoForObjectDetection,
        ),
        "florence2": (transformers.Florence2Config, transformers.Florence2ForConditionalGeneration),
    }[chosen.family]
    with torch.device("meta"):
        model: torch.nn.Module = model_class(config_class(**chosen.config))
    return model


def parameter_shapes(chosen: Preset) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter that the published file must hold."""
    return {name: tuple(p.shape) for name, p in empty_model(chosen).named_parameters()}


def num_parameters(chosen: Preset) -> int:
    """Parameters in all; times 4 bytes in float32, times 2 in bfloat16."""
    return sum(math.prod(shape) for shape in parameter_shapes(chosen).values())


def _transformer(width: int, layers: int, heads: int, *, mlp: int | None = None) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": mlp or 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


def _bart(width: int, layers: int, heads: int) -> dict[str, int]:
    return {
        "d_model": width,
        "encoder_layers": layers,
        "decoder_layers": layers,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
    }


_SIGLIP_SIZES = {
    "base": _transformer(768, 12, 12),
    "large": _transformer(1024, 24, 16),
    "so400m": _transformer(1152, 27, 16, mlp=4304),
    "giant-opt": _transformer(1536, 40, 16),
}
_SIGLIP_FIXED = (
    ("base", 16, (224, 256, 384, 512)),
    ("large", 16, (256, 384, 512)),
    ("so400m", 14, (224, 384)),
    ("so400m", 16, (256, 384, 512)),
    ("giant-opt", 16, (256, 384)),
)
_DINO_SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
_CLIP_SIZES = {
    "base-patch16": (_transformer(512, 12, 8), _transformer(768, 12, 12), 16, 512),
    "large-patch14": (_transformer(768, 12, 12), _transformer(1024, 24, 16), 14, 768),
}
_LLMDET_SWINS: dict[str, dict[str, Any]] = {
    "tiny": {
        "image_size": 224,
        "window_size": 7,
        "embed_dim": 96,
        "depths": (2, 2, 6, 2),
        "num_heads": (3, 6, 12, 24),
        "out_features": ["stage2", "stage3", "stage4"],
    },
    "base": {
        "image_size": 384,
        "window_size": 12,
        "embed_dim": 128,
        "depths": (2, 2, 18, 2),
        "num_heads": (4, 8, 16, 32),
        "out_features": ["stage2", "stage3", "stage4"],
    },
    "large": {
        "image_size": 384,
        "window_size": 12,
        "embed_dim": 192,
        "depths": (2, 2, 18, 2),
        "num_heads": (6, 12, 24, 48),
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
}
_FLORENCE2_SIZES: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "base": (
        {"embed_dim": (128, 256, 512, 1024), "num_heads": (4, 8, 16, 32), "num_groups": (4, 8, 16, 32)},
        _bart(768, 6, 12),
    ),
    "large": (
        {"embed_dim": (256, 512, 1024, 2048), "num_heads": (8, 16, 32, 64), "num_groups": (8, 16, 32, 64)},
        _bart(1024, 12, 16),
    ),
}


def _siglip_text(size: str) -> dict[str, int]:
    """The giant image tower has the text tower of so400m with a wider last projection."""
    tower = _SIGLIP_SIZES["so400m" if size == "giant-opt" else size]
    return {
        **tower,
        "vocab_size": 256_000,
        "max_position_embeddings": 64,
        "projection_size": _SIGLIP_SIZES[size]["hidden_size"],
    }


def _siglip_presets() -> dict[str, Preset]:
    found = {}
    for size, patch, sides in _SIGLIP_FIXED:
        for side in sides:
            name = f"siglip2-{size}-patch{patch}-{side}"
            vision = {**_SIGLIP_SIZES[size], "image_size": side, "patch_size": patch}
            found[name] = Preset(
                family="siglip",
                repo=f"google/{name}",
                licence="Apache-2.0",
                config={"text_config": _siglip_text(size), "vision_config": vision},
            )
    for size in ("base", "so400m"):
        name = f"siglip2-{size}-patch16-naflex"
        vision = {**_SIGLIP_SIZES[size], "num_patches": 256, "patch_size": 16}
        found[name] = Preset(
            family="siglip2-naflex",
            repo=f"google/{name}",
            licence="Apache-2.0",
            config={"text_config": _siglip_text(size), "vision_config": vision},
        )
    return found


def _fgclip2_preset(size: str) -> Preset:
    """The towers are those of the SigLIP 2 of that size, from which the training starts."""
    return Preset(
        family="fgclip2",
        repo=f"qihoo360/fg-clip2-{size}",
        licence="Apache-2.0",
        config={
            "text_config": {**_siglip_text(size), "keep_len": 20, "longtext_len": 196},
            "vision_config": {**_SIGLIP_SIZES[size], "num_patches": 256, "patch_size": 16},
        },
    )


def _dino_preset(size: str) -> Preset:
    width, layers, heads = _DINO_SIZES[size]
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return Preset(
        family="dinov2-registers",
        repo=f"facebook/dinov2-with-registers-{size}",
        licence="Apache-2.0",
        config={**shape, "patch_size": 14, "image_size": 518, "num_register_tokens": 4},
    )


def _clip_preset(size: str) -> Preset:
    text, vision, patch, projection = _CLIP_SIZES[size]
    return Preset(
        family="clip",
        repo=f"openai/clip-vit-{size}",
        licence="MIT",
        config={
            "text_config": {**text, "projection_dim": projection},
            "vision_config": {
                **vision,
                "image_size": 224,
                "patch_size": patch,
                "projection_dim": projection,
            },
            "projection_dim": projection,
        },
    )


def _llmdet_preset(size: str) -> Preset:
    """Text is bert-base-uncased, which is transformers' default; so are encoder and decoder."""
    swin = _LLMDET_SWINS[size]
    return Preset(
        family="mm-grounding-dino",
        repo=f"iSEE-Laboratory/llmdet_{size}",
        licence="Apache-2.0",
        config={
            "backbone_config": {"model_type": "swin", **swin},
            "num_feature_levels": len(swin["out_features"]) + 1,
            "decoder_bbox_embed_share": False,
            "decoder_cls_embed_share": False,
        },
    )


def _florence2_preset(size: str) -> Preset:
    """The repositories whose files fit transformers' own class; those of the authors (microsoft/) need their code.

    BART's 50,265 tokens, 1,024 for tasks and places, one for the image, padded to a multiple of 64.
    """
    vision, text = _FLORENCE2_SIZES[size]
    return Preset(
        family="florence2",
        repo=f"florence-community/Florence-2-{size}",
        licence="MIT",
        config={
            "vision_config": {**vision, "projection_dim": text["d_model"]},
            "text_config": {
                "model_type": "bart",
                **text,
                "encoder_ffn_dim": 4 * text["d_model"],
                "decoder_ffn_dim": 4 * text["d_model"],
                "vocab_size": 51_328,
                "max_position_embeddings": 1024,
            },
        },
    )


_SAM3 = Preset(family="sam3", repo="facebook/sam3", licence="SAM licence", config={}, gated=True)
"""Its configuration is what transformers takes by default."""

PRESETS: dict[str, Preset] = {
    **_siglip_presets(),
    **{f"dinov2-with-registers-{size}": _dino_preset(size) for size in _DINO_SIZES},
    **{f"clip-vit-{size}": _clip_preset(size) for size in _CLIP_SIZES},
    "sam3": _SAM3,
    **{f"fg-clip2-{size}": _fgclip2_preset(size) for size in ("base", "large", "so400m")},
    **{f"llmdet_{size}": _llmdet_preset(size) for size in _LLMDET_SWINS},
    **{f"Florence-2-{size}": _florence2_preset(size) for size in _FLORENCE2_SIZES},
}
