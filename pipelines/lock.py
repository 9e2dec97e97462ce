"""One run per output: a lock file with an owner, a heartbeat and a way out when the owner died.

The lock saves GPU hours; correctness does not rest on it (the first commit of a shard wins). It is taken over
when its owner's process is gone (same host) or when its heartbeat is older than `STALE_AFTER_S`.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any

import psutil

from ovsops.errors import OutputError, StorageError
from pipelines.storage import Storage

logger = logging.getLogger(__name__)

LOCK = "_lock.json"
HEARTBEAT_S = 10.0
STALE_AFTER_S = 120.0


class OutputLock:
    """Held while a run writes to an output; a context manager."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.token = secrets.token_hex(8)
        self.since = time.time()
        self.lost = threading.Event()
        self._stop = threading.Event()

    def __enter__(self) -> "OutputLock":
        self.since = time.time()
        if not self.storage.create(LOCK, self._record()):
            self._take_over()
        self._thread = threading.Thread(target=self._beat, name="lock-heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._holder().get("token") == self.token:
            self.storage.delete(LOCK)

    def check(self) -> None:
        """Raise if another run took the output over."""
        if self.lost.is_set():
            raise OutputError(
                f"{self.storage.url}: another run took over the lock; this run stops before its next commit"
            )

    def _take_over(self) -> None:
        holder = self._holder()
        if holder and not _is_stale(holder):
            age = time.time() - holder["heartbeat"]
            # Locks of earlier versions say when their process began, and not when they were taken.
            since = datetime.fromtimestamp(holder.get("since", holder["started"]), UTC)
            raise OutputError(
                f"{self.storage.url} is used by process {holder['pid']} on {holder['host']}"
                f" since {since:%Y-%m-%d %H:%M:%S} UTC (heartbeat {age:.0f} s ago): wait for it, stop it,"
                f" or delete {LOCK} if that process is gone"
            )
        if holder:
            logger.warning(
                "taking over %s/%s from process %s on %s",
                self.storage.url,
                LOCK,
                holder["pid"],
                holder["host"],
            )
        self.storage.delete(LOCK)
        if not self.storage.create(LOCK, self._record()):
            raise OutputError(f"{self.storage.url}: another run took the lock first; wait for it")

    def _record(self) -> bytes:
        process = psutil.Process()
        record = {
            "token": self.token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": process.create_time(),
            "since": self.since,
            "heartbeat": time.time(),
        }
        return json.dumps(record).encode()

    def _holder(self) -> dict[str, Any]:
        try:
            return json.loads(self.storage.read(LOCK))
        except FileNotFoundError:
            return {}

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(HEARTBEAT_S):
            try:
                if self._holder().get("token") != self.token:
                    self.lost.set()
                    return
                self.storage.put(LOCK, self._record())
                last = time.monotonic()
            except StorageError as error:
                logger.warning("heartbeat of %s/%s failed: %s", self.storage.url, LOCK, error)
                if time.monotonic() - last > STALE_AFTER_S:  # others may take it over from now on
                    self.lost.set()
                    return


def _is_stale(holder: dict[str, Any]) -> bool:
    if time.time() - holder["heartbeat"] > STALE_AFTER_S:
        return True
    if holder["host"] != socket.gethostname():
        return False
    try:
        process = psutil.Process(holder["pid"])
        return (
            process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - holder["started"]) > 1.0
        )
    except psutil.NoSuchProcess:
        return True
