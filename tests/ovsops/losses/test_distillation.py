"""Distillation from a frozen model: hand-worked values, minima, shift and rotation."""

import math

import pytest
import torch

from ovsops.errors import ShapeError
from ovsops.losses.distillation import attention_distillation, feature_distillation, relation_distillation


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_features_by_hand() -> None:
    """Two places: the same direction (cosine 1), a right angle (cosine 0)."""
    student = torch.tensor([[[[2.0, 0.0], [0.0, 1.0]]]])
    teacher = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    assert feature_distillation(student, teacher).item() == pytest.approx(0.5)
    assert feature_distillation(student, teacher, kind="mse").item() == pytest.approx(3 / 4)


def test_a_zero_token_is_at_a_right_angle_with_everything() -> None:
    student = torch.zeros(1, 1, 1, 3, requires_grad=True)
    loss = feature_distillation(student, torch.ones(1, 1, 1, 3))
    loss.backward()
    assert loss.item() == 1
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_attention_by_hand() -> None:
    """Teacher (1/2, 1/2), student (1/4, 3/4): KL = log(1 / (2 * sqrt(3/16)))."""
    student, teacher = torch.tensor([[[[0.0, math.log(3)]]]]), torch.zeros(1, 1, 1, 2)
    loss = attention_distillation(student, teacher)
    assert loss.item() == pytest.approx(-math.log(2 * math.sqrt(3 / 16)), abs=1e-6)


def test_attention_is_a_mean_over_images_heads_and_queries() -> None:
    student, teacher = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    parts = [
        attention_distillation(
            student[b : b + 1, n : n + 1, q : q + 1], teacher[b : b + 1, n : n + 1, q : q + 1]
        )
        for b in range(2)
        for n in range(3)
        for q in range(4)
    ]
    torch.testing.assert_close(attention_distillation(student, teacher), torch.stack(parts).mean())


def test_attention_does_not_see_a_shift_of_a_row() -> None:
    student, teacher = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    shifted = student + random(2, 3, 4, 1, seed=2)
    for heads in ("each", "mean"):
        torch.testing.assert_close(
            attention_distillation(shifted, teacher, heads=heads),  # type: ignore[arg-type]
            attention_distillation(student, teacher, heads=heads),  # type: ignore[arg-type]
        )


def test_different_numbers_of_heads_meet_in_their_mean() -> None:
    """Teacher heads (1, 0) and (0, 1) have the mean (1/2, 1/2), as the one flat head of the student."""
    teacher = torch.tensor([[[[50.0, -50.0]], [[-50.0, 50.0]]]])
    student = torch.zeros(1, 1, 1, 2)
    assert attention_distillation(student, teacher, heads="mean").item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ShapeError, match=r"has 1 heads, the teacher 2; .*heads=\"mean\""):
        attention_distillation(student, teacher)
    order = torch.tensor([1, 0])
    flat = torch.zeros(1, 2, 1, 2)
    torch.testing.assert_close(
        attention_distillation(flat, teacher[:, order]), attention_distillation(flat, teacher)
    )


def test_relations_by_hand() -> None:
    """Student tokens at a right angle, teacher tokens equal: two of four cosines differ by 1."""
    student = torch.eye(2)[None]
    teacher = torch.ones(1, 2, 3)
    assert relation_distillation(student, teacher).item() == pytest.approx(0.5)


def test_relations_do_not_see_a_rotation() -> None:
    student, teacher = random(2, 6, 4), random(2, 6, 7, seed=1)
    rotation = torch.linalg.qr(random(4, 4, seed=2)).Q
    expected = relation_distillation(student, teacher)
    torch.testing.assert_close(relation_distillation(student @ rotation, teacher), expected)
    assert expected > 0.1


def test_the_least_value_is_zero_where_both_are_equal() -> None:
    grid, logits = random(2, 3, 3, 4).requires_grad_(), random(2, 3, 2, 5).requires_grad_()
    for loss in (
        feature_distillation(grid, grid),
        feature_distillation(grid, grid, kind="mse"),
        attention_distillation(logits, logits),
        attention_distillation(logits, logits, heads="mean"),
        relation_distillation(grid.flatten(1, 2), grid.flatten(1, 2)),
    ):
        assert abs(loss.item()) < 1e-12
        for gradient in torch.autograd.grad(loss, (grid, logits), allow_unused=True):
            assert gradient is None or gradient.abs().max() < 1e-9


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = random(1, 2, 2, 3).requires_grad_(), random(1, 2, 2, 3, seed=1).requires_grad_()
    total = (
        feature_distillation(student, teacher)
        + attention_distillation(student, teacher)
        + relation_distillation(student[0], teacher[0])
    )
    total.backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_gradients_to_the_student() -> None:
    grid, teacher_grid = random(2, 2, 2, 3).requires_grad_(), random(2, 2, 2, 3, seed=1)
    logits, teacher_logits = random(1, 2, 2, 3).requires_grad_(), random(1, 3, 2, 3, seed=1)
    check = torch.autograd.gradcheck
    assert check(lambda s: feature_distillation(s, teacher_grid), (grid,))
    assert check(lambda s: feature_distillation(s, teacher_grid, kind="mse"), (grid,))
    assert check(lambda s: relation_distillation(s.flatten(1, 2), teacher_grid.flatten(1, 2)), (grid,))
    assert check(
        lambda s: attention_distillation(s, teacher_logits, heads="mean", temperature=0.5), (logits,)
    )
    assert check(lambda s: attention_distillation(s, teacher_logits[:, :2]), (logits,))


def test_nothing_to_distil_is_an_error() -> None:
    with pytest.raises(ShapeError, match="feature distillation"):
        feature_distillation(torch.zeros(0, 2, 2, 3), torch.zeros(0, 2, 2, 3))
