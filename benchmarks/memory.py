"""Peak memory of the whole label job (driver, Ray, workers, decoders) at few and at many shards.

python -m benchmarks.memory [--shards 10 100] [--images 64]
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.label_job import WaitingModel, draw_shards, label_job


class PeakMemory:
    """Samples the proportional set size of this process and all its children: shared pages count once."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()

    def __enter__(self) -> "PeakMemory":
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.5):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue  # it ended while we looked
            self.peak = max(self.peak, total)


def measure(num_shards: int, images: int, seconds_per_batch: float) -> tuple[float, float]:
    """Peak in MiB, and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        shards: Sequence[Path] = draw_shards(Path(folder) / "in", num_shards, images)
        started = time.perf_counter()
        with PeakMemory() as memory:
            label_job(shards, Path(folder) / "out", WaitingModel(seconds_per_batch))
        return memory.peak / 2**20, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--images", type=int, default=64, help="images per shard")
    parser.add_argument("--seconds-per-batch", type=float, default=0.02)
    arguments = parser.parse_args()
    print(f"{'shards':>8} {'peak MiB':>10} {'seconds':>8}")
    for num_shards in arguments.shards:
        peak, seconds = measure(num_shards, arguments.images, arguments.seconds_per_batch)
        print(f"{num_shards:8} {peak:10.0f} {seconds:8.1f}")


if __name__ == "__main__":
    main()
