"""Masked prediction and its masks."""

import math

import pytest
import torch

from ovsops.errors import ConfigError
from ovsops.losses.masked import masked_prediction_loss, sample_block_masks


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_image_weighs_the_same_however_much_is_masked() -> None:
    """Image 0: one place, cost log 2. Image 1: three places, costs 0, 0, log 4 (approached)."""
    mask = torch.tensor([[[True, False], [False, False]], [[True, True], [True, False]]])
    student = torch.tensor([[0.0, 0.0], [0.0, 99.0], [0.0, 99.0], [math.log(3), 0.0]])
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    loss = masked_prediction_loss(student, teacher, mask, temperature=1.0)
    assert loss.item() == pytest.approx((math.log(2) + math.log(4) / 3) / 2, abs=1e-6)


def test_an_image_without_masked_places_counts_as_zero() -> None:
    mask = torch.zeros(3, 2, 2, dtype=torch.bool)
    mask[1, 0, 0] = True
    loss = masked_prediction_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), mask)
    assert loss.item() == pytest.approx(math.log(2) / 3, abs=1e-6)


def test_nothing_masked_is_zero_with_a_gradient_of_zero() -> None:
    tokens = torch.ones(2, 2, 2, 5, requires_grad=True)
    mask = torch.zeros(2, 2, 2, dtype=torch.bool)
    loss = masked_prediction_loss(tokens[mask], tokens[mask], mask)
    loss.backward()
    assert loss.item() == 0
    assert tokens.grad is not None
    assert not tokens.grad.any()


def test_rows_belong_to_the_places_of_the_mask() -> None:
    """Against a loop over images and places."""
    mask = torch.rand(3, 4, 4, generator=generator()) < 0.4
    student = torch.randn(3, 4, 4, 5, generator=generator(1), dtype=torch.float64)
    teacher = torch.randn(3, 4, 4, 5, generator=generator(2), dtype=torch.float64).softmax(-1)
    of_images = [
        torch.stack([-(t * (s / 0.1).log_softmax(-1)).sum() for s, t in zip(a[m], b[m], strict=True)]).mean()
        for a, b, m in zip(student, teacher, mask, strict=True)
    ]
    loss = masked_prediction_loss(student[mask], teacher[mask], mask)
    torch.testing.assert_close(loss, torch.stack(of_images).mean())


def test_gradient_to_the_student_only() -> None:
    mask = torch.tensor([[[True, True]], [[False, True]]])
    teacher = torch.rand(3, 4, generator=generator(), dtype=torch.float64).softmax(-1).requires_grad_()
    student = torch.randn(3, 4, generator=generator(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda s: masked_prediction_loss(s, teacher.detach(), mask, temperature=0.5), (student,)
    )
    masked_prediction_loss(student, teacher, mask).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("grid_hw", [(16, 16), (7, 3), (1, 9), (1, 1)])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_masks_hold_exactly_their_share(grid_hw: tuple[int, int], share: float) -> None:
    masks = sample_block_masks(5, grid_hw, generator=generator(), share=share)
    assert masks.shape == (5, *grid_hw)
    assert masks.flatten(1).sum(1).tolist() == [int(share * grid_hw[0] * grid_hw[1] + 0.5)] * 5


def test_masks_are_seeded_differ_and_are_made_of_blocks() -> None:
    """Neighbours agree more often than the 1/2 of single places."""
    masks = sample_block_masks(64, (16, 16), generator=generator(3))
    torch.testing.assert_close(masks, sample_block_masks(64, (16, 16), generator=generator(3)))
    assert len(masks.flatten(1).unique(dim=0)) == 64
    agree = (masks[:, 1:] == masks[:, :-1]).float().mean()
    assert agree > 0.75
    often = masks.float().mean(0)
    assert often.min() > 0.1
    assert often.max() < 0.9


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"aspect": 0.0}, {"min_block": 0}])
def test_masks_refuse_nonsense(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="block masks"):
        sample_block_masks(1, (4, 4), generator=generator(), **wrong)  # type: ignore[arg-type]
