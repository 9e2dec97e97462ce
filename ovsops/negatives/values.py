"""Which words may be put into a slot, and how likely each is there. Axes: V terms of a type, C candidates of a slot.

A value that never comes in truths gives a negative away, and so does one that nobody says of such a thing. Words are
therefore weighed by how often the corpus says them of the same thing, then at all; words that it never says are used
only where too few others are left.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from ovsops.negatives.lexicon import AttributeType, Lexicon
from ovsops.negatives.phrase import Phrase, Slot

_HEAD_TRUST = 4.0
"""As many captions about a thing weigh as much as all captions."""
_FEWEST_CAPTIONS = 200
"""Below so many captions of a corpus, what it lacks is not held against a word."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ValueFrequencies:
    """How often terms are said in a corpus."""

    lexicon: Lexicon
    num_captions: int
    counts: dict[AttributeType, Float64[np.ndarray, " V"]]
    by_head: dict[tuple[AttributeType, str], Counter[int]]
    """Terms by what they are said of."""

    def is_seen(self, kind: AttributeType) -> Bool[np.ndarray, " V"]:
        """Terms that the corpus says."""
        return self.counts[kind] > 0

    def log_likely(self, kind: AttributeType, head: str) -> Float64[np.ndarray, " V"]:
        """Log probability of each term of a thing: of the thing itself, of all things, and of the language."""
        counts, expected = self.counts[kind], self.lexicon.types[kind].expected
        prior = (expected + 1e-3) / (expected.sum() + 1e-3 * len(expected))
        general = (counts + 5.0 * prior) / (counts.sum() + 5.0)
        of_head = self.by_head.get((kind, head))
        if of_head is None:
            return np.log(general)
        special = general * _HEAD_TRUST
        for term, count in of_head.items():
            special[term] += count
        return np.log(special / special.sum())

    def candidates(self, phrase: Phrase, place: int, *, unseen: bool) -> Bool[np.ndarray, " V"]:
        """Terms that may replace slot `place`: false where it is true, fitting, and (if asked) beyond the corpus."""
        slot = phrase.slots[place]
        kind = self.lexicon.types[slot.type]
        allowed = kind.may_replace[slot.term] & kind.roles[slot.role]
        for partner in slot.partners:
            allowed = allowed & kind.may_replace[phrase.slots[partner].term]
        if slot.type == "object":
            allowed = allowed & ~self._said_as_stuff(phrase, len(kind.terms))
        if unseen or self.num_captions < _FEWEST_CAPTIONS:
            allowed = allowed & (self.is_seen(slot.type) | (kind.expected > 0))
        else:
            allowed = allowed & self.is_seen(slot.type)
        return allowed & (~kind.is_narrow | self._seen_of_head(slot, len(kind.terms)))

    def _said_as_stuff(self, phrase: Phrase, num_terms: int) -> Bool[np.ndarray, " V"]:
        """Things with the word of a material that the caption names: "a blue glass" is true of a blue glass lamp."""
        flags = np.zeros(num_terms, bool)
        for slot in phrase.slots:
            if slot.type == "material":
                said = phrase.text[slot.start : slot.end].lower()
                flags[[term for kind, term in self.lexicon.by_surface[said] if kind == "object"]] = True
        return flags

    def _seen_of_head(self, slot: Slot, num_terms: int) -> Bool[np.ndarray, " V"]:
        flags = np.zeros(num_terms, bool)
        flags[list(self.by_head.get((slot.type, slot.head), ()))] = True
        return flags


def count_values(phrases: Sequence[Phrase], lexicon: Lexicon) -> ValueFrequencies:
    """The frequencies of parsed captions."""
    counts = {name: np.zeros(len(kind.terms)) for name, kind in lexicon.types.items()}
    by_head: dict[tuple[AttributeType, str], Counter[int]] = {}
    for phrase in phrases:
        for slot in phrase.slots:
            counts[slot.type][slot.term] += 1
            by_head.setdefault((slot.type, slot.head), Counter())[slot.term] += 1
    return ValueFrequencies(lexicon=lexicon, num_captions=len(phrases), counts=counts, by_head=by_head)
