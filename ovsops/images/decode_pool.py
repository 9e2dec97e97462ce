"""Decode images in worker processes: a crash, a bomb or an endless decode costs one image.

Each worker is a process of its own (`decode_worker`), started by exec, never forked, so the pool may live
beside torch, CUDA and threads, for instance in a Ray actor. A thread of the pool feeds each worker one image at
a time.
"""

import contextlib
import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType

import numpy as np

from ovsops.errors import ConfigError, ImageDecodeError, OvsopsError
from ovsops.images.decode import DecodeConfig, DecodedImage
from ovsops.images.decode_worker import READY, WorkerOptions, receive
from ovsops.images.header import check_num_bytes

logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 120.0
_ALARM_MARGIN_S = 5.0
_KEPT_PIXEL_BYTES = 32 << 20  # a larger shared file is emptied after use
_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")

_Job = tuple[bytes | memoryview, "Future[DecodedImage]"]


class DecodePool:
    """Decodes images in `num_workers` processes.

    `submit` is thread-safe and does not block; the future's exception is an ImageDecodeError with a code of
    `ovsops.images.decode`. An image that crashes its worker is tried once more in a fresh one, so that a
    worker killed from outside costs nothing; twice is E_DECODER_CRASH. Over `timeout_s` is E_TIMEOUT. Raises
    OvsopsError, here or from a future, when workers cannot be started at all: that is no fault of an image.
    """

    def __init__(
        self,
        config: DecodeConfig | None = None,
        num_workers: int = 2,
        timeout_s: float = 20.0,
        *,
        memory_bytes: int = 4 << 30,
    ) -> None:
        if num_workers < 1 or timeout_s <= 0:
            raise ConfigError(f"decode pool of {num_workers} workers and {timeout_s} s: both must be above 0")
        self.config = config or DecodeConfig()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._workers = [_Worker(self.config, timeout_s, memory_bytes) for _ in range(num_workers)]
        self._threads: list[threading.Thread] = []
        try:
            for worker in self._workers:
                worker.start()
            for worker in self._workers:
                worker.wait_until_ready()
        except OvsopsError:
            for worker in self._workers:
                worker.stop()
            raise
        for number, worker in enumerate(self._workers):
            thread = threading.Thread(
                target=self._serve, args=(worker,), name=f"decode-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def submit(self, data: bytes | memoryview) -> "Future[DecodedImage]":
        """Queue one image. `data` must not change until the future is done."""
        future: Future[DecodedImage] = Future()
        try:
            check_num_bytes(len(data), self.config)
        except ImageDecodeError as error:
            future.set_exception(error)
            return future
        with self._lock:
            if self._is_closed:
                raise RuntimeError("decode pool is closed")
            self._jobs.put((data, future))
        return future

    def map(
        self, images: Iterable[bytes | memoryview], *, ahead: int | None = None
    ) -> Iterator[DecodedImage | ImageDecodeError]:
        """Results in the order of `images`, errors of single images as values.

        At most `ahead` images (default: four a worker) are decoded before they are asked for, so memory stays
        flat.
        """
        ahead = 4 * len(self._workers) if ahead is None else ahead
        pending: deque[Future[DecodedImage]] = deque()
        try:
            for data in images:
                pending.append(self.submit(data))
                if len(pending) > ahead:
                    yield _outcome(pending.popleft())
            while pending:
                yield _outcome(pending.popleft())
        finally:
            for future in pending:
                future.cancel()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers that run now."""
        return tuple(pid for worker in self._workers if (pid := worker.pid) is not None)

    def close(self) -> None:
        """Cancel what is queued, wait for what is being decoded, end the workers. May be called twice."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            with contextlib.suppress(queue.Empty):
                while True:
                    job = self._jobs.get_nowait()
                    if job is not None:
                        job[1].cancel()
            for _ in self._threads:
                self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self, worker: "_Worker") -> None:
        while (job := self._jobs.get()) is not None:
            data, future = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                image = worker.decode(data)
            except Exception as error:  # noqa: BLE001  the future carries it to the caller
                future.set_exception(error)
            else:
                future.set_result(image)
            del job, data, future  # an idle thread keeps no image alive
        worker.stop()


def _outcome(future: "Future[DecodedImage]") -> DecodedImage | ImageDecodeError:
    try:
        return future.result()
    except ImageDecodeError as error:
        return error


class _WorkerLost(Exception):  # noqa: N818  not an error of the caller
    """The worker's process has ended; the message says how."""


