"""Whether a start finds anything to do: an engine that takes seconds to start is not started for nothing.

Only the engine depends on what is said here. The job itself still takes the lock, compares recipes, rolls forward what
was committed and looks at what is there, in this process.
"""

import logging

from jobs.engines import EngineName
from pipelines.label import LabelJob
from pipelines.ledger import Ledger
from pipelines.retry import codes_to_retry
from pipelines.storage import open_storage
from pipelines.units import UnitJob, unit_ledger

logger = logging.getLogger(__name__)

FEW_SHARDS = 16
"""Committed shards that a job over them looks at once more in less time than Ray takes to start."""


def is_labelled(job: LabelJob) -> bool:
    """Every shard is committed as it is now. One listing: a shard with a new time stamp counts as work."""
    committed = Ledger(open_storage(job.output, job.storage)).committed()
    return all(shard.id in committed for shard in job.shards)


def has_nothing_to_retry(job: LabelJob, codes: frozenset[str] | None) -> bool:
    """No committed row failed, or none with one of the codes."""
    commits = Ledger(open_storage(job.output, job.storage)).read_all()
    return not any(any(codes_to_retry(commit, codes)) for commit in commits)


def are_units_done(job: UnitJob) -> bool:
    """Every shard is committed, and they are few: of many, the closing look is worth an engine."""
    committed = unit_ledger(open_storage(job.output, job.storage), job.kinds).committed()
    return len(job.units) <= FEW_SHARDS and all(unit.shard.id in committed for unit in job.units)


def engine_for(job: LabelJob, engine: EngineName, *, retry: bool, codes: frozenset[str] | None) -> EngineName:
    """The engine that was asked for, or this process where nothing is left to do; says so."""
    if retry and has_nothing_to_retry(job, codes):
        which = f" with {' or '.join(sorted(codes))}" if codes else ""
        logger.info("nothing to try again: no image failed%s; no engine is started", which)
        return "inline"
    if not retry and engine == "ray" and is_labelled(job):
        logger.info("every shard is labelled before: Ray is not started")
        return "inline"
    return engine


def engine_for_units(job: UnitJob, engine: EngineName) -> EngineName:
    """Likewise for a job over committed shards."""
    if engine == "ray" and are_units_done(job):
        logger.info("every shard is done before: Ray is not started")
        return "inline"
    return engine
