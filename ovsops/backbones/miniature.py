"""The real architectures at a size that two CPU cores can train: 128 px views, patches of 8 px.

The models come with random weights and a tokenizer of whole words and single Chinese characters; the
programs of `ovsops.training` teach them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel, SiglipConfig, SiglipModel

from ovsops.backbones.checkpoint import quiet_transformers

IMAGE_SIZE, PATCH_SIZE = 128, 8
TEXT_LENGTH = 64
WIDTH, NUM_HEADS = 128, 4

_SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>")


def miniature_siglip(num_words: int, *, seed: int) -> Any:
    """SigLIP 2 of fixed resolution with random weights, ready to train: 4 vision and 2 text layers.

    transformers starts scale and bias at zero; log 10 and -10 are the paper's (arXiv 2303.15343).
    """
    shape = {"hidden_size": WIDTH, "num_attention_heads": NUM_HEADS}
    config = SiglipConfig(
        text_config={
            **shape,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "vocab_size": len(_SPECIALS) + num_words,
            "max_position_embeddings": TEXT_LENGTH,
            "projection_size": WIDTH,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
        },
        vision_config={
            **shape,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SiglipModel(config)
    torch.nn.init.constant_(model.logit_scale, 2.302585)
    torch.nn.init.constant_(model.logit_bias, -10.0)
    return model.train()


def miniature_dinov2(*, seed: int) -> Any:
    """DINOv2 with 4 registers and random weights, ready to train: 4 layers."""
    config = Dinov2WithRegistersConfig(
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=NUM_HEADS,
        mlp_ratio=2,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        num_register_tokens=4,
        layerscale_value=1.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Dinov2WithRegistersModel(config).train()


def write_word_tokenizer(folder: Path, words: Sequence[str]) -> None:
    """tokenizer.json of whole English words and single Chinese characters; other words become `<unk>`."""
    vocabulary = {token: i for i, token in enumerate((*_SPECIALS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def save_half(model: Any, folder: Path) -> None:
    """Save a transformers model as float16 safetensors with its config: half the size, and what is measured."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.config.save_pretrained(str(folder))
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
