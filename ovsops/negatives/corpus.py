"""A bounded, mergeable memory of a corpus: the captions whose hashes are smallest.

Every caption has the same chance to be kept, however the corpus is cut and in whatever order its parts are merged, and
frequent captions are kept as often as they come. All that negatives need to know of a corpus is counted on this sample.
"""

import hashlib
import heapq
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ovsops.errors import ConfigError
from ovsops.negatives.lexicon import LANGUAGES, Language

FORMAT = "ovsops-negatives-corpus-1"
"""Name and version of what `to_plain` gives."""
DEFAULT_CAPACITY = 16_384
"""Captions kept of each language."""


@dataclass(kw_only=True)
class CorpusSample:
    """Captions of a corpus by language, each with the hash of its key. Equal captions with other keys are others."""

    capacity: int = DEFAULT_CAPACITY
    """Captions kept of each language."""
    num_seen: dict[Language, int] = field(default_factory=lambda: dict.fromkeys(LANGUAGES, 0))
    """Captions added."""
    _kept: dict[Language, list[tuple[int, str, str]]] = field(
        default_factory=lambda: {language: [] for language in LANGUAGES}
    )
    """Heaps of (minus hash, key, caption): the largest hash on top."""

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ConfigError(f"capacity is {self.capacity}: a corpus sample keeps at least one caption")

    def add(self, caption: str, language: Language, key: str) -> None:
        """Show one caption; `key` names its row, and no two rows have the same."""
        self.num_seen[language] += 1
        self._keep((-_hash(key), key, caption), language)

    def merge(self, other: "CorpusSample") -> None:
        """Add what another part of the same corpus has kept. Order of merging does not matter."""
        if other.capacity != self.capacity:
            raise ConfigError(
                f"samples of capacity {self.capacity} and {other.capacity} do not merge: give both the same"
            )
        for language in LANGUAGES:
            self.num_seen[language] += other.num_seen[language]
            for entry in other._kept[language]:
                self._keep(entry, language)

    def captions(self, language: Language) -> list[tuple[str, str]]:
        """Key and caption of what is kept, by hash."""
        return [(key, text) for _, key, text in sorted(self._kept[language], reverse=True)]

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "format": FORMAT,
            "capacity": self.capacity,
            "num_seen": dict(self.num_seen),
            "captions": {language: self.captions(language) for language in LANGUAGES},
        }

    @staticmethod
    def from_plain(data: Mapping[str, Any], *, where: str) -> "CorpusSample":
        """What `to_plain` gave. ConfigError where it is something else."""
        try:
            if data["format"] != FORMAT:
                raise ConfigError(
                    f"{where}: format is {data['format']!r}, expected {FORMAT!r}; count the corpus anew"
                )
            sample = CorpusSample(capacity=int(data["capacity"]))
            for language in LANGUAGES:
                for key, caption in data["captions"][language]:
                    sample.add(str(caption), language, str(key))
                sample.num_seen[language] = int(data["num_seen"][language])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{where}: no corpus sample ({error!r}); count the corpus anew") from error
        return sample

    def digest(self) -> str:
        """SHA-256 of what is kept: equal samples make equal negatives."""
        return hashlib.sha256(json.dumps(self.to_plain(), sort_keys=True).encode()).hexdigest()

    def _keep(self, entry: tuple[int, str, str], language: Language) -> None:
        heap = self._kept[language]
        if len(heap) < self.capacity:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)


def _hash(key: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )
