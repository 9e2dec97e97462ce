"""Self-supervised DINOv2: it learns from pixels alone, and its teacher follows the student."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.dinov2 import Dinov2
from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.errors import ConfigError
from ovsops.training.loop import LoopConfig, Progress, make_optimizer, take_step
from ovsops.training.scenes import SceneBank
from ovsops.training.self_supervised import SelfSupervisedConfig, SelfSupervisedProgram
from tests.ovsops.training.programs import (
    losses_whatever_was_drawn_before,
    rows_on_one_batch,
    values,
    without_gradient,
)

CONFIG = SelfSupervisedConfig(
    batch_size=4,
    global_pixels=48,
    local_pixels=24,
    num_local=2,
    num_prototypes=32,
    teacher_momentum=0.75,
)


def build(bank: SceneBank, folder: Path, **fields: object) -> SelfSupervisedProgram:
    return SelfSupervisedProgram(bank, replace(CONFIG, **fields), folder)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(
    bank: SceneBank, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SelfSupervisedProgram, list[Progress]]:
    folder = tmp_path_factory.mktemp("self_supervised")
    program = build(bank, folder, teacher_momentum=0.999)  # a teacher that stays is a target that stays
    return program, rows_on_one_batch(program, folder)


def test_the_loss_falls_on_one_batch(trained: tuple[SelfSupervisedProgram, list[Progress]]) -> None:
    rows = trained[1]
    assert all(math.isfinite(value) for row in rows for value in row.losses.values())
    for name in ("dino", "ibot", "total"):
        assert rows[-1].losses[name] < 0.9 * rows[0].losses[name], name


def test_a_step_is_the_same_whatever_was_drawn_before(bank: SceneBank, tmp_path: Path) -> None:
    first, again = losses_whatever_was_drawn_before(build(bank, tmp_path), 1)
    assert first == again
    with torch.no_grad():
        assert values(build(bank, tmp_path).losses(1)) == first


def test_total_is_the_weighted_sum(bank: SceneBank, tmp_path: Path) -> None:
    program = build(bank, tmp_path, dino_weight=2.0, ibot_weight=0.5, koleo_weight=0.25)
    with torch.no_grad():
        losses = values(program.losses(0))
    expected = 2 * losses["dino"] + 0.5 * losses["ibot"] + 0.25 * losses["koleo"]
    assert losses["total"] == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_the_whole_student_and_none_the_teacher(bank: SceneBank, tmp_path: Path) -> None:
    program = build(bank, tmp_path)
    assert without_gradient(program) == set()
    teacher = program.module.teacher
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert any("mask_token" in name for name, _ in program.module.student.named_parameters())


def test_the_teacher_starts_as_the_student_and_follows_its_average(bank: SceneBank, tmp_path: Path) -> None:
    program = build(bank, tmp_path)
    module, loop = program.module, LoopConfig(num_steps=2, learning_rate=0.01)
    start = {name: p.detach().clone() for name, p in module.student.named_parameters()}
    for name, p in module.teacher.named_parameters():
        assert torch.equal(p, start[name])
    optimizer = make_optimizer(module, loop)
    expected = start
    for step in range(2):
        take_step(program, optimizer, step, 0.01, loop)
        student = {name: p.detach() for name, p in module.student.named_parameters()}
        expected = {name: 0.75 * expected[name] + 0.25 * student[name] for name in start}
    for name, p in module.teacher.named_parameters():
        torch.testing.assert_close(p, expected[name], atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(p, start[name]) for name, p in module.teacher.named_parameters())


def test_masks_and_captions_are_not_looked_at(bank: SceneBank, tmp_path: Path) -> None:
    blind = replace(
        bank,
        instances=torch.zeros_like(bank.instances),
        semantic=torch.zeros_like(bank.semantic),
        codes=torch.zeros_like(bank.codes),
        things=((),) * len(bank),
        captions={},
    )
    with torch.no_grad():
        seen = values(build(bank, tmp_path).losses(0))
        assert values(build(blind, tmp_path).losses(0)) == seen


def test_the_student_does_not_see_masked_patches(bank: SceneBank, tmp_path: Path) -> None:
    program = build(bank, tmp_path)
    views = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 6, 6, dtype=torch.bool)
    mask[0, 2, 3] = True
    other = views.clone()
    other[:, :, 16:24, 24:32] = 5.0  # pixels of that patch
    with torch.no_grad():
        hidden = [program.module.student.tokens(v, mask)[1] for v in (views, other)]
        shown = [program.module.student.tokens(v)[1] for v in (views, other)]
    torch.testing.assert_close(hidden[0], hidden[1])
    assert (shown[0] - shown[1]).abs().max() > 0.01


def test_it_runs_without_local_views(bank: SceneBank, tmp_path: Path) -> None:
    losses = build(bank, tmp_path, num_local=0).losses(0)
    assert all(value.isfinite() for value in losses.values())


def test_the_teacher_is_exported(
    trained: tuple[SelfSupervisedProgram, list[Progress]], bank: SceneBank, tmp_path: Path
) -> None:
    program = trained[0]
    program.export(tmp_path / "checkpoint")
    loaded = Dinov2(
        resolve(Checkpoint(source=str(tmp_path / "checkpoint"))), device="cpu", dtype=torch.float32
    )
    pixels = bank.images[:2, :, :64, :64].float()
    found = loaded.encode(pixels, with_attention=False).patch_tokens.flatten(1, 2)
    views = normalized(pixels, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    with torch.no_grad():
        of_teacher, of_student = (
            tower.tokens(views)[1] for tower in (program.module.teacher, program.module.student)
        )
    torch.testing.assert_close(found, of_teacher, atol=0.02, rtol=0.02)  # weights were rounded to float16
    assert (found - of_teacher).abs().mean() < 0.1 * (found - of_student).abs().mean()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batch_size": 1}, r"program\.batch_size is 1; it must be 2 or more"),
        ({"num_local": -1}, r"program\.num_local is -1; it must be 0 or more"),
        ({"local_scale": (0.5, 0.1)}, r"program\.local_scale is \(0\.5, 0\.1\)"),
        ({"teacher_momentum": 1.5}, r"program\.teacher_momentum is 1\.5"),
        ({"koleo_weight": -0.1}, r"program\.koleo_weight is -0\.1"),
        ({"masked_share": 1.0}, r"masked_share is 1\.0"),
        ({"global_pixels": 50}, "global_pixels is 50; it must be a multiple of the patch of 8 px"),
        ({"local_pixels": 20}, "local_pixels is 20; it must be a multiple of the patch of 8 px"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, object], said: str, bank: SceneBank, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        build(bank, tmp_path, **fields)
