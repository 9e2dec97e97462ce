"""Numbers of jobs over committed shards that their recipes hold."""

from dataclasses import dataclass

from ovsops.errors import ConfigError
from pipelines.runner import Placement


@dataclass(frozen=True, kw_only=True)
class UnitLimits:
    """How much may go wrong before a finished run counts as one that needs a look (exit 3)."""

    max_failed_shards: int = 0
    """Shards that could not be worked on; the next run tries them again."""

    def __post_init__(self) -> None:
        if self.max_failed_shards < 0:
            raise ConfigError(f"limits.max_failed_shards is {self.max_failed_shards}; it must be 0 or more")


def work_placement() -> Placement:
    """A shard a task, as many tasks as there are CPUs."""
    return Placement(actors=0, num_cpus=1.0, blocks_at_once=1)
