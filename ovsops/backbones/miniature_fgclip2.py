"""FG-CLIP 2 at the size of the miniature world: random weights, or the start from a miniature SigLIP 2.

Its tokenizer has the words of captions and, behind them, those that only region phrases say.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Siglip2Config, Siglip2Model, SiglipModel

from ovsops.backbones.checkpoint import ResolvedCheckpoint, load_pretrained
from ovsops.backbones.fgclip2_model import FgClip2Model
from ovsops.backbones.fgclip2_start import fgclip2_from_siglip2
from ovsops.backbones.miniature import miniature_siglip
from ovsops.backbones.tokenizers import read_tokenizer
from ovsops.errors import CheckpointError

_NUM_SPECIALS = 4
"""Tokens of `write_word_tokenizer` before the words."""


def miniature_fgclip2(num_words: int, *, seed: int) -> FgClip2Model:
    """Random weights of the miniature SigLIP 2's shape, the added heads as FG-CLIP 2 starts them; ready to train."""
    fixed = miniature_siglip(num_words, seed=seed)
    return fgclip2_from_siglip2(naflex_from_fixed(fixed, num_words=num_words, seed=seed)).train()


def fgclip2_from_miniature(
    checkpoint: ResolvedCheckpoint, *, words: Sequence[str], seed: int
) -> FgClip2Model:
    """The miniature SigLIP 2 as FG-CLIP 2 starts from it, float32, ready to train.

    `words` must begin with the words of the checkpoint's tokenizer, in their order; those that it lacks get random
    vectors. CheckpointError where they do not.
    """
    known = read_tokenizer(checkpoint.folder).get_vocab()
    tokens = sorted(known, key=lambda token: known[token])[_NUM_SPECIALS:]
    if list(words[: len(tokens)]) != tokens:
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: the words of its tokenizer are not the first of this training's "
            f"{len(words)}; start from a miniature SigLIP 2 of this version, or from random weights"
        )
    fixed = load_pretrained(SiglipModel, checkpoint, device="cpu", dtype=torch.float32)
    model = fgclip2_from_siglip2(naflex_from_fixed(fixed, num_words=len(words), seed=seed))
    return model.requires_grad_(True).train()


@torch.no_grad()
def naflex_from_fixed(fixed: Any, *, num_words: int, seed: int) -> Siglip2Model:
    """The NaFlex form of a SigLIP 2 of fixed resolution, and rows for further words, drawn by `seed`.

    Both share their names. What differs is how pixels come in: a convolution there, here a linear layer over patches
    whose pixels are in the order row, column, colour. A picture of the fixed size gives the same in both.
    """
    text, vision = fixed.config.text_config, fixed.config.vision_config
    shared = {
        name: getattr(vision, name)
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    }
    state = dict(fixed.state_dict())
    patch = "vision_model.embeddings.patch_embedding.weight"
    state[patch] = state[patch].permute(0, 2, 3, 1).flatten(1)
    table = "text_model.embeddings.token_embedding.weight"
    old = state[table]
    num_more = _NUM_SPECIALS + num_words - len(old)
    drawn = torch.randn(num_more, old.shape[1], generator=torch.Generator().manual_seed(seed))
    state[table] = torch.cat([old, old.mean(dim=0) + drawn * old.std(dim=0)])
    config = Siglip2Config(
        text_config=text.to_dict() | {"vocab_size": len(state[table]), "model_type": "siglip2_text_model"},
        vision_config={
            **shared,
            "num_patches": (int(vision.image_size) // int(vision.patch_size)) ** 2,
            "patch_size": int(vision.patch_size),
            "num_channels": int(vision.num_channels),
        },
    )
    with torch.random.fork_rng():
        model = Siglip2Model(config)
    model.load_state_dict(state)
    return model
