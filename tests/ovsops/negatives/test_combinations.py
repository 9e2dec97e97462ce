"""Candidates of several changes: distinct, allowed, and where the balance will want them."""

import numpy as np
import pytest

from ovsops.negatives.balance import Balance
from ovsops.negatives.combinations import combined_pool
from ovsops.negatives.config import NegativeConfig
from ovsops.negatives.lexicon import AttributeType, load_lexicon
from ovsops.negatives.phrase import Phrase
from ovsops.negatives.pools import Pool, SlotChoices, slot_choices
from ovsops.negatives.sampler import parse
from ovsops.negatives.values import count_values

LEXICON = load_lexicon("en")


def term(kind: AttributeType, surface: str) -> int:
    return next(i for i, t in enumerate(LEXICON.types[kind].terms) if t.surface == surface)


def choices_of(text: str, num_changes: int) -> tuple[Phrase, list[SlotChoices]]:
    phrase = parse(text, "en")
    found = slot_choices(phrase, count_values([], LEXICON), NegativeConfig(), num_changes, {})
    assert not isinstance(found, str)
    return phrase, found


def pool_of(text: str, num_changes: int, tilt: Balance | None = None, num_drawn: int = 64) -> Pool:
    phrase, choices = choices_of(text, num_changes)
    config = NegativeConfig(num_drawn=num_drawn)
    generator = np.random.default_rng(0)
    return combined_pool(phrase, choices, tilt or Balance(), LEXICON, config, num_changes, generator)


@pytest.mark.parametrize("num_changes", [2, 3])
@pytest.mark.parametrize(
    "text", ["a small red wooden chair with a blue metal frame", "a white and red cup with a black rim"]
)
def test_candidates_are_distinct_allowed_and_go_together(text: str, num_changes: int) -> None:
    phrase, choices = choices_of(text, num_changes)
    allowed = {choice.slot: set(choice.terms.tolist()) for choice in choices}
    pool = pool_of(text, num_changes)
    changes = [
        tuple(zip(slots, terms, strict=True))
        for slots, terms in zip(pool.slots.tolist(), pool.terms.tolist(), strict=True)
    ]
    assert 12 <= len(changes) <= 64
    assert len(set(changes)) == len(changes)
    for change in changes:
        new = dict(change)
        assert len(new) == num_changes
        for slot, value in change:
            assert value in allowed[slot]
            kind = LEXICON.types[phrase.slots[slot].type]
            assert all(kind.may_replace[value, new[p]] for p in phrase.slots[slot].partners if p in new)


def test_few_combinations_are_all_taken() -> None:
    phrase, choices = choices_of("a red wooden chair", 2)
    few = [
        SlotChoices(slot=c.slot, terms=c.terms[:3], log_likely=c.log_likely[:3], num_values=3)
        for c in choices
    ]
    pool = combined_pool(phrase, few, Balance(), LEXICON, NegativeConfig(), 2, np.random.default_rng(0))
    assert len(pool.slots) == 3 * 9  # two of three slots, three values each
    assert len(np.unique(np.concatenate([pool.slots, pool.terms], axis=1), axis=0)) == 27


def test_values_that_exclude_each_other_entirely_end_no_draw() -> None:
    """A list of two where one value is left for both: the pair is never made, other pairs are."""
    phrase, _ = choices_of("a white and red wooden chair", 2)
    green = np.array([term("colour", "green")], np.int64)
    materials = np.array([term("material", name) for name in ("metal", "plastic", "glass")], np.int64)
    choices = [
        SlotChoices(slot=0, terms=green, log_likely=np.zeros(1), num_values=1),
        SlotChoices(slot=1, terms=green, log_likely=np.zeros(1), num_values=1),
        SlotChoices(slot=2, terms=materials, log_likely=np.zeros(3), num_values=3),
        SlotChoices(slot=3, terms=np.arange(90), log_likely=np.zeros(90), num_values=90),
    ]
    generator = np.random.default_rng(0)
    pool = combined_pool(phrase, choices, Balance(), LEXICON, NegativeConfig(), 2, generator)
    assert len(pool.slots) == NegativeConfig().num_drawn
    assert not (np.sort(pool.slots, axis=1) == [0, 1]).all(axis=1).any()


def share(pool: Pool, slot: int, value: int) -> float:
    return float(((pool.slots == slot) & (pool.terms == value)).any(axis=1).mean())


def test_the_tilt_moves_the_draws() -> None:
    text, yellow = "a red wooden chair", term("colour", "yellow")
    vector = np.zeros(len(LEXICON.types["colour"].terms))
    vector[yellow] = 3.0
    tilted = pool_of(text, 2, Balance(contexts={("colour", -1, ""): vector}))
    assert share(tilted, 0, yellow) > 1.4 * share(pool_of(text, 2), 0, yellow) > 0


def test_values_know_those_drawn_before_them() -> None:
    text, pair = "a red wooden chair", (term("colour", "yellow"), term("material", "plastic"))
    matrix = np.zeros((len(LEXICON.types["colour"].terms), len(LEXICON.types["material"].terms)))
    matrix[pair] = -30.0
    pool = pool_of(text, 2, Balance(pairs={("colour", "material"): matrix}), num_drawn=200)
    both = ((pool.slots == [0, 1]) & (pool.terms == pair)).all(axis=1)
    assert not both.any()
    assert share(pool, 0, pair[0]) > 0
    assert share(pool, 1, pair[1]) > 0
