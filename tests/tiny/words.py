"""A text encoder whose vectors can be worked out by hand: every word is an axis, a phrase the mean of its words."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ovsops.miniature.captions import split_words


class WordEncoder:
    """Unit vectors of phrases: k equal words make cosines of m / k with another phrase of k words that shares m.

    Chinese words are single characters, as in the miniature tokenizer.
    """

    def __init__(self, size: int = 600) -> None:
        self.size = size
        self.axes: dict[str, int] = {}
        self.calls: list[list[str]] = []

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        self.calls.append(list(phrases))
        return self.vectors(phrases)

    def vectors(self, phrases: Sequence[str]) -> Tensor:
        """The same, not noted as a call."""
        rows = torch.zeros(len(phrases), self.size)
        for row, phrase in zip(rows, phrases, strict=True):
            for word in split_words(phrase):
                row[self.axes.setdefault(word, len(self.axes))] += 1
        return F.normalize(rows, dim=-1)
