"""Candidates that change several slots at once. Axes: M draws, C distinct candidates, N changes, V terms.

There are too many to weigh them all (three changes among six slots: a hundred thousand), so a caption gets a bounded
number of distinct ones. They are drawn where the balance will want them: slots and values by their likelihood times
exp(theta . dphi), each value knowing those drawn before it. What the draws get wrong, the weights that are found on
them set right.
"""

import math
from collections.abc import Sequence
from itertools import combinations, product

import numpy as np
from jaxtyping import Float64, Int64

from ovsops.negatives.balance import Balance
from ovsops.negatives.config import NUM_NEGATIVES, NegativeConfig
from ovsops.negatives.lexicon import Lexicon
from ovsops.negatives.phrase import Phrase
from ovsops.negatives.pools import Pool, SlotChoices

_OBJECT_SHARE = 0.1
"""How likely names of things are among the slots of a drawn combination, beside 1 for an attribute."""
_MARGIN = 2
"""Distinct candidates beyond ten below which values are drawn evenly, too."""
_STEEPEST = 3.0
"""The weight of a slot is at most exp of this, and at least exp of minus this, of what it is without balance."""
_FIELD = 1 << 18
"""Slot and term of one change are a number below this: three fit in 63 bits."""
_MAX_TERMS = 1 << 10


def combined_pool(
    phrase: Phrase,
    choices: Sequence[SlotChoices],
    tilt: Balance,
    lexicon: Lexicon,
    config: NegativeConfig,
    num_changes: int,
    generator: np.random.Generator,
) -> Pool:
    """At most `num_drawn` distinct combinations of changes, with even weights; all of them where they are few."""
    if _num_combinations(choices, num_changes, config.num_drawn) <= config.num_drawn:
        found = _all(phrase, choices, lexicon, num_changes)
    else:
        logits = [_tilted(phrase, choice, tilt, lexicon) for choice in choices]
        couplings = _Couplings(phrase, choices, tilt, lexicon)
        found = _drawn(phrase, choices, logits, couplings, config.num_drawn, num_changes, generator)
        if len(found) < NUM_NEGATIVES + _MARGIN:
            even = [np.zeros(len(choice.terms)) for choice in choices]
            more = _drawn(phrase, choices, even, couplings, config.num_drawn, num_changes, generator)
            found = _distinct(np.concatenate([found, more]), config.num_drawn)
    slots = np.array([choice.slot for choice in choices], np.int64)
    return Pool(slots=slots[found[:, :, 0]], terms=found[:, :, 1], log_weights=np.zeros(len(found)))


class _Couplings:
    """What two changes at once add to the sum of both alone; minus infinity where their values do not go together."""

    def __init__(
        self, phrase: Phrase, choices: Sequence[SlotChoices], tilt: Balance, lexicon: Lexicon
    ) -> None:
        self.phrase, self.choices, self.tilt, self.lexicon = phrase, choices, tilt, lexicon
        self.has_any = bool(tilt.pairs) or any(phrase.slots[choice.slot].partners for choice in choices)
        self._known: dict[tuple[int, int], Float64[np.ndarray, "V W"] | None] = {}

    def of(self, first: int, second: int) -> Float64[np.ndarray, "V W"] | None:
        """[terms of choice `first`, terms of choice `second`]; None where there is nothing to add."""
        if (first, second) not in self._known:
            self._known[first, second] = self._made(self.choices[first], self.choices[second])
        return self._known[first, second]

    def _made(self, one: SlotChoices, two: SlotChoices) -> Float64[np.ndarray, "V W"] | None:
        slot_one, slot_two = self.phrase.slots[one.slot], self.phrase.slots[two.slot]
        matrix = self.tilt.beside(slot_one.type, slot_two.type)
        table = None
        if matrix is not None:
            rows = matrix[one.terms]
            table = rows[:, two.terms] - matrix[slot_one.term, two.terms] - rows[:, [slot_two.term]]
        if two.slot in slot_one.partners:
            allowed = self.lexicon.types[slot_one.type].may_replace[np.ix_(one.terms, two.terms)]
            table = np.where(allowed, 0.0 if table is None else table, -np.inf)
        return table


def _tilted(
    phrase: Phrase, choice: SlotChoices, tilt: Balance, lexicon: Lexicon
) -> Float64[np.ndarray, " V"]:
    """Log weights of the terms of a slot while the others stay as they are."""
    if tilt.is_empty:
        return choice.log_likely
    slot = phrase.slots[choice.slot]
    theta = tilt.of_slot(phrase, choice.slot, len(lexicon.types[slot.type].terms))
    return choice.log_likely + theta[choice.terms] - theta[slot.term]


