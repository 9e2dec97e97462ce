"""A decode worker: one process that decodes images for a `DecodePool` and can be lost without harm.

`python -m ovsops.images.decode_worker OPTIONS`, started by the pool. Standard input is a socket. Request:
8 bytes length, image. Reply: 4 bytes length, JSON; pixels lie in the file `pixels_fd`. The worker leaves when
the socket closes, so a killed parent leaves no orphan, and an alarm of the kernel ends it when one image takes
too long, so not even an endless decode outlives a killed parent. Imports numpy, Pillow and simplejpeg only.
"""

import json
import os
import resource
import signal
import socket
import sys
from dataclasses import asdict, dataclass

import numpy as np

from ovsops.errors import ImageDecodeError
from ovsops.images.decode import DecodeConfig, decode_image

READY = b"ready"
"""First bytes of a worker, once it has imported everything."""


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What a worker is started with."""

    config: DecodeConfig
    memory_bytes: int
    """Cap on the address space of the process (RLIMIT_AS)."""
    alarm_s: float
    """Seconds after which one image ends the worker; above the pool's own time-out."""
    pixels_fd: int
    """Open file that takes the pixels, shared with the pool."""

    def to_json(self) -> str:
        """The command line argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "WorkerOptions":
        """Inverse of `to_json`."""
        fields = json.loads(text)
        return cls(**(fields | {"config": DecodeConfig(**fields["config"])}))


def serve(requests: socket.socket, options: WorkerOptions) -> None:
    """Answer requests until the socket closes."""
    requests.sendall(READY)
    while True:
        length = receive(requests, 8)
        if length is None:
            return
        data = receive(requests, int.from_bytes(length, "little"))
        if data is None:
            return
        signal.setitimer(signal.ITIMER_REAL, options.alarm_s)
        reply = json.dumps(_answer(data, options)).encode()
        requests.sendall(len(reply).to_bytes(4, "little") + reply)
        signal.setitimer(signal.ITIMER_REAL, 0)


def receive(source: socket.socket, num_bytes: int) -> memoryview | None:
    """Exactly `num_bytes`, or None when the other side has closed."""
    buffer = memoryview(bytearray(num_bytes))
    received = 0
    while received < num_bytes:
        count = source.recv_into(buffer[received:])
        if count == 0:
            return None
        received += count
    return buffer


def _answer(data: memoryview, options: WorkerOptions) -> dict[str, object]:
    try:
        image = decode_image(data, options.config)
    except ImageDecodeError as error:
        return {"code": error.code, "message": str(error)}
    except MemoryError:
        return {
            "code": "E_MEMORY",
            "message": f"decoding needs more than the {options.memory_bytes} bytes of a worker (memory_bytes)",
        }
    _write_pixels(options.pixels_fd, image.pixels)
    height, width = image.pixels.shape[:2]
    return {
        "size_hw": (height, width),
        "exif_orientation": image.exif_orientation,
        "num_frames": image.num_frames,
        "format": image.format,
        "notes": image.notes,
    }


def _write_pixels(file: int, pixels: np.ndarray) -> None:
    remaining = pixels.reshape(-1).data
    position = 0
    while position < len(remaining):
        position += os.pwrite(file, remaining[position:], position)


def _limit_process(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the limit is refused or not kept
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        cap = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (cap, cap))


def main() -> None:
    """Entry point of the process."""
    options = WorkerOptions.from_json(sys.argv[1])
    _limit_process(options.memory_bytes)
    with socket.socket(fileno=0) as requests:
        try:
            serve(requests, options)
        except (BrokenPipeError, ConnectionResetError):
            return  # the pool is gone while a reply was under way


if __name__ == "__main__":
    main()
