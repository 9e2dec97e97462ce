"""A tiny FG-CLIP 2 checkpoint with random weights: the real classes, files and tokenizer.

It knows nothing: a name that it gives a box means nothing. What it proves is that a run with FG-CLIP 2 works.
"""

from pathlib import Path

from ovsops.backbones.fgclip2_model import KEEP_LEN, LONGTEXT_LEN, FgClip2Config, FgClip2Model, save_fgclip2
from ovsops.backbones.untrained import byte_vocabulary, randomize, write_byte_tokenizer

TINY_FGCLIP2_WIDTH = 32


def write_untrained_fgclip2(
    folder: Path | str, *, seed: int = 0, width: int = TINY_FGCLIP2_WIDTH, num_layers: int = 2
) -> Path:
    """Write config.json, model.safetensors and tokenizer.json; the same seed gives the same bytes."""
    place = Path(folder)
    model = FgClip2Model(tiny_fgclip2_config(width=width, num_layers=num_layers)).eval()
    randomize(model, seed=seed)
    save_fgclip2(model, place)
    write_byte_tokenizer(place)
    return place


def tiny_fgclip2_config(*, width: int = TINY_FGCLIP2_WIDTH, num_layers: int = 2) -> FgClip2Config:
    """FG-CLIP 2 in shape: patch 16, 64 and 196 tokens of text, a pooling head and a dense one."""
    shape = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 2,
    }
    return FgClip2Config(
        text_config={
            **shape,
            "vocab_size": len(byte_vocabulary()),
            "max_position_embeddings": 64,
            "projection_size": width,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
            "keep_len": KEEP_LEN,
            "longtext_len": LONGTEXT_LEN,
        },
        vision_config={**shape, "num_patches": 64, "patch_size": 16},
    )
