"""InfoNCE: hand-worked values, and models that know nothing."""

import math

import pytest
import torch

from ovsops.errors import ShapeError
from ovsops.losses.infonce import (
    LOG_SCALE_INITIAL,
    LOGIT_SCALE,
    infonce_loss,
    infonce_of_pairs,
    learned_logit_scale,
    symmetric_infonce,
)
from ovsops.losses.siglip import equal_pairs


def test_two_pairs_by_hand() -> None:
    """S = [[1, 0], [0, 1]], scale 1: each row and column gives log(1 + exp(-1))."""
    loss = symmetric_infonce(torch.eye(2), logit_scale=1.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)


def test_rows_and_columns_both_count() -> None:
    """Rows are constant and give log 2; columns give log(1 + e) and log(1 + 1/e)."""
    similarity = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    columns = (math.log(1 + math.e) + math.log(1 + 1 / math.e)) / 2
    expected = (math.log(2) + columns) / 2
    assert symmetric_infonce(similarity, logit_scale=1.0).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_constant_scorer_is_at_chance(batch: int) -> None:
    loss = symmetric_infonce(torch.full((batch, batch), 0.3))
    assert loss.item() == pytest.approx(math.log(batch), abs=1e-6)


def test_upstream_divides_by_the_batch_squared() -> None:
    similarity = torch.rand(5, 5, generator=torch.Generator().manual_seed(0))
    plain, upstream = symmetric_infonce(similarity), symmetric_infonce(similarity, reduction="upstream")
    torch.testing.assert_close(upstream * 25, plain)


def test_the_order_of_pairs_does_not_matter() -> None:
    similarity = torch.rand(6, 6, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(symmetric_infonce(similarity[order][:, order]), symmetric_infonce(similarity))


def test_a_perfect_scorer_approaches_zero_at_the_published_scale() -> None:
    assert symmetric_infonce(2 * torch.eye(8) - 1).item() < 1e-9
    assert pytest.approx(14.2857, abs=1e-4) == LOGIT_SCALE


def pairs(num: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    texts, images = torch.randn(2, num, 5, generator=generator, dtype=torch.float64)
    return texts, images


def test_vectors_give_the_loss_of_their_cosines() -> None:
    texts, images = pairs(6)
    similarity = torch.nn.functional.normalize(texts) @ torch.nn.functional.normalize(images).T
    for reduction in ("mean", "upstream"):
        expected = symmetric_infonce(similarity, reduction=reduction)
        torch.testing.assert_close(infonce_loss(texts, images, reduction=reduction), expected)


def test_an_identity_of_positives_changes_nothing() -> None:
    texts, images = pairs(5)
    expected = infonce_of_pairs(texts, images)
    torch.testing.assert_close(infonce_of_pairs(texts, images, positives=torch.eye(5).bool()), expected)


def test_equal_captions_share_the_target() -> None:
    """All cosines equal: every distribution is uniform over 3, and so costs log 3, however many are true."""
    ones = torch.ones(3, 4)
    losses = infonce_of_pairs(ones, ones, positives=equal_pairs(torch.tensor([7, 8, 7])))
    torch.testing.assert_close(losses, torch.full((3,), math.log(3)))


def test_positives_must_hold_the_own_pair() -> None:
    with pytest.raises(ShapeError, match="every pair must be true of itself"):
        infonce_of_pairs(*pairs(2), positives=torch.zeros(2, 2, dtype=torch.bool))


def test_what_is_no_rival_is_not_looked_at() -> None:
    """Pairs 0 and 1 know nothing of each other: each meets pair 2 alone, as in a batch without the other."""
    texts, images = pairs(3)
    rivals = torch.tensor([[0, 0, 1], [0, 0, 1], [1, 1, 0]]).bool()
    losses = infonce_of_pairs(texts, images, rivals=rivals)
    for own in (0, 1):
        torch.testing.assert_close(losses[own], infonce_of_pairs(texts[[own, 2]], images[[own, 2]])[0])
    torch.testing.assert_close(losses[2], infonce_of_pairs(texts, images)[2])
    torch.testing.assert_close(
        losses, infonce_of_pairs(texts, images, rivals=rivals, positives=torch.eye(3).bool())
    )


def test_a_pair_without_rivals_costs_nothing_and_has_a_gradient() -> None:
    texts, images = pairs(3)
    texts.requires_grad_()
    positives = equal_pairs(torch.tensor([0, 1, 0]))
    for known in (None, positives):
        losses = infonce_of_pairs(texts, images, positives=known, rivals=torch.zeros(3, 3).bool())
        assert losses[1].item() == 0
        losses.sum().backward()
        assert texts.grad is not None
        assert bool(texts.grad.isfinite().all())


def test_rivals_must_fit_the_pairs() -> None:
    with pytest.raises(ShapeError, match="rivals are"):
        infonce_of_pairs(*pairs(3), rivals=torch.zeros(3, 2).bool())


def test_one_pair_costs_nothing_and_no_pair_is_an_error() -> None:
    assert infonce_loss(*pairs(1)).item() == 0
    with pytest.raises(ShapeError, match="holds no pair"):
        infonce_loss(torch.ones(0, 3), torch.ones(0, 3))


def test_a_learned_scale_starts_as_published_and_stops_at_100() -> None:
    assert learned_logit_scale(torch.tensor(LOG_SCALE_INITIAL)).item() == pytest.approx(LOGIT_SCALE, rel=1e-6)
    log_scale = torch.tensor(9.0, requires_grad=True)
    scale = learned_logit_scale(log_scale)
    assert scale.item() == 100
    scale.backward()
    assert log_scale.grad == 0


def test_gradients_of_vectors_and_scale() -> None:
    texts, images = (side.requires_grad_() for side in pairs(3))
    log_scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    positives = equal_pairs(torch.tensor([0, 1, 0]))
    for true_pairs in (None, positives):
        assert torch.autograd.gradcheck(
            lambda t, i, s, p=true_pairs: infonce_loss(t, i, logit_scale=learned_logit_scale(s), positives=p),
            (texts, images, log_scale),
        )
