"""The DINOv2 program with labels: it learns, it repeats, and what it exports is what it trained."""

import math
from pathlib import Path

import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.dinov2 import Dinov2
from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.training.dinov2 import Dinov2Program, Dinov2ProgramConfig, mirrored
from ovsops.training.loop import Progress
from ovsops.training.scenes import SceneBank
from tests.ovsops.training.programs import (
    losses_whatever_was_drawn_before,
    rows_on_one_batch,
    values,
    without_gradient,
)

CONFIG = Dinov2ProgramConfig(batch_size=4)


@pytest.fixture(scope="module")
def trained(
    bank: SceneBank, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Dinov2Program, list[Progress]]:
    folder = tmp_path_factory.mktemp("dinov2")
    program = Dinov2Program(bank, CONFIG, folder / "work")
    return program, rows_on_one_batch(program, folder)


def test_the_loss_falls_on_one_batch(trained: tuple[Dinov2Program, list[Progress]]) -> None:
    rows = trained[1]
    assert all(math.isfinite(value) for row in rows for value in row.losses.values())
    for name in ("patches", "pictures", "total"):
        assert rows[-1].losses[name] < 0.9 * rows[0].losses[name], name


def test_a_step_is_the_same_whatever_was_drawn_before(bank: SceneBank, tmp_path: Path) -> None:
    program = Dinov2Program(bank, CONFIG, tmp_path)
    first, again = losses_whatever_was_drawn_before(program, 1)
    assert first == again
    with torch.no_grad():
        assert values(program.losses(0)) != first
        assert values(Dinov2Program(bank, CONFIG, tmp_path).losses(1)) == first


def test_gradients_reach_all_but_the_mask_token(bank: SceneBank, tmp_path: Path) -> None:
    program = Dinov2Program(bank, CONFIG, tmp_path)
    assert without_gradient(program) == {"model.embeddings.mask_token"}  # nothing is masked


def test_heads_that_say_nothing_cost_what_guessing_costs(bank: SceneBank, tmp_path: Path) -> None:
    program = Dinov2Program(bank, Dinov2ProgramConfig(batch_size=4, image_label_weight=0.5), tmp_path)
    for head in (program.module.patch_head, program.module.image_head):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    with torch.no_grad():
        losses = values(program.losses(0))
    assert losses["patches"] == pytest.approx(math.log(20), rel=1e-5)  # 20 classes alike
    assert losses["pictures"] == pytest.approx(math.log(2), rel=1e-5)
    assert losses["total"] == pytest.approx(math.log(20) + 0.5 * math.log(2), rel=1e-5)


def test_masks_are_mirrored_with_their_pictures(bank: SceneBank) -> None:
    flipped = torch.tensor([True, False])
    images, semantic = mirrored(bank.images[:2], flipped), mirrored(bank.semantic[:2], flipped)
    assert torch.equal(images[0], bank.images[0].flip(2))
    assert torch.equal(semantic[0], bank.semantic[0].flip(1))
    assert torch.equal(images[1], bank.images[1])
    assert torch.equal(semantic[1], bank.semantic[1])


def test_the_exported_checkpoint_gives_the_trained_features(
    trained: tuple[Dinov2Program, list[Progress]], bank: SceneBank, tmp_path: Path
) -> None:
    program = trained[0]
    program.export(tmp_path / "checkpoint")
    loaded = Dinov2(
        resolve(Checkpoint(source=str(tmp_path / "checkpoint"))), device="cpu", dtype=torch.float32
    )
    pixels = bank.images[:2].float()
    found = loaded.encode(pixels, with_attention=False).patch_tokens.flatten(1, 2)
    with torch.no_grad():
        views = normalized(pixels, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        expected = program.module.model(views).last_hidden_state[:, 5:]
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)  # weights were rounded to float16
    assert torch.cosine_similarity(found, expected, dim=-1).min() > 0.9999
