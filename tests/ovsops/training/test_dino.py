"""The DINOv2 program on a plain ViT: DINO's architecture, with no registers and no mask token."""

from pathlib import Path

import pytest
import torch
from transformers import ViTModel

from ovsops.backbones.miniature import miniature_dino
from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.training.dinov2 import Dinov2Program, Dinov2ProgramConfig
from ovsops.training.loop import Progress
from ovsops.training.scenes import SceneBank
from tests.ovsops.training.programs import rows_on_one_batch, without_gradient

CONFIG = Dinov2ProgramConfig(batch_size=4)


@pytest.fixture(scope="module")
def trained(
    bank: SceneBank, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Dinov2Program, list[Progress]]:
    folder = tmp_path_factory.mktemp("dino")
    program = Dinov2Program(bank, CONFIG, folder / "work", build_model=miniature_dino)
    return program, rows_on_one_batch(program, folder)


def test_the_loss_falls_on_one_batch(trained: tuple[Dinov2Program, list[Progress]]) -> None:
    rows = trained[1]
    for name in ("patches", "pictures", "total"):
        assert rows[-1].losses[name] < 0.9 * rows[0].losses[name], name


def test_gradients_reach_every_parameter(bank: SceneBank, tmp_path: Path) -> None:
    program = Dinov2Program(bank, CONFIG, tmp_path, build_model=miniature_dino)
    assert without_gradient(program) == set()
    assert program.num_prefix == 1  # CLS alone


def test_the_exported_checkpoint_gives_the_trained_features(
    trained: tuple[Dinov2Program, list[Progress]], bank: SceneBank, tmp_path: Path
) -> None:
    program = trained[0]
    program.export(tmp_path)
    loaded = ViTModel.from_pretrained(str(tmp_path), add_pooling_layer=False, dtype=torch.float32).eval()
    views = normalized(bank.images[:2].float(), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    with torch.no_grad():
        found, expected = loaded(views).last_hidden_state, program.module.model(views).last_hidden_state
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)  # weights were rounded to float16
