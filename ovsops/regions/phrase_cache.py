"""Text features of phrases that come again with every image: each is encoded once. Axes: T phrases, D channels."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.errors import ConfigError

Encode = Callable[[Sequence[str]], Float[Tensor, "T D"]]
"""Unit vectors of phrases, in order: `box` texts of FG-CLIP 2 for regions."""


class PhraseCache:
    """The phrases that were used last, up to a bound; a call that needs more still gets all of its own."""

    def __init__(self, encode: Encode, *, max_phrases: int) -> None:
        if max_phrases < 1:
            raise ConfigError(f"phrase cache: max_phrases is {max_phrases}; at least 1 is needed")
        self._encode, self.max_phrases = encode, max_phrases
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self.num_encoded = 0
        """Phrases that went through the encoder."""

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(self, phrases: Sequence[str]) -> Float[Tensor, "T D"]:
        """Unit vectors of one phrase or more, in order; those that are not kept are encoded together, each once."""
        missing = list(dict.fromkeys(phrase for phrase in phrases if phrase not in self._kept))
        found: dict[str, Tensor] = {}
        if missing:
            found = dict(zip(missing, self._encode(missing), strict=True))
            self.num_encoded += len(missing)
        rows = [found[phrase] if phrase in found else self._kept[phrase] for phrase in phrases]
        for phrase, row in zip(phrases, rows, strict=True):
            self._kept[phrase] = row.clone() if phrase in found else row  # a view would keep its whole batch
            self._kept.move_to_end(phrase)
        while len(self._kept) > self.max_phrases:
            self._kept.popitem(last=False)
        return torch.stack(rows)