class _Worker:
    """One worker process and this side of its socket. Used by one thread at a time."""

    def __init__(self, config: DecodeConfig, timeout_s: float, memory_bytes: int) -> None:
        self.config, self.timeout_s, self.memory_bytes = config, timeout_s, memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._pixels_fd = -1

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None else process.pid

    def start(self) -> None:
        """Start a process; `wait_until_ready` follows."""
        self._pixels_fd = _open_shared_file()
        options = WorkerOptions(
            config=self.config,
            memory_bytes=self.memory_bytes,
            alarm_s=self.timeout_s + _ALARM_MARGIN_S,
            pixels_fd=self._pixels_fd,
        )
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen[bytes](
                [sys.executable, "-P", "-m", "ovsops.images.decode_worker", options.to_json()],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                pass_fds=(self._pixels_fd,),
                env=_worker_environment(),
                process_group=0,  # Ctrl-C is for the parent, which closes the socket
            )

    def wait_until_ready(self) -> None:
        """Raise OvsopsError when the process does not come up."""
        try:
            if bytes(self._receive(len(READY), time.monotonic() + _START_TIMEOUT_S)) == READY:
                return
            reason = "spoke out of turn"
        except TimeoutError:
            reason = f"did not come up in {_START_TIMEOUT_S:g} s"
        except _WorkerLost as lost:
            reason = str(lost)
        self.stop()
        raise OvsopsError(
            f"decode worker {reason}; its error is on standard error: check that "
            f"`{sys.executable} -c 'import ovsops.images.decode_worker'` works"
        )

    def decode(self, data: bytes | memoryview) -> DecodedImage:
        """Decode one image, in a new process if need be. Raises ImageDecodeError."""
        for attempt in (1, 2):
            if self._process is None or self._process.poll() is not None:
                self.stop()
                self.start()
                self.wait_until_ready()
            try:
                return self._exchange(memoryview(data).cast("B"))
            except TimeoutError:
                self.stop()
                logger.warning(
                    "decode worker ended: one image of %d bytes took over %g s", len(data), self.timeout_s
                )
                raise ImageDecodeError(
                    "E_TIMEOUT",
                    f"decoding {len(data)} bytes took over {self.timeout_s:g} s (batch.decode_timeout_s)",
                ) from None
            except _WorkerLost as lost:
                self.stop()
                reason = str(lost)
                logger.warning(
                    "decode worker %s on an image of %d bytes, attempt %d", reason, len(data), attempt
                )
        raise ImageDecodeError(
            "E_DECODER_CRASH", f"the decoder {reason} on {len(data)} bytes, twice; leave it out"
        )

    def stop(self) -> None:
        """End the process, whatever state it is in."""
        process, self._process = self._process, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if process is not None:
            process.kill()
            process.wait()
        if self._pixels_fd >= 0:
            os.close(self._pixels_fd)
            self._pixels_fd = -1

    def _exchange(self, data: memoryview) -> DecodedImage:
        deadline = time.monotonic() + self.timeout_s
        self._send(len(data).to_bytes(8, "little"), deadline)
        self._send(data, deadline)
        length = int.from_bytes(self._receive(4, deadline), "little")
        reply = json.loads(bytes(self._receive(length, deadline)))
        if "code" in reply:
            raise ImageDecodeError(reply["code"], reply["message"])
        height, width = reply["size_hw"]
        if not 0 < height * width <= self.config.max_pixels:
            raise _WorkerLost(f"claims {width}x{height} pixels, over the cap")
        return DecodedImage(
            pixels=self._read_pixels(height, width),
            exif_orientation=reply["exif_orientation"],
            num_frames=reply["num_frames"],
            format=reply["format"],
            notes=tuple(reply["notes"]),
        )

    def _read_pixels(self, height: int, width: int) -> np.ndarray:
        """Copy out: the file is written again by the next image."""
        pixels = np.empty((height, width, 3), np.uint8)
        view, position = pixels.reshape(-1).data, 0
        while position < len(view):
            count = os.preadv(self._pixels_fd, [view[position:]], position)
            if count == 0:
                raise _WorkerLost(f"left {position} of {len(view)} bytes of pixels")
            position += count
        if pixels.nbytes > _KEPT_PIXEL_BYTES:
            os.ftruncate(self._pixels_fd, 0)
        return pixels

    def _send(self, data: bytes | memoryview, deadline: float) -> None:
        assert self._socket is not None
        self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise _WorkerLost(self._obituary()) from None

    def _receive(self, num_bytes: int, deadline: float) -> memoryview:
        assert self._socket is not None
        self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
        try:
            received = receive(self._socket, num_bytes)
        except ConnectionResetError:
            received = None
        if received is None:
            raise _WorkerLost(self._obituary())
        return received

    def _obituary(self) -> str:
        """How the process ended; its socket is closed already."""
        assert self._process is not None
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its socket"
        if status < 0:
            name = signal.Signals(-status).name
            return f"was killed by {name}" + (" (often: out of memory)" if name == "SIGKILL" else "")
        return f"exited with status {status}"


def _open_shared_file() -> int:
    """A file in memory where the system has such, else a nameless one in the temporary folder."""
    if sys.platform == "linux":
        return os.memfd_create("ovsops-pixels")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _worker_environment() -> dict[str, str]:
    """No credentials of the parent; the parent's own modules; one thread."""
    environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return environment | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
