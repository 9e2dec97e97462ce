"""Tables of whole numbers in one flat row, so that the counts of images add up and can be drawn again."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64, Num


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """Where each table lies in the flat row of an image. A layout says its `shapes`."""

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """Shape of each table by name."""
        raise NotImplementedError

    @cached_property
    def size(self) -> int:
        """Numbers of one image."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def join(self, tables: Mapping[str, Int64[np.ndarray, "..."]]) -> Int64[np.ndarray, "k"]:
        """Tables as one row."""
        return np.concatenate([tables[name].ravel() for name in self.shapes])

    def part(self, states: Num[np.ndarray, "*b k"], name: str) -> Num[np.ndarray, "*b m n"]:
        """One table of any batch of rows."""
        start = 0
        for each, shape in self.shapes.items():
            length = math.prod(shape)
            if each == name:
                return states[..., start : start + length].reshape(*states.shape[:-1], *shape)
            start += length
        raise KeyError(name)
