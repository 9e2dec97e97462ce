"""What jobs over committed shards need on the driver: small jobs, and what is committed."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ovsops.errors import OutputError, OvsopsError, RowError, StorageError
from pipelines.lock import OutputLock
from pipelines.runner import Engine
from pipelines.storage import Storage, StorageOptions, open_storage
from pipelines.summary import SUMMARY, write_summary
from pipelines.units import UnitCommit

logger = logging.getLogger(__name__)

MAX_WAITING = 8
"""Small jobs of `gather` that run at a time."""

T = TypeVar("T")


def counted(commits: Sequence[UnitCommit], name: str) -> dict[str, int]:
    """A table of counts of all units, largest first."""
    total: Counter[str] = Counter()
    for commit in commits:
        total.update(commit.counts[name])
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def published_sizes(storage: Storage, commits: Sequence[UnitCommit]) -> dict[str, int]:
    """Bytes by path of what lies where committed files should; folders of images are not listed."""
    folders = {t["published"].rpartition("/")[0] for commit in commits for t in commit.tables.values()}
    return {
        info.path: info.size for folder in sorted(folders) for info in storage.list(folder, recursive=False)
    }


def gather(engine: Engine, function: Callable[..., T], calls: Sequence[Mapping[str, Any]]) -> Iterator[T]:
    """Results of small jobs in the order of `calls`, some running ahead. A RowError of one is an OutputError."""
    waiting: deque[Callable[[], T | None]] = deque()
    try:
        for call in calls:
            waiting.append(engine.submit(function, **call))
            if len(waiting) >= MAX_WAITING:
                yield _wait(waiting.popleft())
        while waiting:
            yield _wait(waiting.popleft())
    except RowError as error:  # Ray's has the whole trace in its message, and the error itself as its cause
        raise OutputError(str(getattr(error, "cause", error))) from error


def _wait(poll: Callable[[], T | None]) -> T:
    while (result := poll()) is None:
        time.sleep(0.01)
    return result


def record_failed_units(output: str, options: StorageOptions, error: OvsopsError) -> None:
    """Write `summary.json` for a start that ended before its first unit, where the output can be written."""
    storage = open_storage(output, options)
    message = f"{type(error).__name__}: {error}"[:4000]
    try:
        with OutputLock(storage):
            write_summary(storage, {"state": "not started", "error": message, "over_limits": []})
    except (OutputError, StorageError) as obstacle:
        logger.warning("no %s was written: %s", SUMMARY, obstacle)
