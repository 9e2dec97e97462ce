"""What a job runs on: Ray, or this process alone."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

from jobs.exits import PreflightError, stop_on_sigterm
from jobs.logs import format_ray_records
from pipelines.runner import InlineEngine, RayConfig, RayEngine
from pipelines.storage import StorageOptions

logger = logging.getLogger(__name__)

EngineName = Literal["ray", "inline"]


@contextmanager
def running_engine(
    name: EngineName, ray: RayConfig, storage: StorageOptions, *, record: Callable[[PreflightError], None]
) -> Iterator[RayEngine | InlineEngine]:
    """An engine that is up. One that does not come up is a PreflightError, which `record` gets before it is raised."""
    if name == "inline":
        yield InlineEngine(storage)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    format_ray_records()
    logger.info("starting Ray (%s): some seconds, half a minute on a busy machine", ray.address)
    with ExitStack() as stack:
        try:
            engine = stack.enter_context(RayEngine(ray, storage))
        except Exception as error:  # ray raises bare Exception for a node that is too slow to start
            failure = PreflightError(
                f"Ray did not start: {error}; a busy machine may be too slow for it (it waits 30 s): start the run "
                "again, or use --engine inline"
            )
            record(failure)
            raise failure from error
        stop_on_sigterm()  # again: Ray has put its own handler there
        yield engine
