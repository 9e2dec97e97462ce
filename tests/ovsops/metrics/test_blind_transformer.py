"""The blind transformer finds what rules leave behind, also far apart, and nothing where there is nothing."""

import numpy as np
import pytest

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.blind_transformer import BlindTransformerConfig, blind_transformer_scores
from ovsops.metrics.fgovd import positive_is_first

SMALL = BlindTransformerConfig(
    channels=32, heads=2, layers=1, num_epochs=6, batch_rows=16, learning_rate=5e-3
)


def accuracy(rows: list[list[str]]) -> float:
    scores, num_texts = blind_transformer_scores(rows, list(range(len(rows))), config=SMALL)
    return float(positive_is_first(scores, num_texts).double().mean())


def rows_of(*, is_uniform: bool) -> list[list[str]]:
    generator = np.random.default_rng(0)
    colours = ["red", "blue", "green", "black", "white"]
    rows = []
    for i in range(120):
        true = colours[int(generator.integers(5))] if is_uniform else "red"
        rows.append([f"a {c} thing {i}" for c in [true, *(c for c in colours if c != true)]])
    return rows


def test_a_rule_is_found_and_chance_is_not() -> None:
    assert accuracy(rows_of(is_uniform=False)) == 1.0
    assert accuracy(rows_of(is_uniform=True)) < 0.45


def test_rows_of_unequal_length_and_the_same_seed() -> None:
    rows = [["红 a", "b"], ["c", "d", "e"], ["f", ""], ["g", "h"]]
    one, two = (blind_transformer_scores(rows, [0, 1, 2, 3], config=SMALL)[0] for _ in range(2))
    assert one.shape == (4, 3)
    assert one[0, 2] == float("-inf")
    assert one.equal(two)


def test_what_cannot_be_scored() -> None:
    with pytest.raises(ShapeError, match="0 rows and 0 groups"):
        blind_transformer_scores([], [])
    with pytest.raises(ConfigError, match="channels must divide by heads"):
        BlindTransformerConfig(channels=30, heads=4)
    with pytest.raises(ConfigError, match="num_folds 1"):
        BlindTransformerConfig(num_folds=1)
