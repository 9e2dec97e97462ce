"""A tiny Florence-2 checkpoint with random weights: the real classes, files and tokens of places.

It knows nothing: a phrase that it says means nothing. What it proves is that a run with a captioner works.
"""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import Florence2Config, Florence2ForConditionalGeneration

from ovsops.backbones.checkpoint import quiet_transformers
from ovsops.backbones.florence2 import NUM_BINS
from ovsops.backbones.untrained import randomize

TINY_FLORENCE2_SIDE = 64
"""Pixels of the image's side that a test takes; `image_side` of the config."""

_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_IMAGE = "<image>"


def write_untrained_florence2(folder: Path | str, *, seed: int = 0, width: int = 32) -> Path:
    """Write config.json, model.safetensors and tokenizer.json; the same seed gives the same bytes."""
    place = Path(folder)
    model = Florence2ForConditionalGeneration(tiny_florence2_config(width=width)).eval()
    randomize_florence2(model, seed=seed)
    place.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(str(place), safe_serialization=True)
    _tokenizer().save(str(place / "tokenizer.json"))
    return place


@torch.no_grad()
def randomize_florence2(model: nn.Module, *, seed: int) -> None:
    """Random values with which texts differ from image to image and from box to box.

    As the words' table is also the output's, a decoder with usual values says the last word again and again: so its
    words are small, and what it reads of the image and the question is large.
    """
    randomize(model, seed=seed)
    for name, parameter in model.named_parameters():
        if "shared" in name or "embed_positions" in name:
            parameter.mul_(0.3)
        elif "encoder_attn" in name:
            parameter.mul_(4.0)


def tiny_florence2_config(*, width: int = 32) -> Florence2Config:
    """Florence-2 in shape: four stages, 32 pixels a token, places of rows and columns, BART behind them."""
    tokenizer = _tokenizer()
    return Florence2Config(
        vision_config={
            "depths": (1, 1, 1, 1),
            "embed_dim": (8, 8, 16, 16),
            "num_heads": (1, 1, 2, 2),
            "num_groups": (1, 1, 2, 2),
            "window_size": 4,
            "projection_dim": width,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": tokenizer.get_vocab_size(),
            "d_model": width,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 2 * width,
            "decoder_ffn_dim": 2 * width,
            "max_position_embeddings": 256,
        },
        image_token_id=tokenizer.get_vocab()[_IMAGE],
    )


def _tokenizer() -> Tokenizer:
    """Bytes instead of BART's pieces, then its tokens of places and of the image."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate((*_SPECIALS, *symbols))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = [*_SPECIALS, *(f"<loc_{place}>" for place in range(NUM_BINS)), _IMAGE]
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    return tokenizer
