"""Full-size models on the meta device against published counts, shapes and FLOPs."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ovsops.backbones.fgclip2_model import ADDED_PARAMETERS
from ovsops.backbones.presets import (
    PRESETS,
    empty_model,
    num_parameters,
    parameter_shapes,
    preset,
)
from ovsops.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("siglip2-base-patch16-512", 408),  # 16 a layer + 24, both families
        ("siglip2-base-patch16-naflex", 408),
        ("siglip2-large-patch16-512", 792),
        ("siglip2-so400m-patch16-naflex", 888),
        ("dinov2-with-registers-base", 12 * 18 + 8),
        ("dinov2-with-registers-large", 24 * 18 + 8),
        ("fg-clip2-base", 408 + 17),
        ("fg-clip2-large", 792 + 17),
        ("fg-clip2-so400m", 888 + 17),
        ("clip-vit-base-patch16", 24 * 16 + 14),
        ("clip-vit-large-patch14", 36 * 16 + 14),
        ("llmdet_tiny", 12 * 17 + 21 + 792),  # blocks of Swin; its edges, merges and norms; all behind it
        ("llmdet_base", 24 * 17 + 21 + 792),
        ("llmdet_large", 24 * 17 + 23 + 796),  # one more map: a norm in Swin, a projection behind it
        (
            "Florence-2-base",
            16 + 12 * 32 + 5 + 6 * (16 + 26) + 7,
        ),  # stages, blocks, projector, layers of BART, its edges
        ("Florence-2-large", 16 + 12 * 32 + 5 + 12 * (16 + 26) + 7),
    ],
)
def test_every_published_key_is_there_and_no_other(name: str, keys: int) -> None:
    assert len(parameter_shapes(preset(name))) == keys


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("dinov2-with-registers-base", 86.6),
        ("dinov2-with-registers-large", 304.4),
        ("clip-vit-base-patch16", 149.6),
        ("clip-vit-large-patch14", 427.6),
        ("siglip2-base-patch16-512", 375.8),
        ("Florence-2-base", 231.4),  # 0.23 and 0.77 billion in arXiv:2311.06242
        ("Florence-2-large", 770.2),
    ],
)
def test_parameter_counts(name: str, millions: float) -> None:
    assert num_parameters(preset(name)) / 1e6 == pytest.approx(millions, abs=0.06)


def test_siglip_text_tower_of_base_size() -> None:
    shapes = parameter_shapes(preset("siglip2-base-patch16-512"))
    text = sum(torch.Size(s).numel() for n, s in shapes.items() if n.startswith("text_model."))
    assert text / 1e6 == pytest.approx(282, abs=0.5)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        (
            "siglip2-base-patch16-512",
            {
                "text_model.embeddings.token_embedding.weight": (256_000, 768),
                "text_model.embeddings.position_embedding.weight": (64, 768),
                "text_model.head.weight": (768, 768),
                "vision_model.embeddings.patch_embedding.weight": (768, 3, 16, 16),
                "vision_model.embeddings.position_embedding.weight": (1024, 768),
                "vision_model.head.probe": (1, 1, 768),
                "vision_model.head.attention.in_proj_weight": (2304, 768),
                "vision_model.head.mlp.fc1.weight": (3072, 768),
                "logit_scale": (1,),
                "logit_bias": (1,),
            },
        ),
        (
            "siglip2-base-patch16-naflex",
            {
                "vision_model.embeddings.patch_embedding.weight": (768, 768),
                "vision_model.embeddings.position_embedding.weight": (256, 768),
            },
        ),
        (
            "siglip2-giant-opt-patch16-384",
            {
                "text_model.embeddings.token_embedding.weight": (256_000, 1152),
                "text_model.head.weight": (1536, 1152),
                "vision_model.head.probe": (1, 1, 1536),
            },
        ),
        (
            "dinov2-with-registers-base",
            {
                "embeddings.cls_token": (1, 1, 768),
                "embeddings.register_tokens": (1, 4, 768),
                "embeddings.mask_token": (1, 768),
                "embeddings.position_embeddings": (1, 37 * 37 + 1, 768),
                "embeddings.patch_embeddings.projection.weight": (768, 3, 14, 14),
                "encoder.layer.11.layer_scale1.lambda1": (768,),
                "encoder.layer.11.attention.q_proj.weight": (768, 768),
                "encoder.layer.11.mlp.fc1.weight": (3072, 768),
            },
        ),
        (
            "fg-clip2-base",
            {
                "text_model.embeddings.position_embedding.weight": (64, 768),
                "text_model.embeddings.position_embedding_ori.weight": (196, 768),
                "text_model.embeddings.position_embedding_res.weight": (196, 768),
                "longtext_head.weight": (768, 768),
                "boxtext_head.bias": (768,),
                "dense_feature_head.probe": (1, 1, 768),
                "dense_feature_head.attention.in_proj_weight": (2304, 768),
                "dense_feature_head.mlp.fc2.weight": (768, 3072),
            },
        ),
        (
            "clip-vit-base-patch16",
            {
                "text_model.embeddings.token_embedding.weight": (49_408, 512),
                "text_model.embeddings.position_embedding.weight": (77, 512),
                "text_projection.weight": (512, 512),
                "vision_model.embeddings.position_embedding.weight": (197, 768),
                "visual_projection.weight": (512, 768),
            },
        ),
    ],
)
def test_published_shapes(name: str, shapes: dict[str, tuple[int, ...]]) -> None:
    found = parameter_shapes(preset(name))
    assert {key: found.get(key) for key in shapes} == shapes


@pytest.mark.parametrize(
    ("size", "millions"),
    [("tiny", 27.52), ("base", 86.88), ("large", 195.20)],  # Swin without a head: 27.52, 86.88, 195.20
)
def test_parameters_of_llmdet_by_part(size: str, millions: float) -> None:
    model: Any = empty_model(preset(f"llmdet_{size}"))
    swin = model.model.backbone.conv_encoder.model.swin
    assert sum(p.numel() for p in swin.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    bert = sum(p.numel() for p in model.model.text_backbone.parameters())
    assert bert == 109_482_240 - 768 * 769  # bert-base-uncased without its pooler
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    width, levels = {"tiny": (96, 4), "base": (128, 4), "large": (192, 5)}[size]
    window = 7 if size == "tiny" else 12
    expected = {
        "model.level_embed": (levels, 256),
        "model.query_position_embeddings.weight": (900, 256),
        "model.text_projection.weight": (256, 768),
        f"model.input_proj_vision.{levels - 2}.0.weight": (256, 8 * width, 1, 1),
        f"model.input_proj_vision.{levels - 1}.0.weight": (256, 8 * width, 3, 3),
        "model.decoder.bbox_embed.5.layers.2.weight": (4, 256),
        "model.decoder.class_embed.5.bias": (),
        "model.decoder.layers.5.encoder_attn.sampling_offsets.weight": (8 * levels * 4 * 2, 256),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    tables = [shape for name, shape in shapes.items() if name.endswith("relative_position_bias_table")]
    assert {shape[0] for shape in tables} == {(2 * window - 1) ** 2}


@pytest.fixture(scope="module")
def sam3() -> Any:
    return empty_model(preset("sam3"))


@pytest.mark.parametrize(
    ("part", "millions"),
    [
        ("vision_encoder.backbone", 446.24),
        ("vision_encoder.neck", 7.80),
        ("text_encoder", 353.46),
        ("text_projection", 0.26),
        ("geometry_encoder", 8.08),
        ("detr_encoder", 9.47),
        ("detr_decoder", 11.58),
        ("dot_product_scoring", 1.18),
        ("mask_decoder", 2.30),
    ],
)
def test_parameters_of_sam3_by_part(sam3: Any, part: str, millions: float) -> None:
    assert sum(p.numel() for p in sam3.get_submodule(part).parameters()) / 1e6 == pytest.approx(
        millions, abs=0.006
    )


def test_sam3_has_the_published_shapes_and_nothing_besides_its_parts(sam3: Any) -> None:
    shapes = {name: tuple(p.shape) for name, p in sam3.named_parameters()}
    expected = {
        "vision_encoder.backbone.embeddings.position_embeddings": (1, 24 * 24, 1024),
        "vision_encoder.backbone.layers.31.mlp.fc1.weight": (4736, 1024),
        "text_encoder.text_model.embeddings.token_embedding.weight": (49_408, 1024),
        "text_encoder.text_model.embeddings.position_embedding.weight": (32, 1024),
        "text_encoder.text_projection.weight": (512, 1024),
        "text_projection.weight": (256, 1024),
        "detr_decoder.query_embed.weight": (200, 256),
        "detr_decoder.reference_points.weight": (200, 4),
        "geometry_encoder.boxes_pool_project.weight": (256, 256, 7, 7),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert sum(p.numel() for p in sam3.parameters()) / 1e6 == pytest.approx(840.38, abs=0.01)
    assert preset("sam3").gated
    assert "SAM" in preset("sam3").licence


def gflop(model: Any, **inputs: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs)
    return counter.get_total_flops() / 1e9


@pytest.mark.parametrize(("side", "expected"), [(448, 214.75), (518, 304.23)])
def test_flops_of_dinov2_base(side: int, expected: float) -> None:
    model = empty_model(preset("dinov2-with-registers-base"))
    views = torch.empty(1, 3, side, side, device="meta")
    assert gflop(model, pixel_values=views) == pytest.approx(expected, rel=1e-3)


def test_flops_of_siglip2_base() -> None:
    model: Any = empty_model(preset("siglip2-base-patch16-512"))
    views = torch.empty(1, 3, 512, 512, device="meta")
    assert gflop(model.vision_model, pixel_values=views) == pytest.approx(216.24, rel=1e-3)
    ids = torch.zeros(1, 64, dtype=torch.int64, device="meta")
    assert gflop(model.text_model, input_ids=ids) == pytest.approx(11.02, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "siglip2"),
    [
        ("fg-clip2-base", "siglip2-base-patch16-naflex"),
        ("fg-clip2-so400m", "siglip2-so400m-patch16-naflex"),
    ],
)
def test_fgclip2_is_siglip2_and_the_added_parameters(name: str, siglip2: str) -> None:
    ours, theirs = parameter_shapes(preset(name)), parameter_shapes(preset(siglip2))
    assert set(ours) - set(theirs) == ADDED_PARAMETERS
    assert {key: ours.get(key) for key in theirs} == theirs


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_built(name: str) -> None:
    assert parameter_shapes(preset(name))
    assert preset(name).repo.split("/")[1] == name


def test_an_unknown_preset_names_the_known() -> None:
    with pytest.raises(ConfigError, match="siglip2-base-patch16-512"):
        preset("siglip2-base")
