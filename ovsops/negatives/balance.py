"""Weights under which negatives look like positives to whoever sees only texts.

Axes: R captions, C candidates, F features.

A model of words and word pairs that is trained to tell positives from negatives starts at zero and moves
along the difference of their feature counts. Where every feature comes as often in positives as in
negatives (each row's ten counting as one caption), zero is its optimum and it learns nothing. So the
inclusion probability of each candidate is
    q_rc = sigmoid(b_rc + theta . (phi(candidate) - phi(positive)) + tau_r),    sum_c q_rc = 10 for every r,
where b is the log likelihood of the candidate's words, and theta makes sum_rc q_rc (phi(candidate) -
phi(positive)) vanish: the least departure in entropy from b that does. It is the minimum over theta and tau
of the convex
    sum_rc softplus(b + theta . dphi + tau_r) - 10 sum_r tau_r + ridge |theta|^2 / 2.
Features are a value alone, beside each of the words around it, of the thing it describes, and beside each
other value of the caption.

Several changes. phi counts pairs of values, so with N changes dphi holds the new values beside each other and beside
those that stay, less all pairs that are gone: joint marginals are balanced, not only single ones. Of K slots a value
stays with probability (K - N) / K, a pair with (K - N)(K - N - 1) / (K (K - 1)): with two changes among three slots no
pair outlives a negative, and all of its mass must come into other captions. There it counts at most a tenth of a
caption, because ten distinct negatives hold it once, unless one of its values stood there before. So
    inflow(v, w) <= R_neither / 10 + R_one,    outflow(v, w) = R_both (1 - share that stays),
over the captions that may take v and w at all (exclusions, roles, number of slots). Where a pair is more common than
that allows ("grey metal" in 9 % of captions that are mostly black, white or brown) no weights balance it; the least
departure is what `fit_balance` gives, and captions that owe too much to the rest are refused (`adversary.py`).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int64
from scipy import optimize, sparse

from ovsops.negatives.config import NUM_NEGATIVES, NegativeConfig
from ovsops.negatives.lexicon import ATTRIBUTE_TYPES, AttributeType, Lexicon
from ovsops.negatives.phrase import Phrase, Slot
from ovsops.negatives.pools import Pool

_ORDER = {name: place for place, name in enumerate(ATTRIBUTE_TYPES)}
_NEWTON_STEPS = 60
_CLIP = 500.0
_MAX_REMEMBERED = 20_000
_TOLERANCE = 1e-3
"""Of the number drawn, where it is found for one caption; the probabilities are then scaled."""
_LARGEST = 8.0
"""Weights stay within: what cannot be balanced is not chased."""

ContextKey = tuple[AttributeType, int, str]
"""Type of a slot, which place (-1 alone, 0 to 3 around, 4 what it describes), and the word there."""
ALONE, HEAD = -1, 4


def context_keys(slot: Slot) -> list[ContextKey]:
    """What stands around a slot."""
    keys: list[ContextKey] = [(slot.type, ALONE, "")]
    keys += [(slot.type, place, word) for place, word in enumerate(slot.around)]
    keys.append((slot.type, HEAD, slot.head))
    return keys


@dataclass(frozen=True, kw_only=True, eq=False)
class Balance:
    """theta, laid out for fast use."""

    contexts: dict[ContextKey, Float64[np.ndarray, " _"]] = field(default_factory=dict)
    pairs: dict[tuple[AttributeType, AttributeType], Float64[np.ndarray, "_ _"]] = field(default_factory=dict)
    """[first, second] terms; types in the order of `ATTRIBUTE_TYPES`; symmetric where they are the same."""
    _memory: dict[tuple[object, ...], Float64[np.ndarray, " _"]] = field(default_factory=dict, repr=False)
    """Sums over what stands around a slot."""

    @property
    def is_empty(self) -> bool:
        """Whether it weighs nothing."""
        return not self.contexts and not self.pairs

    def __add__(self, other: "Balance") -> "Balance":
        """Both at once."""
        contexts, pairs = dict(self.contexts), dict(self.pairs)
        for context, vector in other.contexts.items():
            contexts[context] = contexts[context] + vector if context in contexts else vector
        for couple, matrix in other.pairs.items():
            pairs[couple] = pairs[couple] + matrix if couple in pairs else matrix
        return Balance(contexts=contexts, pairs=pairs)

    def beside(self, one: AttributeType, two: AttributeType) -> Float64[np.ndarray, "V W"] | None:
        """[terms of `one`, terms of `two`] in one caption; None where nothing is known of them."""
        if _ORDER[one] <= _ORDER[two]:
            return self.pairs.get((one, two))
        matrix = self.pairs.get((two, one))
        return None if matrix is None else matrix.T

    def of_slot(self, phrase: Phrase, place: int, size: int) -> Float64[np.ndarray, " V"]:
        """theta . phi of every term of a slot, while the others stay as they are."""
        slot = phrase.slots[place]
        total = self._around(slot, size)
        others = [
            v
            for o, at in enumerate(phrase.slots)
            if o != place and (v := self._beside(slot.type, at)) is not None
        ]
        return sum(others, start=total) if others else total

    def _around(self, slot: Slot, size: int) -> Float64[np.ndarray, " V"]:
        key = (slot.type, slot.around, slot.head)
        total = self._memory.get(key)
        if total is None:
            if len(self._memory) >= _MAX_REMEMBERED:
                self._memory.clear()
            total = np.zeros(size)
            for name in context_keys(slot):
                vector = self.contexts.get(name)
                if vector is not None:
                    total += vector
            self._memory[key] = total
        return total

    def _beside(self, kind: AttributeType, at: Slot) -> Float64[np.ndarray, " V"] | None:
        matrix = self.beside(kind, at.type)
        return None if matrix is None else matrix[:, at.term]

    def of_pool(self, phrase: Phrase, pool: Pool, lexicon: Lexicon) -> Float64[np.ndarray, " C"]:
        """theta . (phi(candidate) - phi(positive)) of every candidate."""
        if self.is_empty:
            return np.zeros(len(pool.slots))
        vectors = {
            place: self.of_slot(phrase, place, len(lexicon.types[phrase.slots[place].type].terms))
            for place in sorted(set(pool.slots.ravel().tolist()))
        }
        table = np.zeros((len(phrase.slots), max(map(len, vectors.values()))))
        for place, vector in vectors.items():
            table[place, : len(vector)] = vector - vector[phrase.slots[place].term]
        if pool.slots.shape[1] == 1:
            return table[pool.slots[:, 0], pool.terms[:, 0]]
        total: Float64[np.ndarray, " C"] = table[pool.slots, pool.terms].sum(axis=1)
        for a in range(pool.slots.shape[1]):
            for b in range(a):
                total += self._both(phrase, pool, a, b)
        return total

    def _both(self, phrase: Phrase, pool: Pool, a: int, b: int) -> Float64[np.ndarray, " C"]:
        """What two changes in one candidate differ by from the sum of both alone: M(a'b') - M(a'b) - M(ab') + M(ab)."""
        extra = np.zeros(len(pool.slots))
        couples = pool.slots[:, [a, b]]
        for first, second in np.unique(couples, axis=0).tolist():
            rows = ((couples[:, 0] == first) & (couples[:, 1] == second)).nonzero()[0]
            one, two = phrase.slots[first], phrase.slots[second]
            new_one, new_two = pool.terms[rows, a], pool.terms[rows, b]
            if _ORDER[one.type] > _ORDER[two.type]:
                one, two, new_one, new_two = two, one, new_two, new_one
            matrix = self.pairs.get((one.type, two.type))
            if matrix is not None:
                extra[rows] = (
                    matrix[new_one, new_two]
                    - matrix[new_one, two.term]
                    - matrix[one.term, new_two]
                    + matrix[one.term, two.term]
                )
        return extra


def inclusion(
    log_weights: Float64[np.ndarray, " C"], count: int = NUM_NEGATIVES
) -> Float64[np.ndarray, " C"]:
    """Probabilities sigmoid(log_weights + tau) that sum to `count`; all 1 where there are no more candidates."""
    num = len(log_weights)
    if num <= count:
        return np.ones(num)
    centre = math.log(count / (num - count))
    low, high = centre - float(log_weights.max()), centre - float(log_weights.min())
    tau = max(low, centre - float(np.partition(log_weights, num - count)[num - count]))
    for _ in range(_NEWTON_STEPS):
        q = 1 / (1 + np.exp(-(log_weights + tau)))
        excess = float(q.sum()) - count
        if abs(excess) < _TOLERANCE:
            break
        if excess > 0:
            high = tau
        else:
            low = tau
        step = tau - excess / max(float(q @ (1 - q)), 1e-9)
        tau = step if low < step < high else (low + high) / 2
    return q * (count / q.sum())


def _inclusion_by_row(
    log_weights: Float64[np.ndarray, " C"],
    starts: Int64[np.ndarray, " R"],
    sizes: Int64[np.ndarray, " R"],
    tau: Float64[np.ndarray, " R"],
    count: float,
) -> tuple[Float64[np.ndarray, " C"], Float64[np.ndarray, " R"]]:
    """q and tau: Newton's steps, halving the bracket of tau where a step would leave it."""
    tops = np.maximum.reduceat(log_weights, starts)
    bottoms = np.minimum.reduceat(log_weights, starts)
    share = count / sizes
    centre = np.log(share) - np.log1p(-share)
    low, high = centre - tops, centre - bottoms  # equal weights at the top, at the bottom
    tau = tau.clip(low, high)
    for _ in range(_NEWTON_STEPS):
        q = _sigmoid(log_weights + np.repeat(tau, sizes))
        excess = np.add.reduceat(q, starts) - count
        if np.abs(excess).max() < 1e-7:
            break
        high, low = np.where(excess > 0, tau, high), np.where(excess < 0, tau, low)
        step = tau - excess / np.maximum(np.add.reduceat(q * (1 - q), starts), 1e-12)
        tau = np.where((step > low) & (step < high), step, (low + high) / 2)
    return _sigmoid(log_weights + np.repeat(tau, sizes)), tau


def _sigmoid(x: Float64[np.ndarray, " C"]) -> Float64[np.ndarray, " C"]:
    return 1 / (1 + np.exp(-x.clip(-_CLIP, _CLIP)))


def fit_balance(
    phrases: Sequence[Phrase], pools: Sequence[Pool], lexicon: Lexicon, config: NegativeConfig
) -> Balance:
    """theta of captions with their candidates."""
    kept = [
        (phrase, pool) for phrase, pool in zip(phrases, pools, strict=True) if len(pool.slots) > NUM_NEGATIVES
    ]
    if not kept:
        return Balance()
    columns = _Columns(lexicon, [phrase for phrase, _ in kept], config.min_context)
    features = _differences(kept, columns)
    used = np.unique(features.indices)
    place_of = np.full(columns.num_columns, -1, np.int64)
    place_of[used] = np.arange(len(used))
    features = sparse.csr_matrix(
        (features.data, place_of[features.indices], features.indptr), shape=(features.shape[0], len(used))
    )
    theta = np.zeros(columns.num_columns)
    theta[used] = _solve(features, kept, config)
    return columns.balance(theta)


def _solve(
    features: sparse.csr_matrix, kept: Sequence[tuple[Phrase, Pool]], config: NegativeConfig
) -> Float64[np.ndarray, " F"]:
    sizes = np.array([len(pool.slots) for _, pool in kept], np.int64)
    starts = np.append(0, np.cumsum(sizes)[:-1])
    base = np.concatenate([pool.log_weights for _, pool in kept])
    tau = np.zeros(len(kept))
    transposed = features.T.tocsr()

    def loss(theta: Float64[np.ndarray, " F"]) -> tuple[float, Float64[np.ndarray, " F"]]:
        nonlocal tau
        log_weights = base + features @ theta
        q, tau = _inclusion_by_row(log_weights, starts, sizes, tau, float(NUM_NEGATIVES))
        shifted = log_weights + np.repeat(tau, sizes)
        value = np.logaddexp(0, shifted).sum() - NUM_NEGATIVES * tau.sum()
        slope = transposed @ q
        return (
            float(value / NUM_NEGATIVES + config.ridge / 2 * theta @ theta),
            slope / NUM_NEGATIVES + config.ridge * theta,
        )

    found = optimize.minimize(
        loss,
        np.zeros(features.shape[1]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-_LARGEST, _LARGEST)] * features.shape[1],
        options={"maxiter": config.max_iterations, "maxcor": 20},
    )
    return np.asarray(found.x, np.float64)


class _Columns:
    """Which column of the feature matrix is which feature."""

    def __init__(self, lexicon: Lexicon, phrases: Sequence[Phrase], min_context: int) -> None:
        self.sizes = {name: len(kind.terms) for name, kind in lexicon.types.items()}
        counted = Counter(
            key for phrase in phrases for slot in phrase.slots for key in set(context_keys(slot))
        )
        self.contexts: dict[ContextKey, int] = {}
        self.pairs: dict[tuple[AttributeType, AttributeType], int] = {}
        self.num_columns = 0
        for key in sorted(key for key, count in counted.items() if count >= min_context):
            self.contexts[key] = self.num_columns
            self.num_columns += self.sizes[key[0]]
        present = sorted({slot.type for phrase in phrases for slot in phrase.slots}, key=_ORDER.__getitem__)
        for i, first in enumerate(present):
            for second in present[i:]:
                self.pairs[first, second] = self.num_columns
                self.num_columns += self.sizes[first] * self.sizes[second]

    def pair(
        self,
        one: AttributeType,
        one_term: Int64[np.ndarray, " C"] | int,
        two: AttributeType,
        two_term: Int64[np.ndarray, " C"] | int,
    ) -> Int64[np.ndarray, " C"]:
        """Columns of two values in one caption, whichever comes first."""
        if _ORDER[one] > _ORDER[two]:
            one, one_term, two, two_term = two, two_term, one, one_term
        a, b = np.asarray(one_term, np.int64), np.asarray(two_term, np.int64)
        if one == two:
            a, b = np.minimum(a, b), np.maximum(a, b)
        return self.pairs[one, two] + a * self.sizes[two] + b

    def balance(self, theta: Float64[np.ndarray, " F"]) -> Balance:
        """theta cut into vectors and matrices; what is zero throughout is left out."""
        contexts = {
            key: vector
            for key, start in self.contexts.items()
            if (vector := theta[start : start + self.sizes[key[0]]]).any()
        }
        pairs = {}
        for (one, two), start in self.pairs.items():
            matrix = theta[start : start + self.sizes[one] * self.sizes[two]].reshape(
                self.sizes[one], self.sizes[two]
            )
            if one == two:
                matrix = np.triu(matrix) + np.triu(matrix, 1).T
            if matrix.any():
                pairs[one, two] = matrix
        return Balance(contexts=contexts, pairs=pairs)


def _differences(kept: Sequence[tuple[Phrase, Pool]], columns: _Columns) -> sparse.csr_matrix:
    """phi(candidate) - phi(positive), a line a candidate."""
    lines, places, signs = [], [], []
    first_line = 0
    for phrase, pool in kept:
        rows = first_line + np.arange(len(pool.slots))
        for line, place, sign in _pool_differences(phrase, pool, columns):
            lines.append(rows[line])
            places.append(place)
            signs.append(np.full(len(line), sign))
        first_line += len(pool.slots)
    matrix = sparse.csr_matrix(
        (np.concatenate(signs), (np.concatenate(lines), np.concatenate(places))),
        shape=(first_line, columns.num_columns),
    )
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _pool_differences(
    phrase: Phrase, pool: Pool, columns: _Columns
) -> list[tuple[Int64[np.ndarray, " C"], Int64[np.ndarray, " C"], float]]:
    found = []
    current = np.array([[slot.term for slot in phrase.slots]] * len(pool.slots), np.int64)  # C slots
    new = current.copy()
    np.put_along_axis(new, pool.slots, pool.terms, axis=1)
    is_changed = np.zeros(current.shape, bool)
    np.put_along_axis(is_changed, pool.slots, True, axis=1)
    for i, slot in enumerate(phrase.slots):
        lines = is_changed[:, i].nonzero()[0]
        if len(lines):
            for key in context_keys(slot):
                start = columns.contexts.get(key)
                if start is not None:
                    found.append((lines, start + new[lines, i], 1.0))
                    found.append((lines, start + current[lines, i], -1.0))
        for j in range(i):
            either = (is_changed[:, i] | is_changed[:, j]).nonzero()[0]
            if len(either):
                other = phrase.slots[j]
                found.append(
                    (either, columns.pair(slot.type, new[either, i], other.type, new[either, j]), 1.0)
                )
                found.append(
                    (
                        either,
                        columns.pair(slot.type, current[either, i], other.type, current[either, j]),
                        -1.0,
                    )
                )
    return found
