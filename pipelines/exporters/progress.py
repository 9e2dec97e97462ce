"""What an export says while it works: a line every ten seconds, between two images."""

import logging
import time
from collections.abc import Callable

from pipelines.counted import counted

logger = logging.getLogger(__name__)

LINE_EVERY_S = 10.0


class ExportProgress:
    """Counts images and shards, and logs how far it is."""

    def __init__(self, *, images: int, shards: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.images, self.shards, self._clock = images, shards, clock
        self.images_done = self.shards_done = 0
        self._began = self._told = clock()

    def image(self) -> None:
        """An image is written."""
        self.images_done += 1
        now = self._clock()
        if now - self._told < LINE_EVERY_S:
            return
        self._told = now
        logger.info("%s", self.line(now))

    def shard(self) -> None:
        """A shard is written."""
        self.shards_done += 1

    def line(self, now: float) -> str:
        """All of it."""
        seconds = now - self._began
        left = max(0, self.images - self.images_done) * seconds / max(1, self.images_done)
        return (
            f"exported {self.images_done} of {counted(self.images, 'images')}, {self.shards_done} of"
            f" {counted(self.shards, 'shards')}, in {seconds:.0f} s; about {left:.0f} s left"
        )
