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
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    Sam3Config,
    Sam3Model,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTModel,
)

from ovsops.backbones.checkpoint import quiet_transformers
from ovsops.backbones.wordpiece import SEPARATOR_WORDS, wordpiece_vocabulary, write_wordpieces

IMAGE_SIZE, PATCH_SIZE = 128, 8
TEXT_LENGTH = 64
WIDTH, NUM_HEADS = 128, 4

_UNKNOWN = "<unk>"
_SPECIALS = ("<pad>", "<eos>", "<bos>", _UNKNOWN)
_CLIP_SPECIALS = ("<|startoftext|>", "<|endoftext|>", _UNKNOWN)
"""The end is not id 2, which transformers takes for a fault of old configs: it would pool the largest id instead."""


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


def miniature_clip(num_words: int, *, seed: int) -> Any:
    """CLIP with random weights, ready to train: 6 vision layers, a causal text tower of 2 layers."""
    shape = {"hidden_size": WIDTH, "num_attention_heads": NUM_HEADS, "intermediate_size": 256}
    config = CLIPConfig(
        projection_dim=WIDTH,
        text_config={
            **shape,
            "num_hidden_layers": 2,
            "vocab_size": len(_CLIP_SPECIALS) + num_words,
            "max_position_embeddings": TEXT_LENGTH,
            "projection_dim": WIDTH,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
        vision_config={
            **shape,
            "num_hidden_layers": 6,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "projection_dim": WIDTH,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CLIPModel(config).train()


def miniature_dino(*, seed: int) -> Any:
    """DINO (v1), a plain ViT, with random weights, ready to train: 4 layers, as many heads and channels as CLIP."""
    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=NUM_HEADS,
        intermediate_size=256,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ViTModel(config, add_pooling_layer=False).train()


def miniature_sam3(num_words: int, *, seed: int) -> Any:
    """SAM 3 with random weights, ready to train: windowed and global blocks by turns, masks of 32 x 32, 10 queries.

    Its pyramid has cells of 4, 8 and 16 px; SAM 3 has one level more, which would cost most of a step. No dropout.
    """
    detector = {"hidden_size": 64, "num_attention_heads": NUM_HEADS, "intermediate_size": 128, "dropout": 0.0}
    grid = IMAGE_SIZE // PATCH_SIZE
    config = Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": WIDTH,
                "num_attention_heads": NUM_HEADS,
                "intermediate_size": 384,
                "num_hidden_layers": 4,
                "image_size": IMAGE_SIZE,
                "pretrain_image_size": IMAGE_SIZE,
                "patch_size": PATCH_SIZE,
                "window_size": grid // 2,
                "global_attn_indexes": [1, 3],
            },
            "fpn_hidden_size": detector["hidden_size"],
            "scale_factors": [2.0, 1.0, 0.5],
            "backbone_feature_sizes": [[2 * grid] * 2, [grid] * 2],
        },
        text_config={
            "model_type": "clip_text_model",
            "hidden_size": WIDTH,
            "num_attention_heads": NUM_HEADS,
            "intermediate_size": 256,
            "num_hidden_layers": 1,
            "vocab_size": len(_CLIP_SPECIALS) + num_words,
            "max_position_embeddings": 32,
            "projection_dim": WIDTH,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
        geometry_encoder_config={**detector, "num_layers": 1, "roi_size": 3},
        detr_encoder_config={**detector, "num_layers": 2},
        detr_decoder_config={**detector, "num_layers": 2, "num_queries": 10},
        mask_decoder_config={
            "hidden_size": detector["hidden_size"],
            "num_attention_heads": NUM_HEADS,
            "num_upsampling_stages": 1,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Sam3Model(config)
        _spread_detector(model)
    return model.train()


def miniature_llmdet(words: Sequence[str], *, seed: int) -> Any:
    """LLMDet (MM-Grounding-DINO) with random weights, ready to train: a Swin of 3 stages, 1 + 2 layers.

    Its maps have cells of 8 and 16 px; LLMDet has two coarser ones more. 30 queries, whole words as text tokens, no
    dropout, dropped paths or frozen parts.
    """
    config = MMGroundingDinoConfig(
        backbone_config={
            "model_type": "swin",
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE // 2,
            "window_size": 8,
            "embed_dim": 32,
            "depths": (1, 2, 2),
            "num_heads": (2, 4, 8),
            "mlp_ratio": 2.0,
            "drop_path_rate": 0.0,
            "out_features": ["stage2", "stage3"],
        },
        text_config={
            "model_type": "bert",
            "vocab_size": len(wordpiece_vocabulary(_pieces(words))),
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": NUM_HEADS,
            "intermediate_size": 128,
            "max_position_embeddings": 256,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        num_feature_levels=2,
        num_queries=30,
        d_model=64,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        encoder_attention_heads=NUM_HEADS,
        decoder_attention_heads=NUM_HEADS,
        dropout=0.0,
        fusion_droppath=0.0,
        decoder_bbox_embed_share=False,
        decoder_cls_embed_share=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MMGroundingDinoForObjectDetection(config).train()


@torch.no_grad()
def _spread_detector(model: Any) -> None:
    """Start values with which signals keep their size: at transformers' every box and every score is the same.

    Boxes start where their queries look, which differs from query to query (arXiv:2010.04159).
    """
    for part in (model.vision_encoder.neck, model.text_projection, model.detr_encoder, model.detr_decoder):
        _xavier(part)
    for part in (model.geometry_encoder, model.mask_decoder, model.dot_product_scoring):
        _xavier(part)
    decoder = model.detr_decoder
    torch.nn.init.normal_(decoder.query_embed.weight)
    torch.nn.init.normal_(decoder.presence_token.weight)
    torch.nn.init.normal_(decoder.reference_points.weight, std=1.0)
    decoder.reference_points.weight[:, 2:] -= 1.0
    torch.nn.init.zeros_(decoder.box_head.layer3.weight)
    torch.nn.init.zeros_(decoder.box_head.layer3.bias)


def _xavier(part: torch.nn.Module) -> None:
    for parameter in part.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.xavier_uniform_(parameter)


def write_word_tokenizer(folder: Path, words: Sequence[str]) -> None:
    """tokenizer.json of whole English words and single Chinese characters; other words become `<unk>`."""
    _write_words(folder, (*_SPECIALS, *words))


def write_clip_tokenizer(folder: Path, words: Sequence[str]) -> None:
    """The same words with CLIP's own start and end tokens."""
    _write_words(folder, (*_CLIP_SPECIALS, *words))


def write_bert_tokenizer(folder: Path, words: Sequence[str]) -> None:
    """The same words with BERT's separators; full stop and question mark end a name, other words become `[UNK]`."""
    write_wordpieces(folder, _pieces(words))


def _pieces(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in SEPARATOR_WORDS)


def _write_words(folder: Path, tokens: Sequence[str]) -> None:
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=_UNKNOWN))
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
