"""JSON objects with a key twice. Readers keep the last value, or the first, or refuse: which is learned is open."""

import json
from collections.abc import Sequence
from typing import Any

from pipelines.training_sets.contract import Fault, shown

_MAX_NAMED = 20


class KeysTwice:
    """A JSON decoder that remembers which keys came twice. The last value counts, as in Python."""

    def __init__(self) -> None:
        self.decoder = json.JSONDecoder(object_pairs_hook=self.object_of)
        self.found: list[str] = []

    def faults(self) -> list[Fault]:
        """One for each object with such a key, since the last `clear`."""
        return [
            Fault("key_twice", name[:80], f"the key {shown(name)} is twice in one object")
            for name in self.found
        ]

    def clear(self) -> None:
        """Forget what was found: a new value begins."""
        self.found = []

    def object_of(self, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """One object of the text, for `object_pairs_hook`."""
        made = dict(pairs)
        if len(made) < len(pairs) and len(self.found) < _MAX_NAMED:
            names = [name for name, _ in pairs]
            self.found.append(next(name for place, name in enumerate(names) if name in names[:place]))
        return made
