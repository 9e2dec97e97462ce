"""Random numbers that are the same on every machine: a counter hashed by splitmix64.

The mixing function is Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), with
the constants of its reference implementation. Only integer operations reach a pixel, so that no version of numpy,
no C library and no vector unit can change a drawn byte.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import UInt64

T = TypeVar("T")

_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix64(values: UInt64[np.ndarray, "*n"]) -> UInt64[np.ndarray, "*n"]:
    """The splitmix64 finaliser of each value."""
    mixed = values ^ (values >> np.uint64(30))
    mixed = mixed * np.uint64(0xBF58476D1CE4E5B9)
    mixed = mixed ^ (mixed >> np.uint64(27))
    mixed = mixed * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def hashed(seed: int, stream: int, count: int) -> UInt64[np.ndarray, "count"]:
    """`count` hashes of (seed, stream, 0), (seed, stream, 1), ..."""
    start = np.array([(seed * _GAMMA + 1) & _MASK, (stream * _GAMMA + 2) & _MASK], np.uint64)
    keys = mix64(start)
    base = mix64(keys[:1] ^ (keys[1:] << np.uint64(1)))
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GAMMA)
    return mix64(base + steps)


class Draws:
    """Choices taken one after another from one stream of hashes."""

    def __init__(self, seed: int, stream: int) -> None:
        self._seed, self._stream, self._block = seed, stream, 0
        self._values: list[int] = []
        self._at = 0

    def below(self, limit: int) -> int:
        """A whole number from 0 to `limit` - 1; the bias is below `limit` / 2**32."""
        if self._at == len(self._values):
            fresh = hashed(self._seed, self._stream + (self._block << 32), 256) >> np.uint64(32)
            self._values, self._at, self._block = fresh.tolist(), 0, self._block + 1
        value = self._values[self._at]
        self._at += 1
        return value * limit >> 32

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def share(self) -> float:
        """A multiple of 2**-24 in [0, 1)."""
        return self.below(1 << 24) / (1 << 24)

    def happens(self, percent: int) -> bool:
        """True `percent` times in a hundred."""
        return self.below(100) < percent

    def one_of(self, choices: Sequence[T]) -> T:
        """One of the choices, all alike."""
        return choices[self.below(len(choices))]
