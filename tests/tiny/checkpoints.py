"""Checkpoint folders of the real classes with tiny random weights, loaded by the real `from_pretrained`."""

from pathlib import Path
from typing import Any

from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2WithRegistersModel,
    Siglip2Config,
    Siglip2Model,
    SiglipModel,
    ViTConfig,
    ViTModel,
)

from ovsops.backbones.untrained import (
    SIGLIP_SPECIALS,
    TINY_DINO_WIDTH,
    TINY_SIGLIP_WIDTH,
    byte_vocabulary,
    tiny_dinov2_config,
    tiny_siglip_config,
    write_byte_tokenizer,
    write_random_mapper,
    write_random_model,
)

CLIP_SPECIALS = ("<unk>", "<pad>", "<|startoftext|>", "<|endoftext|>")
CLIP_WIDTH = 24


def write_siglip(folder: Path, *, seed: int = 0) -> Path:
    """SigLIP 2 of fixed resolution (8x8 patches of 16 px), with a tokenizer that has EOS and padding."""
    write_random_model(SiglipModel(tiny_siglip_config()), folder, seed=seed)
    write_byte_tokenizer(folder)
    return folder


def write_naflex(folder: Path, *, seed: int = 0) -> Path:
    """SigLIP 2 NaFlex with 16 px patches and a table of 4x4 positions."""
    shape = {
        "hidden_size": TINY_SIGLIP_WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = Siglip2Config(
        text_config={**shape, "vocab_size": len(byte_vocabulary()), "max_position_embeddings": 64},
        vision_config={**shape, "patch_size": 16, "num_patches": 16},
    )
    write_random_model(Siglip2Model(config), folder, seed=seed)
    write_byte_tokenizer(folder, specials=SIGLIP_SPECIALS)
    return folder


def write_dinov2(folder: Path, *, seed: int = 1, **fields: Any) -> Path:
    """DINOv2 with 4 registers and 14 px patches."""
    config = tiny_dinov2_config()
    for name, value in fields.items():
        setattr(config, name, value)
    write_random_model(Dinov2WithRegistersModel(config), folder, seed=seed)
    return folder


def write_clip(folder: Path, *, seed: int = 2, projection: int = CLIP_WIDTH, **vision: Any) -> Path:
    """CLIP with both towers and its own tokenizer; `vision` are fields of its picture tower."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **shape,
            "vocab_size": len(byte_vocabulary(CLIP_SPECIALS)),
            "max_position_embeddings": 77,
            "projection_dim": projection,
            "bos_token_id": 2,
            "eos_token_id": 3,  # 2 would switch transformers to its old argmax rule
        },
        vision_config={**shape, "image_size": 32, "patch_size": 16, "projection_dim": projection} | vision,
        projection_dim=projection,
    )
    write_random_model(CLIPModel(config), folder, seed=seed)
    write_byte_tokenizer(folder, specials=CLIP_SPECIALS)
    return folder


def write_mapper(folder: Path, *, text_width: int = TINY_SIGLIP_WIDTH, seed: int = 3) -> Path:
    """Text-to-DINO mapper for `write_dinov2`."""
    write_random_mapper(folder, text_width=text_width, dino_width=TINY_DINO_WIDTH, seed=seed)
    return folder


def write_vit(folder: Path, *, seed: int = 4, width: int = TINY_DINO_WIDTH, heads: int = 3) -> Path:
    """DINO's ViT without a pooling layer: 8 px patches, 12x12 positions."""
    config = ViTConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        image_size=96,
        patch_size=8,
    )
    write_random_model(ViTModel(config, add_pooling_layer=False), folder, seed=seed)
    return folder
