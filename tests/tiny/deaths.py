"""A process that dies at its nth change of the disk, without dying: from then on nothing it does has an effect."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.lock import LOCK


class Killed(BaseException):
    """Stands for SIGKILL."""


class Deaths:
    """Counts renames and links, and lets the process die before or after one of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count, self.at, self.is_dead = 0, -1, False
        for name in ("replace", "link"):
            patch.setattr(os, name, self._counted(getattr(os, name)))
        unlink = Path.unlink
        patch.setattr(Path, "unlink", lambda path, **more: None if self.is_dead else unlink(path, **more))

    def _counted(self, change: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.is_dead:
                raise Killed
            if Path(args[1]).name == LOCK:  # its heartbeats depend on the clock
                return change(*args, **kwargs)
            before, self.count = self.count, self.count + 1
            if before == self.at // 2 and not self.at % 2:
                self.is_dead = True
                raise Killed
            result = change(*args, **kwargs)
            if before == self.at // 2 and self.at >= 0:
                self.is_dead = True
                raise Killed
            return result

        return counted

    @contextmanager
    def die_at(self, point: int) -> Iterator[None]:
        """Points 2n are before change n, points 2n + 1 after it; -1 only counts."""
        self.count, self.at = 0, point
        try:
            yield
        finally:
            self.at, self.is_dead = -1, False


def files_of(out: Path) -> dict[str, bytes]:
    """Everything that a run leaves, but for what says when and how it ran."""
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    return {
        path: data
        for path, data in found.items()
        if not path.startswith("commits/") and path not in ("summary.json", "_lock.json")
    }
