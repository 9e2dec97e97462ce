"""FG-OVD accuracy: rows by hand, ties both ways, broken scorers, rows that are none."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ovsops.errors import ShapeError
from ovsops.metrics.bootstrap import bootstrap
from ovsops.metrics.fgovd import (
    HardNegativeCounts,
    expression_similarity,
    hard_negative_accuracy,
    positive_is_first,
    positive_ranks,
)


def test_ranks_by_hand() -> None:
    """Best; beaten once; tied once; beaten only by a place that is no text."""
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.6, 0.1], [0.5, 0.5, 0.1], [0.5, 0.1, 0.9]])
    num_texts = torch.tensor([3, 3, 3, 2])
    assert positive_ranks(scores, num_texts).tolist() == [1, 2, 2, 1]
    assert positive_ranks(scores, num_texts, ties="right").tolist() == [1, 2, 1, 1]
    assert positive_is_first(scores, num_texts).tolist() == [True, False, False, True]
    assert positive_is_first(scores, num_texts, ties="right").tolist() == [True, False, True, True]


def test_a_constant_scorer_scores_zero_and_one_as_published() -> None:
    same = torch.full((5, 11), 0.3)
    assert not positive_is_first(same).any()
    assert positive_is_first(same, ties="right").all()


def test_a_text_that_equals_the_positive_ties_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(40, 11, 17, generator=generator)
    texts[:, 7] = texts[:, 0]
    similarity = expression_similarity(torch.randn(40, 17, generator=generator), texts)
    assert (similarity[:, 7] == similarity[:, 0]).all()
    assert not positive_is_first(similarity).any()


def test_a_region_without_feature_is_wrong() -> None:
    similarity = expression_similarity(torch.zeros(1, 4), torch.randn(1, 11, 4))
    assert similarity.tolist() == [[0.0] * 11]
    assert positive_is_first(similarity).tolist() == [False]


def test_a_random_scorer_is_right_in_one_of_eleven() -> None:
    scores = torch.rand(20_000, 11, generator=torch.Generator().manual_seed(1))
    assert positive_is_first(scores).double().mean().item() == pytest.approx(1 / 11, abs=0.01)


@given(seed=st.integers(0, 2**16))
def test_the_order_of_negatives_does_not_matter(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 4, (6, 5), generator=generator).float()
    order = torch.cat([torch.zeros(1, dtype=torch.int64), torch.randperm(4, generator=generator) + 1])
    assert positive_ranks(scores).tolist() == positive_ranks(scores[:, order]).tolist()


def test_counts_add_up_by_level_and_have_an_interval() -> None:
    left = HardNegativeCounts.zeros().update("hard", torch.tensor([True, False]))
    right = HardNegativeCounts.zeros().update("hard", torch.tensor([True, True]))
    right = right.update("easy", torch.tensor([False]))
    figures = (left + right).compute()
    assert (figures["hard"], figures["easy"]) == (0.75, 0.0)
    assert math.isnan(figures["medium"])
    interval = bootstrap(np.stack([left.counts, right.counts]), hard_negative_accuracy)
    assert interval.value[0] == 0.75
    assert interval.low[0] == pytest.approx(0.5)


def test_levels_that_are_not_counted() -> None:
    with pytest.raises(ShapeError, match="level 'harder' is not counted here: one of hard"):
        HardNegativeCounts.zeros().update("harder", torch.tensor([True]))
    with pytest.raises(ShapeError, match="merge like with like"):
        HardNegativeCounts.zeros() + HardNegativeCounts.zeros(["hard"])


def test_rows_that_cannot_be_scored() -> None:
    with pytest.raises(ShapeError, match=r"rows \[1\]: 2 to 3 texts are wanted"):
        positive_ranks(torch.zeros(2, 3), torch.tensor([2, 1]))
    with pytest.raises(ShapeError, match=r"rows \[0\] are nan"):
        positive_ranks(torch.tensor([[0.1, math.nan]]))
    assert positive_ranks(torch.tensor([[0.1, 0.0, math.nan]]), torch.tensor([2])).tolist() == [1]
