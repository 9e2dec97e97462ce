"""A tiny LLMDet checkpoint with random weights: the real classes, files and separators, about 1 MB.

It knows nothing: a box that it draws means nothing. What it proves is that a run with a detector works.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import MMGroundingDinoConfig, MMGroundingDinoForObjectDetection

from ovsops.backbones.checkpoint import quiet_transformers
from ovsops.backbones.wordpiece import wordpiece_vocabulary, write_wordpieces

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_SIGNS = "-',&/:;!+#*\"%="
_KNOWN = (*_LETTERS, *(f"##{letter}" for letter in _LETTERS), *_SIGNS)


def write_untrained_llmdet(folder: Path | str, *, seed: int = 0, **fields: Any) -> Path:
    """Write config.json, model.safetensors and tokenizer.json; the same seed gives the same bytes.

    `fields` go to `tiny_llmdet_config`.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    model = MMGroundingDinoForObjectDetection(tiny_llmdet_config(**fields)).eval()
    randomize_llmdet(model, seed=seed)
    with quiet_transformers():
        model.save_pretrained(str(place), safe_serialization=True)
    write_wordpiece_tokenizer(place)
    return place


def tiny_llmdet_config(
    *,
    width: int = 32,
    swin_width: int = 16,
    layers: int = 2,
    num_queries: int = 20,
    stages: tuple[str, ...] = ("stage2", "stage3", "stage4"),
) -> MMGroundingDinoConfig:
    """LLMDet in shape: Swin stages, one further map, two-stage queries, 256 tokens of text, a head for each layer."""
    return MMGroundingDinoConfig(
        backbone_config={
            "model_type": "swin",
            "image_size": 64,
            "window_size": 4,
            "embed_dim": swin_width,
            "depths": (1, 1, 1, 1),
            "num_heads": (1, 2, 2, 4),
            "out_features": list(stages),
        },
        text_config={
            "model_type": "bert",
            "vocab_size": len(wordpiece_vocabulary(_KNOWN)),
            "hidden_size": width,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 2 * width,
            "max_position_embeddings": 256,
        },
        num_feature_levels=len(stages) + 1,
        num_queries=num_queries,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_ffn_dim=2 * width,
        decoder_ffn_dim=2 * width,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        decoder_bbox_embed_share=False,
        decoder_cls_embed_share=False,
    )


@torch.no_grad()
def randomize_llmdet(model: nn.Module, *, seed: int) -> None:
    """Random values with which scores and boxes differ from query to query, image to image and prompt to prompt.

    The usual start values make every score 0.01 and switch the fusion of image and text off, so that nothing could be
    tested. Matrices keep the variance of what runs through them; fusion is on; scores spread around one half.
    """
    generator = torch.Generator().manual_seed(seed)
    modules = dict(model.named_modules())
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        owner = modules[name.rpartition(".")[0]]
        if isinstance(owner, nn.Embedding) or name.endswith("level_embed"):
            parameter.copy_(noise)
        elif name.endswith(("vision_param", "text_param")):
            parameter.copy_(0.5 + 0.1 * noise)
        elif parameter.ndim < 2:
            near = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(near + 0.1 * noise)
        else:
            parameter.copy_(noise * parameter[0].numel() ** -0.5)


def write_wordpiece_tokenizer(folder: Path) -> None:
    """A tokenizer.json of uncased BERT's kind and separators that knows single letters, digits and signs."""
    write_wordpieces(folder, _KNOWN)
