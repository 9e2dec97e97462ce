"""Retrieval: ranks by hand, ties, several right answers, merging."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ovsops.errors import ShapeError
from ovsops.metrics.retrieval import RankCounts, both_directions, ranks


def test_ranks_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.1, 0.2, 0.3], [0.8, 0.9, 0.1]])
    correct = torch.tensor(
        [[True, False, False], [True, False, False], [True, False, False], [True, False, True]]
    )
    assert ranks(scores, correct).tolist() == [1, 2, 3, 2]
    counts = RankCounts.zeros().update(scores, correct)
    assert counts.compute([1, 2, 3]) == {"R@1": 0.25, "R@2": 0.75, "R@3": 1.0, "median_rank": 2.0}


def test_right_answers_do_not_push_each_other_down() -> None:
    scores = torch.tensor([[0.9, 0.9, 0.9, 0.1]])
    assert ranks(scores, torch.tensor([[True, True, True, False]])).tolist() == [1]


def test_a_constant_scorer_is_last_everywhere() -> None:
    images, texts = both_directions(torch.full((8, 8), 0.5), torch.eye(8, dtype=torch.bool))
    for counts in (images, texts):
        assert counts.compute([1, 5, 7, 8]) == {
            "R@1": 0,
            "R@5": 0,
            "R@7": 0,
            "R@8": 1,
            "median_rank": 8,
        }


def test_a_random_scorer_finds_k_of_n() -> None:
    scores = torch.rand(400, 400, generator=torch.Generator().manual_seed(0))
    counts = RankCounts.zeros().update(scores, torch.eye(400, dtype=torch.bool))
    assert counts.recall_at(40) == pytest.approx(0.1, abs=0.05)
    assert counts.median_rank() == pytest.approx(200, abs=30)


def test_directions_differ() -> None:
    similarity = torch.tensor([[0.9, 0.8], [0.7, 0.6]])
    images, texts = both_directions(similarity, torch.eye(2, dtype=torch.bool))
    assert images.compute([1])["R@1"] == 0.5  # image 0 finds its text, image 1 does not
    assert texts.compute([1])["R@1"] == 0.5
    assert images.queries_by_rank.tolist() == texts.queries_by_rank.tolist() == [1, 1]
    images, texts = both_directions(torch.tensor([[0.9, 0.1], [0.95, 0.99]]), torch.eye(2, dtype=torch.bool))
    assert images.recall_at(1) == 1
    assert texts.recall_at(1) == 0.5


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 12))
def test_merging_and_the_median(found: list[int], cut: int) -> None:
    def counts(some: list[int]) -> RankCounts:
        total = RankCounts.zeros()
        for rank in some:
            scores = torch.tensor([[0.5] + [0.9] * (rank - 1) + [0.1] * (9 - rank)])
            total = total.update(scores, torch.tensor([[True] + [False] * 8]))
        return total

    whole, merged = counts(found), counts(found[cut:]) + counts(found[:cut])
    assert merged.compute([1, 3]) == whole.compute([1, 3])
    assert merged.num_queries == len(found)
    middle = torch.tensor(found).sort().values
    expected = (middle[(len(found) - 1) // 2] + middle[len(found) // 2]).item() / 2
    assert whole.median_rank() == expected
    assert whole.recall_at(3) == sum(rank <= 3 for rank in found) / len(found)


def test_nothing_counted_is_nan() -> None:
    assert str(RankCounts.zeros().compute([1])) == "{'R@1': nan, 'median_rank': nan}"


def test_errors_name_the_queries() -> None:
    correct = torch.eye(3, dtype=torch.bool)
    scores = torch.zeros(3, 3)
    with pytest.raises(ShapeError, match=r"queries \[1\] have no correct candidate"):
        ranks(scores, correct & torch.tensor([[True], [False], [True]]))
    scores[2, 0] = torch.nan
    with pytest.raises(ShapeError, match=r"queries \[2\] are nan"):
        ranks(scores, correct)
    with pytest.raises(ShapeError, match="at least 1"):
        RankCounts.zeros().recall_at(0)
