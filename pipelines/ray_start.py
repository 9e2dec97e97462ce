"""How long a private Ray may take to start.

Ray gives its own node 30 s to register, a number that no setting of Ray's changes (`Node.__init__` of
`ray/_private/node.py`, Ray 2.60). On a core that others use that is too short, and what it then says is no help.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import services

POLL_S = 0.5
"""Wait before the node is looked for again."""
_WAITS = ("RAY_gcs_server_port_wait_time_s", "RAY_raylet_start_wait_time_s")
"""Ray's own settings for other waits of its start; what the environment says stands."""


@contextmanager
def patient_start(seconds: float) -> Iterator[None]:
    """Inside, `ray.init` waits up to `seconds` for its processes; its warnings that it asks again are not shown."""
    deadline = time.monotonic() + seconds
    look = services.get_node

    def wait_for_node(*args: Any, **kwargs: Any) -> Any:
        while True:
            try:
                return look(*args, **kwargs)
            except RuntimeError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(POLL_S)

    waits = {name: str(max(1, round(seconds))) for name in _WAITS if name not in os.environ}
    ray_logger = logging.getLogger("ray")
    level = ray_logger.level
    ray_logger.setLevel(logging.ERROR)
    os.environ.update(waits)
    services.get_node = wait_for_node
    try:
        yield
    finally:
        services.get_node = look
        for name in waits:
            del os.environ[name]
        ray_logger.setLevel(level)
