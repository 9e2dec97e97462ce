"""What the slots of a caption may become, and candidates that change one of them.

Axes: C candidates, N changes, V terms.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float64, Int64

from ovsops.negatives.config import NUM_NEGATIVES, NegativeConfig, Reason
from ovsops.negatives.phrase import Phrase
from ovsops.negatives.values import ValueFrequencies

_MARGIN = 2
"""Candidates beyond ten below which words are taken that the corpus never says."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotChoices:
    """What one slot may become."""

    slot: int
    terms: Int64[np.ndarray, " V"]
    log_likely: Float64[np.ndarray, " V"]
    num_values: int
    """Synonyms count once: ten negatives say ten things."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Candidates of a caption: `slots[c]` become `terms[c]`."""

    slots: Int64[np.ndarray, "C N"]
    terms: Int64[np.ndarray, "C N"]
    log_weights: Float64[np.ndarray, " C"]


Memory = dict[tuple[object, ...], "tuple[Int64[np.ndarray, ' V'], Float64[np.ndarray, ' V'], int] | None"]
"""Terms, log likelihoods and number of values of slots that were met before, by all that they depend on."""
_MAX_REMEMBERED = 20_000


def slot_choices(
    phrase: Phrase, frequencies: ValueFrequencies, config: NegativeConfig, num_changes: int, memory: Memory
) -> list[SlotChoices] | Reason:
    """What each slot of the caption may become; a reason where that cannot make ten negatives."""
    if not phrase.slots:
        return "R_NO_ATTRIBUTE"
    everything = list(range(len(phrase.slots)))
    attributes = [i for i in everything if phrase.slots[i].type != "object"]
    first = everything if config.name_weight else attributes
    tries = [(first, False), (first, True)]
    if first != everything:
        tries += [(everything, False), (everything, True)]
    choices: list[SlotChoices] = []
    for places, unseen in tries:
        choices = [
            c for p in places if (c := _choices(phrase, p, frequencies, config, unseen, memory)) is not None
        ]
        if _capacity(choices, num_changes) >= NUM_NEGATIVES + _MARGIN:
            return choices
    if len(choices) < num_changes:
        return "R_TOO_FEW_ATTRIBUTES" if len(phrase.slots) < num_changes else "R_TOO_FEW_VALUES"
    return choices if _capacity(choices, num_changes) >= NUM_NEGATIVES else "R_TOO_FEW_VALUES"


def _choices(
    phrase: Phrase,
    place: int,
    frequencies: ValueFrequencies,
    config: NegativeConfig,
    unseen: bool,
    memory: Memory,
) -> SlotChoices | None:
    slot = phrase.slots[place]
    key = (slot.type, slot.term, slot.role, slot.head, unseen, *(phrase.slots[p].term for p in slot.partners))
    if slot.type == "object":  # its things may not be named like the stuff that is said
        key = (*key, *(at.term for at in phrase.slots if at.type == "material"))
    if key not in memory:
        if len(memory) >= _MAX_REMEMBERED:
            memory.clear()
        terms = frequencies.candidates(phrase, place, unseen=unseen).nonzero()[0]
        likely = frequencies.log_likely(slot.type, slot.head)[terms]
        if slot.type == "object":
            likely = likely + np.log(config.name_weight or 1.0)
        known_terms = frequencies.lexicon.types[slot.type].terms
        num_values = len({known_terms[term].value for term in terms.tolist()})
        memory[key] = (terms, likely, num_values) if num_values else None
    known = memory[key]
    if known is None:
        return None
    return SlotChoices(slot=place, terms=known[0], log_likely=known[1], num_values=known[2])


def _capacity(choices: list[SlotChoices], num_changes: int) -> int:
    """How many negatives the choices can make, counted up to a thousand."""
    sizes = [choice.num_values for choice in choices]
    if num_changes == 1:
        return sum(sizes)
    return sum(
        min(1000, math.prod(sizes[i] for i in places))
        for places in combinations(range(min(len(sizes), 8)), num_changes)
    )


def single_pool(choices: list[SlotChoices]) -> Pool:
    """One change a candidate: all that there are."""
    return Pool(
        slots=np.concatenate([np.full(len(choice.terms), choice.slot) for choice in choices])[:, None],
        terms=np.concatenate([choice.terms for choice in choices])[:, None],
        log_weights=np.concatenate([choice.log_likely for choice in choices]),
    )
