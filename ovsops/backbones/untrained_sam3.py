"""A tiny SAM 3 checkpoint with random weights: the real classes, files and tokenizer, about 1 MB.

It knows nothing: a mask that it draws means nothing. What it proves is that a run with SAM 3 works.
"""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import nn
from transformers import Sam3Config, Sam3Model

from ovsops.backbones.checkpoint import quiet_transformers
from ovsops.backbones.sam3_licence import OWN_WEIGHTS_KEY

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


def write_untrained_sam3(folder: Path | str, *, seed: int = 0, **fields: Any) -> Path:
    """Write config.json, model.safetensors and tokenizer.json; the same seed gives the same bytes.

    `fields` go to `tiny_sam3_config`.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    model = Sam3Model(tiny_sam3_config(**fields)).eval()
    randomize_sam3(model, seed=seed)
    with quiet_transformers():
        model.save_pretrained(str(place), safe_serialization=True)
    config_path = place / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8")) | {OWN_WEIGHTS_KEY: True}
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_clip_tokenizer(place)
    return place


def tiny_sam3_config(
    *,
    image_size: int = 168,
    num_blocks: int = 12,
    width: int = 64,
    heads: int = 4,
    window: int = 4,
    global_blocks: tuple[int, ...] = (2, 5, 8, 11),
    detector_width: int = 32,
    num_queries: int = 20,
    detector_layers: int = 2,
    text_layers: int = 2,
) -> Sam3Config:
    """SAM 3 in shape: windowed and global blocks, four pyramid levels, presence token, 32 tokens of text."""
    side = image_size // 14
    vocabulary = len(clip_vocabulary())
    layer = {"hidden_size": detector_width, "num_attention_heads": 4, "intermediate_size": 64}
    return Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": width,
                "intermediate_size": 2 * width,
                "num_hidden_layers": num_blocks,
                "num_attention_heads": heads,
                "image_size": image_size,
                "patch_size": 14,
                "window_size": window,
                "global_attn_indexes": list(global_blocks),
                "pretrain_image_size": 14 * window,
            },
            "fpn_hidden_size": detector_width,
            "scale_factors": [4.0, 2.0, 1.0, 0.5],
            "backbone_feature_sizes": [[side * 4] * 2, [side * 2] * 2, [side] * 2],
        },
        text_config={
            "model_type": "clip_text_model",
            "vocab_size": vocabulary,
            "hidden_size": 32,
            "intermediate_size": 64,
            "projection_dim": 16,
            "num_hidden_layers": text_layers,
            "num_attention_heads": 4,
            "max_position_embeddings": 32,
            "hidden_act": "gelu",
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": vocabulary - 1,
        },
        geometry_encoder_config={**layer, "num_layers": 1, "roi_size": 3},
        detr_encoder_config={**layer, "num_layers": detector_layers},
        detr_decoder_config={**layer, "num_layers": detector_layers, "num_queries": num_queries},
        mask_decoder_config={"hidden_size": detector_width, "num_attention_heads": 4},
    )


@torch.no_grad()
def randomize_sam3(model: nn.Module, *, seed: int) -> None:
    """Random values with which scores, masks and boxes differ from query to query and image to image.

    The usual start values leave every score at 0.25 and every mask flat, so that nothing could be tested. Matrices
    keep the variance of what runs through them; queries, their first boxes and their scores spread; presence leans to
    yes.
    """
    generator = torch.Generator().manual_seed(seed)
    modules = dict(model.named_modules())
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        owner = modules[name.rpartition(".")[0]]
        if isinstance(owner, nn.Embedding):
            spread = 1.5 if "reference_points" in name else 1.0 if "query_embed" in name else 0.5
            parameter.copy_(spread * noise)
        elif parameter.ndim < 2:
            near = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(near + 0.02 * noise)
        elif isinstance(owner, nn.ConvTranspose2d):
            parameter.copy_(noise * parameter.shape[0] ** -0.5)
        elif "position_embeddings" in name:
            parameter.copy_(0.5 * noise)
        else:
            parameter.copy_(noise * parameter[0].numel() ** -0.5)
    decoder: Any = modules["detr_decoder"]
    decoder.presence_head.layer3.bias.fill_(2.0)
    scoring: Any = modules["dot_product_scoring"]
    scoring.query_proj.weight.mul_(4.0)


def write_clip_tokenizer(folder: Path) -> None:
    """A tokenizer.json of CLIP's kind, without merges: lower case, words of single bytes, the last one marked."""
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(clip_vocabulary())},
            merges=[],
            unk_token=_EOS,
            end_of_word_suffix=_WORD_END,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(r"\s+", " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.add_special_tokens([_BOS, _EOS])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def clip_vocabulary() -> tuple[str, ...]:
    """Tokens in the order of their ids: bytes, bytes that end a word, and the two special ones last, as in CLIP."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    return (*bytes_, *(byte + _WORD_END for byte in bytes_), _BOS, _EOS)
