"""Self-distillation, its targets and its teacher: hand-worked values and properties."""

import copy
import math

import pytest
import torch
from torch import nn

from ovsops.errors import ConfigError, ShapeError
from ovsops.losses.centring import centred_targets, sinkhorn_targets, update_center
from ovsops.losses.ema import ema_update
from ovsops.losses.self_distillation import self_distillation_loss


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_one_pair_by_hand() -> None:
    """Teacher (1/4, 3/4), student logits (0, log 3) at temperature 1, that is the same: the entropy of it."""
    teacher = torch.tensor([[[0.25, 0.75]]])
    student = torch.tensor([[[0.0, math.log(3)]]])
    loss = self_distillation_loss(student, teacher, num_shared_views=0, temperature=1.0)
    assert loss.item() == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), abs=1e-6)


def test_pairs_of_one_view_are_skipped() -> None:
    student, teacher = random(4, 3, 5), random(2, 3, 5, seed=1).softmax(-1)
    log_student = (student / 0.1).log_softmax(-1)
    pairs = [(s, t) for s in range(4) for t in range(2) if s != t]
    expected = torch.stack([-(teacher[t] * log_student[s]).sum(-1).mean() for s, t in pairs]).mean()
    torch.testing.assert_close(self_distillation_loss(student, teacher, num_shared_views=2), expected)
    alone = self_distillation_loss(student[2:], teacher, num_shared_views=0)
    torch.testing.assert_close(alone, -(teacher[:, None] * log_student[None, 2:]).sum(-1).mean())


@pytest.mark.parametrize(("num_student", "num_teacher", "shared"), [(1, 1, 1), (0, 1, 0), (2, 1, 2)])
def test_no_pair_is_an_error(num_student: int, num_teacher: int, shared: int) -> None:
    with pytest.raises(ShapeError, match="leave no pair"):
        self_distillation_loss(random(num_student, 2, 3), random(num_teacher, 2, 3), num_shared_views=shared)


def test_the_least_value_is_the_entropy_at_equal_distributions() -> None:
    """Also: logits may be shifted by any constant, and no gradient reaches the teacher."""
    logits = random(1, 4, 6)
    teacher = logits.softmax(-1).requires_grad_()
    student = (logits + 5).clone().requires_grad_()
    loss = self_distillation_loss(student, teacher, num_shared_views=0, temperature=1.0)
    torch.testing.assert_close(loss, -(teacher * teacher.log()).sum(-1).mean())
    loss.backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-12
    assert teacher.grad is None


def test_a_uniform_teacher_is_never_cheaper_than_log_k() -> None:
    teacher = torch.full((1, 3, 8), 1 / 8)
    constant = self_distillation_loss(torch.zeros(2, 3, 8), teacher, num_shared_views=0)
    assert constant.item() == pytest.approx(math.log(8), abs=1e-6)
    assert self_distillation_loss(random(2, 3, 8), teacher, num_shared_views=0).item() > math.log(8)


def test_gradient_to_the_student() -> None:
    teacher = random(2, 2, 3, seed=1).softmax(-1)
    student = random(3, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: self_distillation_loss(s, teacher, num_shared_views=1, temperature=0.7), (student,)
    )


def test_centred_targets_by_hand() -> None:
    """((1, 3) - (1, 2)) / 0.5 = (0, 2)."""
    target = centred_targets(torch.tensor([[1.0, 3.0]]), torch.tensor([1.0, 2.0]), temperature=0.5)
    share = 1 / (1 + math.exp(2))
    torch.testing.assert_close(target, torch.tensor([[share, 1 - share]]))


def test_the_center_follows_the_batch_mean() -> None:
    """0.9 (10, 0) + 0.1 (3, 4)."""
    center = update_center(torch.tensor([10.0, 0.0]), torch.tensor([[2.0, 4.0], [4.0, 4.0]]))
    torch.testing.assert_close(center, torch.tensor([9.3, 0.4]))
    torch.testing.assert_close(update_center(center, torch.zeros(0, 2)), center)


def test_sinkhorn_by_hand() -> None:
    """Masses e^logits = ((1, 3), (1, 1)): columns to 1/2: ((1/4, 3/8), (1/4, 1/8)); rows to 1."""
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    target = sinkhorn_targets(logits, temperature=1.0, iterations=1)
    torch.testing.assert_close(target, torch.tensor([[0.4, 0.6], [2 / 3, 1 / 3]]))


def test_sinkhorn_uses_all_prototypes_where_a_softmax_uses_one() -> None:
    """Every sample prefers prototype 0. Also: logits of hundreds do not overflow, half precision is widened."""
    logits = random(64, 4).float() + torch.tensor([100.0, 0.0, 0.0, 0.0])
    target = sinkhorn_targets(logits, iterations=50)
    torch.testing.assert_close(target.sum(1), torch.ones(64))
    torch.testing.assert_close(target.mean(0), torch.full((4,), 0.25), atol=0.01, rtol=0)
    assert (logits / 0.04).softmax(1).mean(0)[0] > 0.999
    assert sinkhorn_targets(logits.half()).isfinite().all()
    assert sinkhorn_targets(torch.zeros(0, 4)).shape == (0, 4)


def test_ema_by_hand() -> None:
    student = nn.BatchNorm1d(2)
    teacher = copy.deepcopy(student)
    with torch.no_grad():
        student.weight.fill_(3.0)
        student.running_mean.fill_(5.0)  # type: ignore[operator, union-attr]
        student.num_batches_tracked.fill_(7)  # type: ignore[operator, union-attr]
    ema_update(teacher, student, 0.75)
    torch.testing.assert_close(teacher.weight.detach(), torch.full((2,), 1.5))
    torch.testing.assert_close(teacher.running_mean, torch.full((2,), 5.0))
    assert teacher.num_batches_tracked == 7
    assert student.weight.detach().tolist() == [3.0, 3.0]
    assert teacher.weight.grad_fn is None


def test_ema_at_the_ends() -> None:
    student, teacher = nn.Linear(3, 2), nn.Linear(3, 2).double()
    before = teacher.weight.detach().clone()
    ema_update(teacher, student, 1.0)
    torch.testing.assert_close(teacher.weight.detach(), before, rtol=0, atol=0)
    ema_update(teacher, student, 0.0)
    torch.testing.assert_close(teacher.weight.detach().float(), student.weight.detach(), rtol=0, atol=0)
    assert teacher.weight.dtype == torch.float64


def test_ema_refuses_what_does_not_match() -> None:
    with pytest.raises(ConfigError, match=r"differ in parameters \['0.bias', '0.weight', 'bias'\]"):
        ema_update(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2), 0.9)
    with pytest.raises(ConfigError, match="EMA momentum is"):
        ema_update(nn.Linear(2, 2), nn.Linear(2, 2), 1.5)