def _drawn(
    phrase: Phrase,
    choices: Sequence[SlotChoices],
    logits: Sequence[Float64[np.ndarray, " _"]],
    couplings: _Couplings,
    num_wanted: int,
    num_changes: int,
    generator: np.random.Generator,
) -> Int64[np.ndarray, "C N 2"]:
    """Distinct combinations in the order in which they were drawn: choice and term of each change."""
    num_draws = 2 * num_wanted
    places = _places(phrase, choices, logits, num_draws, num_changes, generator)
    u = generator.random(places.shape)
    sizes = np.array([len(row) for row in logits], np.int64)
    longest = int(sizes.max())
    table = np.full((len(choices), longest), -np.inf)
    for place, row in enumerate(logits):
        table[place, : len(row)] = row
    picks = np.zeros(places.shape, np.int64)  # M N, among the terms of the choice
    is_good = np.ones(num_draws, bool)
    for n in range(num_changes):
        weights = table[places[:, n]]
        if couplings.has_any:
            for earlier in range(n):
                _couple(weights, places[:, earlier], places[:, n], picks[:, earlier], couplings)
        weights -= weights.max(axis=1, keepdims=True).clip(-1e300)
        sums = np.cumsum(np.exp(weights), axis=1)
        is_good &= sums[:, -1] > 0
        picks[:, n] = (sums <= u[:, n, None] * sums[:, -1:]).sum(axis=1).clip(0, sizes[places[:, n]] - 1)
    terms = np.zeros((len(choices), longest), np.int64)
    for place, choice in enumerate(choices):
        terms[place, : len(choice.terms)] = choice.terms
    return _distinct(np.stack([places, terms[places, picks]], axis=2)[is_good], num_wanted)


def _couple(
    weights: Float64[np.ndarray, "M V"],
    first: Int64[np.ndarray, " M"],
    second: Int64[np.ndarray, " M"],
    picks: Int64[np.ndarray, " M"],
    couplings: _Couplings,
) -> None:
    """Add what the term picked for the first choice does to the terms of the second, in place."""
    couples = first * len(couplings.choices) + second
    order = np.argsort(couples, kind="stable")
    starts = np.flatnonzero(np.diff(couples[order], prepend=-1))
    for rows in np.split(order, starts[1:]):
        one, two = int(first[rows[0]]), int(second[rows[0]])
        added = couplings.of(one, two)
        if added is not None:
            weights[rows, : added.shape[1]] += added[picks[rows]]


def _places(
    phrase: Phrase,
    choices: Sequence[SlotChoices],
    logits: Sequence[Float64[np.ndarray, " _"]],
    num_draws: int,
    num_changes: int,
    generator: np.random.Generator,
) -> Int64[np.ndarray, "M N"]:
    """Which choices are changed together, from left to right."""
    reach = np.array([np.logaddexp.reduce(row) for row in logits])
    shares = np.array([_OBJECT_SHARE if phrase.slots[c.slot].type == "object" else 1.0 for c in choices])
    shares *= np.exp((reach - reach.mean()).clip(-_STEEPEST, _STEEPEST))
    keys = -np.log(1e-12 + generator.random((num_draws, len(choices)))) / shares
    return np.sort(np.argsort(keys, axis=1)[:, :num_changes], axis=1)


def _distinct(found: Int64[np.ndarray, "M N 2"], count: int) -> Int64[np.ndarray, "C N 2"]:
    """The first `count` that differ."""
    codes = np.zeros(len(found), np.int64)
    for n in range(found.shape[1]):
        codes = codes * _FIELD + found[:, n, 0] * _MAX_TERMS + found[:, n, 1]
    firsts = np.sort(np.unique(codes, return_index=True)[1])
    return found[firsts[:count]]


def _num_combinations(choices: Sequence[SlotChoices], num_changes: int, enough: int) -> int:
    """How many there are, counted until there are more than enough."""
    total = 0
    for places in combinations(range(len(choices)), num_changes):
        total += math.prod(len(choices[p].terms) for p in places)
        if total > enough:
            break
    return total


def _all(
    phrase: Phrase, choices: Sequence[SlotChoices], lexicon: Lexicon, num_changes: int
) -> Int64[np.ndarray, "C N 2"]:
    couplings = _Couplings(phrase, choices, Balance(), lexicon)
    found = [
        [(place, int(choices[place].terms[v])) for place, v in zip(places, picked, strict=True)]
        for places in combinations(range(len(choices)), num_changes)
        for picked in product(*(range(len(choices[p].terms)) for p in places))
        if not any(
            (table := couplings.of(places[a], places[b])) is not None
            and np.isneginf(table[picked[a], picked[b]])
            for b in range(num_changes)
            for a in range(b)
        )
    ]
    return np.array(found, np.int64).reshape(len(found), num_changes, 2)
