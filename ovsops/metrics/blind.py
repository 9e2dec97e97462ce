"""How far the texts alone go: a baseline that never sees an image. Axes: R rows, T texts (first the positive), F words.

Negatives are made by rules, and rules leave traces: a value that is rare in truths is nearly always wrong. A linear
model of words and word pairs is trained to tell the positives of one share of the rows from their negatives, and scored
on the rest. A model that sees must beat what it reaches there before its figure says anything about seeing.

Folds take turns, so every row gets a score from a model that saw neither it nor a row of its group: rows of one image,
and rows of equal positives.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy import sparse
from torch import Tensor

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.blind_words import fitted_weights, vocabulary, word_matrix, words_and_pairs

NO_TEXT = float("-inf")
"""Score of places that hold no text."""


@dataclass(frozen=True, kw_only=True)
class BlindConfig:
    """What the baseline looks at, and how it is fitted."""

    pair_gap: int = 2
    """Two words make a pair if the second stands at most so many places after the first; 0 takes words alone."""
    ridge: float = 1e-3
    """Weight of half the squared norm of the weights, beside the mean cross-entropy."""
    num_folds: int = 5
    seed: int = 0
    """Of the folds."""
    max_iterations: int = 200
    """Steps of L-BFGS."""

    def __post_init__(self) -> None:
        if self.pair_gap < 0 or not self.ridge > 0 or self.num_folds < 2 or self.max_iterations < 1:
            raise ConfigError(
                f"{self}: pair_gap >= 0, ridge > 0, num_folds >= 2 and max_iterations >= 1 are wanted"
            )


def blind_scores(
    texts: Sequence[Sequence[str]], groups: Sequence[Hashable], *, config: BlindConfig | None = None
) -> tuple[Float64[Tensor, "R T"], Int64[Tensor, " R"]]:
    """Scores of every text by a model that saw neither image nor group, and the number of texts of each row.

    Row r is its positive and then its negatives; `positive_is_first` makes an accuracy of it. Raises `ShapeError` where
    rows or groups do not suffice.
    """
    config = config or BlindConfig()
    num_texts = np.array([len(row) for row in texts], np.int64)
    if not texts or len(texts) != len(groups) or (num_texts < 2).any():
        raise ShapeError(
            f"{len(texts)} rows and {len(groups)} groups, the shortest row of {min(num_texts, default=0)} texts:"
            " a group for each row is wanted, and at least one negative beside the positive"
        )
    folds = group_folds(texts, groups, num_folds=config.num_folds, seed=config.seed)
    words = [[words_and_pairs(text, config.pair_gap) for text in row] for row in texts]
    scores = np.full((len(texts), int(num_texts.max())), NO_TEXT)
    for fold in range(config.num_folds):
        train, test = (folds != fold).nonzero()[0], (folds == fold).nonzero()[0]
        places = vocabulary([words[r] for r in train])
        weights = fitted_weights(
            word_matrix([words[r] for r in train], places),
            num_texts[train],
            ridge=config.ridge,
            max_iterations=config.max_iterations,
        )
        rows = np.full((len(test), scores.shape[1]), NO_TEXT)
        rows[np.arange(scores.shape[1]) < num_texts[test][:, None]] = (
            word_matrix([words[r] for r in test], places) @ weights
        )
        scores[test] = rows
    return torch.from_numpy(scores), torch.from_numpy(num_texts)


def group_folds(
    texts: Sequence[Sequence[str]], groups: Sequence[Hashable], *, num_folds: int, seed: int
) -> Int64[np.ndarray, " R"]:
    """Fold of each row; rows of one group or of one positive are joined first, over any chain of them."""
    keys: dict[tuple[str, Hashable], int] = {}
    nodes = [
        (keys.setdefault(("group", group), len(keys)), keys.setdefault(("text", row[0].lower()), len(keys)))
        for row, group in zip(texts, groups, strict=True)
    ]
    ends = np.array(nodes, np.int64).reshape(-1, 2)
    graph = sparse.coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(keys), len(keys)))
    _, component = sparse.csgraph.connected_components(graph, directed=False)
    of_row = component[ends[:, 0]]
    parts, sizes = np.unique(of_row, return_counts=True)
    if len(parts) < num_folds:
        raise ShapeError(
            f"{len(parts)} groups that share no positive for {num_folds} folds: give more rows or fewer folds"
        )
    # Large parts first, each to the emptiest fold; parts of one size in an order drawn from the seed.
    drawn = np.random.default_rng(seed).random(len(parts))
    filled, fold_of = np.zeros(num_folds, np.int64), np.zeros(int(component.max()) + 1, np.int64)
    for part in np.lexsort((drawn, -sizes)):
        fold_of[parts[part]] = filled.argmin()
        filled[filled.argmin()] += sizes[part]
    return fold_of[of_row]
