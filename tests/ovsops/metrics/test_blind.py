"""The blind baseline: rules that leave traces, rules that leave none, folds that share nothing."""

import numpy as np
import pytest

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.blind import BlindConfig, blind_scores, group_folds
from ovsops.metrics.fgovd import positive_is_first

COLOURS = ("red", "blue", "green", "black", "white", "yellow")


def rows_of(shares: list[float], *, num: int = 150, seed: int = 0) -> list[list[str]]:
    """True colours are drawn with these shares, the five negatives are all others."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(num):
        order = rng.permutation(6)
        true = int(rng.choice(6, p=shares))
        colours = [COLOURS[true], *(COLOURS[c] for c in order if c != true)]
        rows.append([f"A {colour} thing number {i}." for colour in colours])
    return rows


def accuracy(rows: list[list[str]], **fields: int) -> float:
    scores, num_texts = blind_scores(rows, list(range(len(rows))), config=BlindConfig(**fields))
    return float(positive_is_first(scores, num_texts).double().mean())


def test_a_frequent_truth_is_guessed_without_an_image() -> None:
    assert accuracy(rows_of([0.9, 0.02, 0.02, 0.02, 0.02, 0.02])) == pytest.approx(0.9, abs=0.07)


def test_even_truths_leave_no_trace() -> None:
    assert accuracy(rows_of([1 / 6] * 6)) < 0.35


def test_pairs_of_words_tell_more_than_words() -> None:
    """Balls are red and boxes are blue: single words are even, pairs give it away."""
    nouns = ["ball", "box"] * 40
    rows = [
        [f"a {a} {noun} {i}", f"a {b} {noun} {i}"]
        for i, noun in enumerate(nouns)
        for a, b in [("red", "blue") if noun == "ball" else ("blue", "red")]
    ]
    assert accuracy(rows, pair_gap=0) < 0.7
    assert accuracy(rows, pair_gap=2) == 1.0


def test_chinese_and_rows_of_unequal_length() -> None:
    rows = [[f"红色的圆形{i}", *[f"{c}色的圆形{i}" for c in "蓝绿黑"[: 1 + i % 3]]] for i in range(30)]
    scores, num_texts = blind_scores(rows, list(range(30)))
    assert num_texts.tolist() == [2 + i % 3 for i in range(30)]
    assert positive_is_first(scores, num_texts).all()
    assert scores[0, 2:].isinf().all()


def test_rows_of_one_image_or_one_positive_never_part() -> None:
    texts = [["a", "b"], ["c", "d"], ["A", "e"], ["f", "g"], ["h", "i"], ["j", "k"]]
    folds = group_folds(texts, ["x", "x", "y", "y", "z", "w"], num_folds=2, seed=0)
    assert len(set(folds[:4].tolist())) == 1
    assert set(folds.tolist()) == {0, 1}


def test_the_same_seed_gives_the_same_scores() -> None:
    rows = rows_of([0.5, 0.1, 0.1, 0.1, 0.1, 0.1], num=30)
    one, two = (blind_scores(rows, list(range(30)))[0] for _ in range(2))
    assert (one == two).all()


def test_what_cannot_be_scored() -> None:
    with pytest.raises(ShapeError, match="3 groups that share no positive for 5 folds"):
        blind_scores([["a", "b"], ["c", "d"], ["e", "f"]], [1, 2, 3])
    with pytest.raises(ShapeError, match="the shortest row of 1 texts"):
        blind_scores([["a", "b"], ["a"]], [1, 2])
    with pytest.raises(ShapeError, match="0 rows and 0 groups"):
        blind_scores([], [])
    with pytest.raises(ConfigError, match="num_folds >= 2"):
        BlindConfig(num_folds=1)
