"""What a job runs on: Ray, or this process alone."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from typing import Literal

from jobs.exits import PreflightError, stop_on_sigterm
from jobs.logs import format_ray_records
from pipelines.runner import InlineEngine, RayConfig, RayEngine
from pipelines.storage import StorageOptions

logger = logging.getLogger(__name__)

EngineName = Literal["ray", "inline"]

TOLD_EVERY_S = 10.0
"""Seconds between lines while Ray starts."""


@contextmanager
def still_starting() -> Iterator[None]:
    """Inside, a line every ten seconds says that Ray is still starting, and what needs none."""
    ended = Event()

    def say() -> None:
        began = time.monotonic()
        while not ended.wait(TOLD_EVERY_S):
            logger.info(
                "Ray is still starting (%.0f s); --engine inline needs none", time.monotonic() - began
            )

    told = Thread(target=say, name="starting", daemon=True)
    told.start()
    try:
        yield
    finally:
        ended.set()
        told.join()


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
    logger.info("starting Ray (%s): some seconds, a minute on a busy machine", ray.address)
    with ExitStack() as stack:
        try:
            with still_starting():
                engine = stack.enter_context(RayEngine(ray, storage))
        except Exception as error:  # ray raises bare Exception for a node that is too slow to start
            failure = PreflightError(
                f"Ray did not start: {error}; --engine inline needs none. A busy machine may be too slow for it:"
                f" start the run again, or let it wait longer (ray.start_timeout_s is {ray.start_timeout_s:g})"
            )
            record(failure)
            raise failure from error
        stop_on_sigterm()  # again: Ray has put its own handler there
        yield engine
