"""Models that do not fit are found from config.json alone, with the way out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.sam3_calibration_config import CalibrationConfig
from ovsops.backbones.untrained_sam3 import write_untrained_sam3
from ovsops.errors import CheckpointError
from ovsops.segmenters.cass_config import CassConfig
from ovsops.segmenters.clip_config import DenseClipConfig
from ovsops.segmenters.config import SegmenterConfig
from ovsops.segmenters.kinds import AnySegmenterConfig, check_models
from ovsops.segmenters.sam3_config import Sam3SegmenterConfig
from ovsops.segmenters.scclip_config import ScClipConfig
from tests.tiny import checkpoints as tiny
from tests.tiny.sam3 import SMALLEST

Places = dict[str, Checkpoint]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    root = tmp_path_factory.mktemp("fitting")
    folders = {
        "clip": tiny.write_clip(root / "clip", num_hidden_layers=5),
        "siglip": tiny.write_siglip(root / "siglip"),
        "vit": tiny.write_vit(root / "vit", width=32, heads=2),
        "vit3": tiny.write_vit(root / "vit3"),
        "dinov2": tiny.write_dinov2(root / "dinov2"),
        "mapper": tiny.write_mapper(root / "mapper"),
        "narrow_mapper": tiny.write_mapper(root / "narrow_mapper", text_width=16),
        "shallow": tiny.write_clip(root / "shallow", num_hidden_layers=1),
        "sam3": write_untrained_sam3(root / "sam3", **SMALLEST),
    }
    for folder in folders.values():
        for file in folder.glob("model*.safetensors"):
            file.write_bytes(b"no weight is read")
    return {name: Checkpoint(source=str(folder), sha256="0" * 64) for name, folder in folders.items()}


def config_of(places: Places, kind: str, **fields: Any) -> AnySegmenterConfig:
    """A config that fits; strings name other checkpoints."""
    chosen = {name: places[v] if isinstance(v, str) and v in places else v for name, v in fields.items()}
    clip, vit = {"clip": places["clip"]}, {"vfm": places["vit"]}
    fused = {"siglip": places["siglip"], "dino": places["dinov2"], "mapper": places["mapper"]}
    match kind:
        case "clip":
            return DenseClipConfig(**(clip | chosen))
        case "scclip":
            return ScClipConfig(**(clip | chosen))
        case "cass":
            return CassConfig(**(clip | vit | chosen))
        case "sam3":
            return Sam3SegmenterConfig(**({"sam3": places["sam3"]} | chosen))
    return SegmenterConfig(**(fused | chosen))


@pytest.mark.parametrize("kind", ["fused", "clip", "scclip", "cass", "sam3"])
def test_what_fits_passes_without_a_readable_weight(places: Places, kind: str) -> None:
    check_models(config_of(places, kind))


def test_towers_of_siglip_and_another_clip_fit_where_they_may(places: Places) -> None:
    check_models(config_of(places, "clip", clip="siglip"))
    check_models(config_of(places, "scclip", clip="siglip", residual_source="mean"))
    check_models(config_of(places, "cass", clip="siglip", prior_clip="clip"))
    check_models(config_of(places, "sam3", calibration="depth_scaled"))


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (
            "clip",
            {"clip": "vit"},
            r"vit: model_type is 'vit', and picture and text towers .* right checkpoint",
        ),
        (
            "clip",
            {"window": 8, "stride": 8},
            "patches are 16 px wide, and segmenter.window is 8 px: .* larger",
        ),
        (
            "scclip",
            {"similar_block": 5},
            r"\(`clip`\): segmenter.similar_block is 5; the tower has 5 blocks, of wh",
        ),
        ("scclip", {"clip": "shallow"}, "SC-CLIP needs a tower of 2 blocks or more, this one has 1"),
        ("scclip", {"clip": "siglip"}, "no CLS token; set cls_residual: 0, or residual_source: mean"),
        ("cass", {"vfm": "vit3"}, r"`clip` has 2 heads of 16 channels, `vfm` has 3 of 16, .*choose towers"),
        (
            "cass",
            {"vfm": "clip"},
            r"model_type is 'clip', and a vision foundation model \(vit, dinov2_with_reg",
        ),
        ("cass", {"clip": "shallow"}, "`clip` has 1 block; what enters its last block is needed"),
        ("cass", {"prior_clip": "vit"}, "model_type is 'vit', and picture and text towers"),
        ("fused", {"dino": "vit"}, r"a vision foundation model \(dinov2_with_registers\) must stand here"),
        (
            "fused",
            {"mapper": "narrow_mapper"},
            "gives 32 channels, mapper .* takes 16: .* not made for each other",
        ),
        ("fused", {"siglip": "clip"}, "`siglip` is a CLIP; a SigLIP 2 is expected"),
        ("fused", {"clip": "clip"}, "gives 24 channels, mapper .* takes 32"),
        ("sam3", {"sam3": "clip"}, "model_type is 'clip', and SAM 3"),
        (
            "sam3",
            {"calibration": "literal"},
            r"\(`sam3`\): calibration.pre_block: block 6 is no reference in an",
        ),
        (
            "sam3",
            {"calibration": CalibrationConfig(post_aggregate=True, post_block=5)},
            "calibration.post_block: block 5",
        ),
    ],
)
def test_what_does_not_fit_is_named(places: Places, kind: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        check_models(config_of(places, kind, **fields))


def test_dino_of_another_width_is_named(places: Places, tmp_path: Path) -> None:
    wide = tiny.write_dinov2(tmp_path / "wide", hidden_size=60)
    config = replace(config_of(places, "fused"), dino=Checkpoint(source=str(wide)))
    with pytest.raises(CheckpointError, match=r"ends in 48 channels, DINO .* has 60"):
        check_models(config)


def test_a_file_that_is_no_mapper_is_named(places: Places, tmp_path: Path) -> None:
    (tmp_path / "mapper.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a text-to-DINO mapper"):
        check_models(config_of(places, "fused", mapper=Checkpoint(source=str(tmp_path))))


def test_a_damaged_config_is_named(places: Places, tmp_path: Path) -> None:
    clip = tiny.write_clip(tmp_path / "clip")
    plain = json.loads((clip / "config.json").read_text())
    plain["vision_config"]["num_attention_heads"] = 5
    (clip / "config.json").write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match="not a multiple of the number of attention heads"):
        check_models(config_of(places, "cass", clip=Checkpoint(source=str(clip))))
