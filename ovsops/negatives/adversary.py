"""A model that sees only texts, made of the corpus and its negatives: what it separates may be dropped.

The balance takes from words and pairs what it can; where a caption's pair of values is too common to come in elsewhere
("a grey metal spoon"), something is left. Rows are scored by a linear model of words and pairs that saw neither the row
nor one with an equal positive: the hash of the positive names its fold, and each fold's model is fitted on the others.
So a row gets the same answer in every process, whether the sample of the corpus has it or not.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovsops.metrics.blind_words import fitted_weights, vocabulary, word_matrix, words_and_pairs

FEWEST_ROWS = 200
"""Of fewer nothing is learned that would hold for others."""
NUM_FOLDS = 4
PAIR_GAP = 2
RIDGE = 1e-3
MAX_ITERATIONS = 200
"""As `ovsops.metrics.blind.BlindConfig` has them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Adversary:
    """Weights of words and pairs, for each fold those of the model that did not see it."""

    weights: tuple[dict[str, float], ...]

    def margin(self, positive: str, negatives: Sequence[str]) -> float:
        """Score of the positive less the highest of a negative, in nats; above zero the model picks the positive."""
        weights = self.weights[fold_of(positive)]
        scores = [
            sum(weights.get(word, 0.0) for word in words_and_pairs(text, PAIR_GAP))
            for text in (positive, *negatives)
        ]
        return scores[0] - max(scores[1:])


def fit_adversary(rows: Sequence[Sequence[str]]) -> Adversary | None:
    """The models of rows, each a positive and its negatives; None where they are fewer than `FEWEST_ROWS`."""
    words = [[words_and_pairs(text, PAIR_GAP) for text in row] for row in rows]
    folds = np.array([fold_of(row[0]) for row in rows], np.int64)
    if len(rows) < FEWEST_ROWS or len(np.unique(folds)) < NUM_FOLDS:
        return None
    made = []
    for fold in range(NUM_FOLDS):
        train = [words[r] for r in (folds != fold).nonzero()[0]]
        places = vocabulary(train)
        weights = fitted_weights(
            word_matrix(train, places),
            np.array([len(row) for row in train], np.int64),
            ridge=RIDGE,
            max_iterations=MAX_ITERATIONS,
        )
        made.append({word: weight for word, place in places.items() if (weight := float(weights[place]))})
    return Adversary(weights=tuple(made))


def fold_of(positive: str) -> int:
    """Which model must not have seen a row: equal positives have the same."""
    data = positive.lower().encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=2).digest()[0] % NUM_FOLDS
