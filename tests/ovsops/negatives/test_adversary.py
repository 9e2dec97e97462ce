"""The blind model within: it finds what gives a caption away, and rows that it separates are refused."""

import dataclasses

import numpy as np
import pytest

from ovsops.errors import ConfigError
from ovsops.negatives.adversary import fit_adversary, fold_of
from ovsops.negatives.config import NegativeConfig
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.sampler import Refusal, fit_sampler

COLOURS = "red blue green yellow white black pink purple".split()
THINGS = "bowl chair lamp book shoe clock".split()


def rows(given_away: bool) -> list[list[str]]:
    """Positives and negatives drawn alike, or with a word that only negatives have."""
    generator = np.random.default_rng(0)
    texts = [f"a {colour} {thing} no. {i}" for i in range(8) for colour in COLOURS for thing in THINGS]
    stuff = "crochet " if given_away else ""
    return [
        [text, *(f"a {stuff}{generator.choice(COLOURS)} {text[2:]}" for _ in range(10))] for text in texts
    ]


def test_what_only_negatives_say_gives_away() -> None:
    adversary = fit_adversary(rows(given_away=True))
    assert adversary is not None
    assert adversary.margin("a red car", ["a crochet red car"] * 10) > 1
    assert adversary.margin("a red car", ["a red car"] * 10) == 0


def test_a_row_is_judged_by_models_that_saw_other_positives() -> None:
    made = rows(given_away=False)
    row = next(row for row in made if fold_of(row[0]) == 2)
    one, two = fit_adversary(made), fit_adversary([r for r in made if fold_of(r[0]) != 2] + [row])
    assert one is not None
    assert two is not None
    assert one.margin(row[0], row[1:]) == two.margin(row[0], row[1:])  # its fold's rows do not matter
    texts = {row[0] for row in made}
    assert {fold_of(text) for text in texts} == {0, 1, 2, 3}
    assert fold_of("A Red Bowl") == fold_of("a red bowl")


def test_too_few_rows_make_no_model() -> None:
    assert fit_adversary([]) is None
    assert fit_adversary([["a red car", "a blue car"]]) is None


def sample() -> CorpusSample:
    generator = np.random.default_rng(1)
    made = CorpusSample()
    for i in range(300):
        colour = generator.choice(COLOURS, p=[0.65, *[0.05] * 7])
        made.add(f"a {colour} {generator.choice(THINGS)} with a rim", "en", str(i))
    return made


def test_rows_that_are_separated_are_refused_and_no_others() -> None:
    corpus = sample()
    sampler = fit_sampler(corpus, NegativeConfig(max_iterations=5, max_margin=1e6))
    rows = corpus.captions("en")[:80]
    free = [sampler.negatives_for(text, "en", key) for key, text in rows]
    margins = [sampler.adversaries["en"].margin(answer.positive, answer.negatives) for answer in free]
    limit = float(np.median(margins))
    sampler.config = dataclasses.replace(sampler.config, max_margin=limit)
    for (key, text), answer, margin in zip(rows, free, margins, strict=True):
        expected = Refusal(reason="R_GIVEN_AWAY") if margin > limit else answer
        assert sampler.negatives_for(text, "en", key) == expected
    assert min(margins) < limit < max(margins)


def test_a_margin_that_is_no_number() -> None:
    with pytest.raises(ConfigError, match="max_margin is nan"):
        NegativeConfig(max_margin=float("nan"))
