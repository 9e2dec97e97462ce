"""The linear model of words and word pairs behind `ovsops.metrics.blind`, without tensors. Axes: R rows, F words.

A text is the set of its words and of its pairs of near words. The model has a weight for each, fitted so that the first
text of each row outscores the others.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64
from scipy import optimize, sparse

_WORD = re.compile(r"[a-z0-9][a-z0-9'-]*|[\u3400-\u9fff]")
"""A word of Latin letters, or one Chinese character."""


def split_words(text: str) -> list[str]:
    """Words of Latin letters and single Chinese characters, in lower case."""
    return _WORD.findall(text.lower())


def words_and_pairs(text: str, pair_gap: int) -> list[str]:
    """Words, and pairs of them in order, the second at most `pair_gap` places after the first; each counts once."""
    words = split_words(text)
    pairs = [
        f"{word} {words[other]}"
        for place, word in enumerate(words)
        for other in range(place + 1, min(place + 1 + pair_gap, len(words)))
    ]
    return sorted({*words, *pairs})


def vocabulary(rows: Sequence[Sequence[Sequence[str]]]) -> dict[str, int]:
    """Column of every word of the texts of some rows."""
    return {
        word: place for place, word in enumerate(sorted({w for row in rows for text in row for w in text}))
    }


def word_matrix(rows: Sequence[Sequence[Sequence[str]]], places: dict[str, int]) -> sparse.csr_matrix:
    """One line a text: 1 for each known word that it has."""
    lines = [[places[word] for word in text if word in places] for row in rows for text in row]
    ends = np.cumsum([0, *(len(line) for line in lines)])
    columns = np.array([place for line in lines for place in line], np.int64)
    return sparse.csr_matrix((np.ones(len(columns)), columns, ends), shape=(len(lines), len(places)))


def fitted_weights(
    features: sparse.csr_matrix, num_texts: Int64[np.ndarray, " R"], *, ridge: float, max_iterations: int
) -> Float64[np.ndarray, " F"]:
    """Weights of the least softmax cross-entropy of each row's positive, from zero: no randomness is involved."""
    starts = np.append(0, np.cumsum(num_texts)[:-1])

    def loss(weights: Float64[np.ndarray, " F"]) -> tuple[float, Float64[np.ndarray, " F"]]:
        scores = features @ weights
        shifted = scores - np.repeat(np.maximum.reduceat(scores, starts), num_texts)
        chances = np.exp(shifted)
        sums = np.add.reduceat(chances, starts)
        value = float((np.log(sums) - shifted[starts]).mean() + ridge / 2 * weights @ weights)
        slope = chances / np.repeat(sums, num_texts)
        slope[starts] -= 1
        return value, features.T @ slope / len(starts) + ridge * weights

    found = optimize.minimize(
        loss,
        np.zeros(features.shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations},
    )
    return np.asarray(found.x, np.float64)
