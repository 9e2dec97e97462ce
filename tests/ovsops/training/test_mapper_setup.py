"""From checkpoint folders to a program, features computed once."""

from pathlib import Path

import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.training import mapper_setup
from ovsops.training.mapper_config import MapperProgramConfig
from ovsops.training.mapper_setup import MapperTowers, build_mapper_program, prepare_mapper
from tests.ovsops.training.mapper_world import World
from tests.tiny.checkpoints import write_dinov2, write_siglip


def towers(folder: Path, *, with_siglip_vision: bool = True) -> MapperTowers:
    return MapperTowers(
        dino=Checkpoint(source=str(write_dinov2(folder / "dinov2"))),
        siglip=Checkpoint(source=str(write_siglip(folder / "siglip2"))),
        with_siglip_vision=with_siglip_vision,
    )


def test_a_program_from_folders_is_the_one_over_the_features(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = MapperProgramConfig(batch_size=4, grids=(4,), masked_weight=0.1, distilled_scenes=2)
    program = build_mapper_program(world.bank, config, towers(tmp_path), tmp_path / "cache")
    own, other = program.features.grid(4), world.features.grid(4)
    torch.testing.assert_close(own.patch_tokens, other.patch_tokens)
    assert own.aligned is not None
    assert program.losses(0).keys() == {"infonce", "masked", "total"}

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("computed twice")

    monkeypatch.setattr(mapper_setup, "compute_features", fail)
    again = build_mapper_program(world.bank, config, towers(tmp_path), tmp_path / "cache")
    assert torch.equal(again.losses(0)["total"], program.losses(0)["total"])


def test_without_siglip_vision_there_are_no_siglip_patches(world: World, tmp_path: Path) -> None:
    inputs = prepare_mapper(
        world.bank, towers(tmp_path, with_siglip_vision=False), tmp_path / "cache", grids=(4, 4)
    )
    assert inputs.features.grid(4).aligned is None
    assert inputs.views.siglip is None
