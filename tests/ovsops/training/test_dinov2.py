"""The DINOv2 program with labels: it learns, it repeats, and what it exports is what it trained."""

import math
from pathlib import Path

import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.dinov2 import Dinov2
from ovsops.backbones.miniature import miniature_dino
from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.errors import ConfigError
from ovsops.miniature.scene import SceneConfig, draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.training.dinov2 import Dinov2Program, Dinov2ProgramConfig, mirrored
from ovsops.training.loop import Progress
from ovsops.training.scenes import SceneBank, bank_of
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


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batch_size": 0}, r"program\.batch_size is 0; it must be 1 or more"),
        ({"label_weight": -1.0}, r"program\.label_weight is -1\.0; it must be 0 or more"),
        ({"label_weight": 0.0, "image_label_weight": 0.0}, "every weight is 0"),
        ({"stuff_share": -0.1}, r"program\.stuff_share is -0\.1"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Dinov2ProgramConfig(**fields)  # type: ignore[arg-type]


def test_scenes_that_patches_do_not_fill_are_refused_and_other_whole_ones_are_not(tmp_path: Path) -> None:
    seed = seeds_of("train")[0]
    config = Dinov2ProgramConfig(batch_size=1)
    with pytest.raises(ConfigError, match=r"are 100x100 pixels .* which patches of 8 do not fill"):
        Dinov2Program(bank_of([draw_scene(seed, SceneConfig(size=100))]), config, tmp_path)
    small = bank_of([draw_scene(seed, SceneConfig(size=64))])
    with torch.no_grad():
        assert Dinov2Program(small, config, tmp_path).losses(0)["total"].isfinite()
    with pytest.raises(ConfigError, match="learns from 128x128"):
        Dinov2Program(small, config, tmp_path, build_model=miniature_dino)


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
