"""Inclusion probabilities, and weights that take away what a blind model could learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovsops.negatives.balance import Balance, fit_balance, inclusion
from ovsops.negatives.config import NegativeConfig
from ovsops.negatives.lexicon import load_lexicon
from ovsops.negatives.pools import Pool, single_pool, slot_choices
from ovsops.negatives.sampler import parse
from ovsops.negatives.values import count_values


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-40, 40), min_size=11, max_size=60))
def test_ten_of_the_candidates_are_expected(log_weights: list[float]) -> None:
    weights = np.array(log_weights)
    q = inclusion(weights)
    assert q.sum() == pytest.approx(10)
    assert (q > 0).all()
    assert q.max() < 1.01
    assert (np.diff(q[np.argsort(weights, kind="stable")]) >= -1e-9).all()


def test_equal_weights_and_too_few_candidates() -> None:
    np.testing.assert_allclose(inclusion(np.zeros(40)), 0.25, rtol=1e-3)
    np.testing.assert_array_equal(inclusion(np.zeros(7)), 1.0)


def corpus() -> list[str]:
    """Bowls are mostly white, and mostly ceramic."""
    generator = np.random.default_rng(0)
    colours = "white black red blue green brown grey yellow pink purple".split()
    materials = "ceramic plastic metal glass wooden".split()
    things = "bowl lamp chair book shoe clock".split()
    share = np.array([0.3, 0.2, *[0.0625] * 8])
    return [
        f"a {generator.choice(colours, p=share)} {generator.choice(materials, p=[0.4, 0.3, 0.1, 0.1, 0.1])}"
        f" {generator.choice(things)}"
        for _ in range(250)
    ]


def pools_of(texts: list[str]) -> tuple[list, list[Pool]]:
    lexicon, config = load_lexicon("en"), NegativeConfig()
    phrases = [parse(text, "en") for text in texts]
    frequencies = count_values(phrases, lexicon)
    return phrases, [single_pool(slot_choices(p, frequencies, config, 1, {})) for p in phrases]


def flows(phrases: list, pools: list[Pool], balance: Balance) -> dict[tuple[str, str], float]:
    """How often each value comes in, less how often it goes out, in captions."""
    lexicon = load_lexicon("en")
    found: dict[tuple[str, str], float] = {}
    for phrase, pool in zip(phrases, pools, strict=True):
        q = inclusion(pool.log_weights + balance.of_pool(phrase, pool, lexicon)) / 10
        for share, slot, term in zip(
            q.tolist(), pool.slots[:, 0].tolist(), pool.terms[:, 0].tolist(), strict=True
        ):
            at = phrase.slots[slot]
            for place, sign in ((term, 1), (at.term, -1)):
                key = (at.type, lexicon.types[at.type].terms[place].surface)
                found[key] = found.get(key, 0.0) + sign * share
    return found


def test_what_goes_out_comes_in_again() -> None:
    phrases, pools = pools_of(corpus())
    before = flows(phrases, pools, Balance())
    after = flows(phrases, pools, fit_balance(phrases, pools, load_lexicon("en"), NegativeConfig(ridge=0.3)))
    assert before["colour", "white"] < -15
    assert max(map(abs, after.values())) < 2.5
    assert sum(map(abs, after.values())) < 0.25 * sum(map(abs, before.values()))


def test_nothing_to_balance_is_no_error() -> None:
    assert fit_balance([], [], load_lexicon("en"), NegativeConfig()).contexts == {}


def test_weights_of_several_changes_are_those_of_the_captions_that_they_make() -> None:
    """theta . phi of a pair of changes counts the two new values beside each other, not beside the old ones."""
    lexicon = load_lexicon("en")
    phrase = parse("a black plastic chair", "en")
    generator = np.random.default_rng(0)
    sizes = {name: len(kind.terms) for name, kind in lexicon.types.items()}
    pairs = {
        (a, b): generator.normal(size=(sizes[a], sizes[b]))
        for a, b in (("colour", "material"), ("colour", "object"), ("material", "object"))
    }
    place = {
        (kind, term.surface): i
        for kind in ("colour", "material")
        for i, term in enumerate(lexicon.types[kind].terms)
    }
    old = [slot.term for slot in phrase.slots]
    new = [place["colour", "red"], place["material", "metal"], old[2]]

    def total(terms: list[int]) -> float:
        return float(
            pairs["colour", "material"][terms[0], terms[1]]
            + pairs["colour", "object"][terms[0], terms[2]]
            + pairs["material", "object"][terms[1], terms[2]]
        )

    pool = Pool(slots=np.array([[0, 1]]), terms=np.array([new[:2]]), log_weights=np.zeros(1))
    np.testing.assert_allclose(Balance(pairs=pairs).of_pool(phrase, pool, lexicon), [total(new) - total(old)])
