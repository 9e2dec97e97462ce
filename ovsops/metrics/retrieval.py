"""How often the right caption or image comes first. Axes: Q queries, N candidates.

A query's rank is 1 + the number of wrong candidates that score at least as high as its best correct one: ties
count against the model, so a constant scorer has the worst rank everywhere, not the best. Several correct
candidates of one query do not push each other down. R@k is the share of queries with rank <= k.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from ovsops.errors import ShapeError


@dataclass(frozen=True, kw_only=True, eq=False)
class RankCounts:
    """How many queries have which rank.

    Figures depend on the number of candidates (among 256 is easier than among 5,000): name it beside them. It
    does not measure how far the right one is ahead, and a candidate that is right but not listed counts as wrong.
    """

    queries_by_rank: Int64[np.ndarray, "R"]
    """Element r: queries of rank r + 1."""

    @classmethod
    def zeros(cls) -> "RankCounts":
        """Nothing counted yet."""
        return cls(queries_by_rank=np.zeros(0, np.int64))

    def update(self, scores: Float[Tensor, "Q N"], is_correct: Bool[Tensor, "Q N"]) -> "RankCounts":
        """These counts and those of more queries. Raises `ShapeError` as `ranks` does."""
        found = ranks(scores, is_correct).cpu().numpy()
        return self + RankCounts(queries_by_rank=np.bincount(found - 1).astype(np.int64))

    def __add__(self, other: "RankCounts") -> "RankCounts":
        one, two = self.queries_by_rank, other.queries_by_rank
        length = max(len(one), len(two))
        return RankCounts(
            queries_by_rank=np.pad(one, (0, length - len(one))) + np.pad(two, (0, length - len(two)))
        )

    @property
    def num_queries(self) -> int:
        """Queries counted so far."""
        return int(self.queries_by_rank.sum())

    def recall_at(self, k: int) -> float:
        """Share of the queries with rank <= k; nan without queries."""
        if k < 1:
            raise ShapeError(f"R@{k}: k is at least 1")
        return float(self.queries_by_rank[:k].sum() / self.num_queries) if self.num_queries else float("nan")

    def compute(self, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
        """`R@k` for each k, and `median_rank` (the mean of the middle two for an even number of queries)."""
        figures = {f"R@{k}": self.recall_at(k) for k in ks}
        return figures | {"median_rank": self.median_rank()}

    def median_rank(self) -> float:
        """Rank of the query in the middle; nan without queries."""
        if self.num_queries == 0:
            return float("nan")
        up_to = self.queries_by_rank.cumsum()
        middle = ((self.num_queries - 1) // 2, self.num_queries // 2)
        return float(np.searchsorted(up_to, middle, side="right").mean() + 1)


def ranks(scores: Float[Tensor, "Q N"], is_correct: Bool[Tensor, "Q N"]) -> Int[Tensor, "Q"]:
    """Rank of the best correct candidate of each query, from 1.

    Raises `ShapeError` for a query without a correct candidate, and for scores that are not numbers.
    """
    if scores.isnan().any():
        raise ShapeError(
            f"scores of queries {_first(scores.isnan().any(dim=1))} are nan: mend the encoder before it is measured"
        )
    if not is_correct.any(dim=1).all():
        raise ShapeError(
            f"queries {_first(~is_correct.any(dim=1))} have no correct candidate: add it to the gallery or drop them"
        )
    best = scores.masked_fill(~is_correct, -torch.inf).amax(dim=1, keepdim=True)
    return ((scores >= best) & ~is_correct).sum(dim=1) + 1


def both_directions(
    similarity: Float[Tensor, "I T"], is_pair: Bool[Tensor, "I T"]
) -> tuple[RankCounts, RankCounts]:
    """Image to text, and text to image, of one gallery."""
    return (
        RankCounts.zeros().update(similarity, is_pair),
        RankCounts.zeros().update(similarity.T, is_pair.T),
    )


def _first(wrong: Bool[Tensor, "Q"]) -> list[int]:
    return wrong.nonzero().flatten()[:5].tolist()
