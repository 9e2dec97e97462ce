"""Counts of images in bounded memory: neighbouring images share a block once there are many of them.

Up to `MAX_BLOCKS` images each keep their own row of counts, and the bootstrap draws images. Beyond, blocks of 2, 4,
8, ... consecutive images are drawn (a block bootstrap, Künsch 1989): sums stay exact, and intervals allow for images
of one shard being alike.
"""

import numpy as np
from jaxtyping import Int64

MAX_BLOCKS = 2048
"""Rows that are kept: some MB at 20 classes, about 60 MB at 171."""


class Blocks:
    """Rows of counts, added in the order of the images."""

    def __init__(self, size: int, *, max_blocks: int = MAX_BLOCKS) -> None:
        self.images_per_block = 1
        self.num_images = 0
        self._max_blocks = max_blocks + max_blocks % 2
        self._rows = np.zeros((0, size), np.int64)

    def add(self, row: Int64[np.ndarray, "k"]) -> None:
        """Count one more image."""
        block = self.num_images // self.images_per_block
        if block == self._max_blocks:
            self._rows[: block // 2] = self._rows[0:block:2] + self._rows[1:block:2]
            self._rows[block // 2 :] = 0
            self.images_per_block *= 2
            block = self.num_images // self.images_per_block
        if block >= len(self._rows):
            grown = np.zeros(
                (min(self._max_blocks, max(16, 2 * len(self._rows))), self._rows.shape[1]), np.int64
            )
            grown[: len(self._rows)] = self._rows
            self._rows = grown
        self._rows[block] += row
        self.num_images += 1

    @property
    def states(self) -> Int64[np.ndarray, "I k"]:
        """A row for each block; the last one may hold fewer images."""
        return self._rows[: -(-self.num_images // self.images_per_block)]
