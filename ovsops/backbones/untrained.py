"""Tiny checkpoints of the real architectures with random weights: for the demo without a network, and for
tests.

They know nothing: a mask they draw means nothing. What they prove is that files, shapes, tokenizers and
loading work.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers
from torch import Tensor, nn
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipConfig,
    SiglipModel,
)

from ovsops.backbones.checkpoint import quiet_transformers

TINY_SIGLIP_WIDTH, TINY_DINO_WIDTH = 32, 48

SIGLIP_SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")


@dataclass(frozen=True, kw_only=True)
class UntrainedCheckpoints:
    """Where `write_untrained_checkpoints` put things."""

    siglip: Path
    dino: Path
    mapper: Path


def write_untrained_checkpoints(folder: Path | str, seed: int = 0) -> UntrainedCheckpoints:
    """Write `siglip2/`, `dinov2/` and `mapper/` under `folder`; the same seed gives the same bytes."""
    root = Path(folder)
    places = UntrainedCheckpoints(siglip=root / "siglip2", dino=root / "dinov2", mapper=root / "mapper")
    write_random_model(SiglipModel(tiny_siglip_config()), places.siglip, seed=seed)
    write_byte_tokenizer(places.siglip)
    write_random_model(Dinov2WithRegistersModel(tiny_dinov2_config()), places.dino, seed=seed + 1)
    write_random_mapper(
        places.mapper,
        text_width=TINY_SIGLIP_WIDTH,
        dino_width=TINY_DINO_WIDTH,
        seed=seed + 2,
    )
    return places


def tiny_siglip_config() -> SiglipConfig:
    """SigLIP 2 in shape: patch 16, 64 tokens of text, a pooling head."""
    shape = {
        "hidden_size": TINY_SIGLIP_WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    return SiglipConfig(
        text_config={
            **shape,
            "vocab_size": len(byte_vocabulary()),
            "max_position_embeddings": 64,
            "projection_size": TINY_SIGLIP_WIDTH,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
        },
        vision_config={**shape, "image_size": 128, "patch_size": 16},
    )


def tiny_dinov2_config() -> Dinov2WithRegistersConfig:
    """DINOv2 with registers in shape: patch 14, 4 registers."""
    return Dinov2WithRegistersConfig(
        hidden_size=TINY_DINO_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=3,
        mlp_ratio=2,
        image_size=112,
        patch_size=14,
        num_register_tokens=4,
    )


def write_random_model(model: nn.Module, folder: Path, *, seed: int) -> None:
    """Fill every parameter from the seed, by sorted name, and save the model as transformers does.

    Matrices keep the variance of what runs through them and biases are not zero, so that a test sees a
    swapped or a forgotten parameter; norms stay near one.
    """
    randomize(model, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(str(folder), safe_serialization=True)  # type: ignore[operator]


@torch.no_grad()
def randomize(model: nn.Module, *, seed: int) -> None:
    """Random values for every parameter, equal on every machine and in every version of transformers."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim < 2:
            near = 1.0 if ("norm" in name and name.endswith("weight")) or "lambda" in name else 0.0
            parameter.copy_(near + 0.1 * noise)
        elif "embed" in name or "token" in name or "probe" in name:
            parameter.copy_(noise if "patch" not in name else noise * parameter[0].numel() ** -0.5)
        else:
            parameter.copy_(noise * parameter[0].numel() ** -0.5)


def write_random_mapper(folder: Path, *, text_width: int, dino_width: int, seed: int) -> None:
    """A text-to-DINO mapper of the published form (one hidden layer, tanh) with random weights."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * shape[-1] ** -0.5

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            "linears.0.weight": random(dino_width, text_width),
            "linears.0.bias": random(dino_width),
            "linears.1.weight": random(dino_width, dino_width),
            "linears.1.bias": random(dino_width),
        },
        str(folder / "mapper.safetensors"),
        metadata={"text_to_dino": '{"version": 1, "activation": "tanh"}'},
    )


def write_byte_tokenizer(folder: Path, *, specials: tuple[str, ...] = SIGLIP_SPECIALS) -> None:
    """A tokenizer.json that covers every language:

    ASCII characters, and bytes for the rest (Chinese included).
    """
    vocabulary = {token: i for i, token in enumerate(byte_vocabulary(specials))}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def byte_vocabulary(specials: tuple[str, ...] = SIGLIP_SPECIALS) -> tuple[str, ...]:
    """Tokens in the order of their ids."""
    printable = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    return (*specials, *(f"<0x{i:02X}>" for i in range(256)), "▁", *printable)
