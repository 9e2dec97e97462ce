"""What config.json says about towers, and that no weight is read for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from ovsops.backbones.checkpoint import Checkpoint, ResolvedCheckpoint, resolve
from ovsops.backbones.presets import PRESETS
from ovsops.backbones.shapes import sam3_shape, text_shape, vfm_shape, vlm_shapes
from ovsops.backbones.untrained_sam3 import tiny_sam3_config
from ovsops.errors import CheckpointError
from tests.tiny import checkpoints as tiny


def place_of(folder: Path, plain: dict[str, Any]) -> ResolvedCheckpoint:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(plain))
    return ResolvedCheckpoint(folder, "local", None)


@pytest.mark.parametrize(
    "name", ["siglip2-so400m-patch14-384", "siglip2-giant-opt-patch16-256", "clip-vit-large-patch14"]
)
def test_published_towers(tmp_path: Path, name: str) -> None:
    preset = PRESETS[name]
    model_type = "clip" if preset.family == "clip" else "siglip"
    vision, text = vlm_shapes(place_of(tmp_path, {"model_type": model_type, **preset.config}))
    expected = preset.config["vision_config"]
    assert (vision.num_layers, vision.num_heads) == (
        expected["num_hidden_layers"],
        expected["num_attention_heads"],
    )
    assert (vision.width, vision.patch_size) == (expected["hidden_size"], expected["patch_size"])
    assert vision.num_prefix == (1 if model_type == "clip" else 0)
    assert text.width == (768 if model_type == "clip" else vision.width)
    assert text.length == (77 if model_type == "clip" else 64)


def test_what_config_json_leaves_out_is_the_library_s_default(tmp_path: Path) -> None:
    vision, text = vlm_shapes(place_of(tmp_path / "clip", {"model_type": "clip"}))
    assert (vision.num_layers, vision.num_heads, vision.width, vision.patch_size) == (12, 12, 768, 32)
    assert text.width == 512
    sam3 = sam3_shape(place_of(tmp_path / "sam3", {"model_type": "sam3"}))
    assert (sam3.num_blocks, sam3.global_blocks, sam3.text_length) == (32, (7, 15, 23, 31), 32)
    dino = vfm_shape(place_of(tmp_path / "vit", {"model_type": "vit", "patch_size": 8}))
    assert (dino.num_heads, dino.head_width, dino.patch_size) == (12, 64, 8)


def test_real_folders_need_no_readable_weights(tmp_path: Path) -> None:
    for folder in (tiny.write_clip(tmp_path / "clip"), tiny.write_dinov2(tmp_path / "dinov2")):
        (folder / "model.safetensors").write_bytes(b"damaged")
    vision, text = vlm_shapes(resolve(Checkpoint(source=str(tmp_path / "clip"))))
    assert (vision.head_width, text.width, text.length) == (16, tiny.CLIP_WIDTH, 77)
    dino = vfm_shape(resolve(Checkpoint(source=str(tmp_path / "dinov2"))))
    assert (dino.model_type, dino.num_prefix) == ("dinov2_with_registers", 5)


def test_sam3_inside_the_video_model(tmp_path: Path) -> None:
    detector = tiny_sam3_config().to_dict()
    shape = sam3_shape(place_of(tmp_path, {"model_type": "sam3_video", "detector_config": detector}))
    assert (shape.num_blocks, shape.global_blocks) == (12, (2, 5, 8, 11))


def test_a_text_tower_alone(tmp_path: Path) -> None:
    plain = {"model_type": "clip_text_model", "projection_dim": 40, "max_position_embeddings": 77}
    assert text_shape(place_of(tmp_path, plain)).width == 40


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (
            {"model_type": "bert"},
            "model_type is 'bert', and picture and text towers .clip, siglip, siglip2. must",
        ),
        ({}, "model_type is None"),
        ({"model_type": "clip_vision_model"}, "model_type is 'clip_vision_model'"),
        (
            {"model_type": "clip", "vision_config": {"hidden_size": 33, "num_attention_heads": 2}},
            "not a multiple",
        ),
        (
            {"model_type": "clip", "vision_config": {"hidden_size": "wide"}},
            "describes no CLIPConfig that can be",
        ),
        (
            {"model_type": "clip", "vision_config": {"projection_dim": 3}},
            "in 3 channels and text in 512: they share no",
        ),
        ({"model_type": "siglip", "vision_config": {"vision_use_head": False}}, "no pooling head"),
    ],
)
def test_what_is_no_pair_of_towers_is_refused(tmp_path: Path, plain: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        vlm_shapes(place_of(tmp_path, plain))


def test_what_is_no_vfm_or_sam3_is_refused(tmp_path: Path) -> None:
    place = place_of(tmp_path, {"model_type": "vit"})
    with pytest.raises(
        CheckpointError, match=r"a vision foundation model \(dinov2_with_registers\) must stand here"
    ):
        vfm_shape(place, "dinov2_with_registers")
    with pytest.raises(CheckpointError, match="model_type is 'vit', and SAM 3"):
        sam3_shape(place)
