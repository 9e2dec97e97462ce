"""The multilingual term and the group variance."""

import pytest
import torch

from ovsops.losses.diversity import UNGROUPED, group_variance, translation_loss


def test_translations_by_hand() -> None:
    """Same direction 0, right angle 1, opposite 2."""
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    translations = torch.tensor([[5.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert translation_loss(texts, translations).item() == pytest.approx(1.0)
    assert translation_loss(translations, texts).item() == pytest.approx(1.0)
    assert translation_loss(torch.zeros(0, 2), torch.zeros(0, 2)).item() == 0


def test_group_variance_by_hand() -> None:
    """Means 2 (1 and 3), 6, and a pair that belongs nowhere: the variance of 2 and 6 is 4."""
    losses, groups = torch.tensor([1.0, 3.0, 6.0, 99.0]), torch.tensor([4, 4, 9, UNGROUPED])
    assert group_variance(losses, groups).item() == pytest.approx(4.0)
    order = torch.tensor([2, 0, 3, 1])
    assert group_variance(losses[order], groups[order]).item() == pytest.approx(4.0)
    assert group_variance(losses + 10, groups).item() == pytest.approx(4.0)


@pytest.mark.parametrize("groups", [[3, 3], [UNGROUPED, UNGROUPED], []])
def test_one_group_or_none_has_no_variance(groups: list[int]) -> None:
    losses = torch.arange(float(len(groups))).requires_grad_()
    value = group_variance(losses, torch.tensor(groups, dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert losses.grad is not None
    assert not losses.grad.any()


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(5, generator=generator, dtype=torch.float64, requires_grad=True)
    groups = torch.tensor([0, 1, 0, 2, UNGROUPED])
    assert torch.autograd.gradcheck(lambda x: group_variance(x, groups), (losses,))
    texts, translations = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(translation_loss, (texts.requires_grad_(), translations.requires_grad_()))
