"""KoLeo: hand-worked distances and the collapse it is there to prevent."""

import math

import pytest
import torch

from ovsops.errors import ShapeError
from ovsops.losses.koleo import koleo_loss


def test_three_vectors_by_hand() -> None:
    """Directions 0, 60 and 180 degrees: nearest at 60, 60 and 120 degrees, distances 1, 1 and sqrt 3."""
    angles = torch.tensor([0.0, math.pi / 3, math.pi], dtype=torch.float64)
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [5.0], [0.2]])
    assert koleo_loss(vectors).item() == pytest.approx(-math.log(math.sqrt(3)) / 3, abs=1e-6)


def test_a_collapsed_batch_costs_most_and_keeps_finite_gradients() -> None:
    collapsed = torch.ones(4, 3, requires_grad=True)
    loss = koleo_loss(collapsed)
    loss.backward()
    assert loss.item() > 15
    assert collapsed.grad is not None
    assert collapsed.grad.isfinite().all()
    assert koleo_loss(torch.eye(4)).item() == pytest.approx(-math.log(math.sqrt(2)), abs=1e-6)


def test_the_order_does_not_matter_and_one_vector_is_an_error() -> None:
    vectors = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(koleo_loss(vectors.flip(0)), koleo_loss(vectors))
    assert torch.autograd.gradcheck(koleo_loss, (vectors.requires_grad_(),))
    with pytest.raises(ShapeError, match="1 vector has no neighbour"):
        koleo_loss(vectors[:1])
