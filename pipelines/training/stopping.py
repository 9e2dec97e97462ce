"""A signal that ends a training after the step it is in, so that its state can be saved."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_gently() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM came. The second one is a KeyboardInterrupt at once.

    Outside the main thread no signal arrives, and the answer stays no.
    """
    asked = threading.Event()

    def note(signum: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        logger.info("stopping after this step; the state will be saved (again: stop at once)")

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
