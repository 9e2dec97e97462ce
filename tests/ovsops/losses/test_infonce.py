"""InfoNCE: hand-worked values, and models that know nothing."""

import math

import pytest
import torch

from ovsops.losses.infonce import LOGIT_SCALE, symmetric_infonce


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
