"""Texts of two workers: each once, this worker's first, whatever numbers of them there are."""

import pytest
import torch
from torch import Tensor

from ovsops.losses.gather import no_gather
from ovsops.losses.infonce import infonce_loss
from ovsops.training.distinct import GatherDistinct

CODES = (torch.tensor([[0, -1], [1, -1], [0, 3]]), torch.tensor([[0, -1], [1, -1], [0, 3], [1, 3], [1, 3]]))
"""Two names are on both ranks and so is one phrase; the second rank holds another one, twice."""
MOST = 6


class Both:
    """What `rank` sends, and what the other one would have sent."""

    def __init__(self, rank: int, others: list[Tensor]) -> None:
        self.rank, self.others = rank, iter(others)

    def __call__(self, tensor: Tensor) -> Tensor:
        parts = [tensor, next(self.others)]
        return torch.cat(parts if self.rank == 0 else parts[::-1])


def padded(rows: Tensor, value: float) -> Tensor:
    return torch.cat([rows, torch.full((MOST - len(rows), rows.shape[1]), value, dtype=rows.dtype)])


def test_each_text_stands_once_and_own_ones_first() -> None:
    texts = tuple(torch.arange(10.0 * r, 10.0 * r + len(c))[:, None] for r, c in enumerate(CODES))
    for rank, expected in ((0, [0.0, 1.0, 2.0, 13.0]), (1, [10.0, 11.0, 12.0, 13.0, 14.0])):
        other = 1 - rank
        both = Both(rank, [padded(CODES[other], -99), padded(texts[other], 0.0)])
        gather = GatherDistinct(CODES[rank], most=MOST, gather=both)
        assert gather.rank == 0
        assert gather(texts[rank]).flatten().tolist() == expected


def test_one_worker_alone_computes_the_very_same_number() -> None:
    english, chinese = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    gather = GatherDistinct(CODES[0], most=MOST, gather=no_gather)
    assert torch.equal(infonce_loss(english, chinese, gather=gather), infonce_loss(english, chinese))


def test_the_same_text_on_another_worker_is_no_wrong_answer() -> None:
    """Both ranks hold the same texts: the loss is that of one rank, where a plain gather would cost log 2 more."""
    vectors = torch.eye(3)
    both = Both(0, [padded(CODES[0], -99), padded(vectors, 0.0), padded(vectors, 0.0)])
    gather = GatherDistinct(CODES[0], most=MOST, gather=both)
    alone = infonce_loss(vectors, vectors, logit_scale=50.0)
    assert float(infonce_loss(vectors, vectors, logit_scale=50.0, gather=gather)) == float(alone)
    plain = Both(0, [vectors, vectors])
    doubled = infonce_loss(vectors, vectors, logit_scale=50.0, gather=plain)
    assert float(doubled - alone) == pytest.approx(0.6931, abs=1e-3)
