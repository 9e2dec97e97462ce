"""Images per second of a DecodePool beside a plain loop in one process, interleaved, medians.

python benchmarks/decode_pool.py [--height 240] [--width 320] [--workers 2] [--images 1000] [--rounds 5]
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ovsops.images.decode import DecodedImage, decode_image
from ovsops.images.decode_pool import DecodePool
from tests.tiny.images import jpeg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    files = [jpeg(options.height, options.width, seed) for seed in range(20)]
    files = [files[k % len(files)] for k in range(options.images)]
    kilobytes = statistics.mean(map(len, files)) / 1000
    rates: dict[str, list[float]] = {"plain loop, one process": [], f"pool, {options.workers} workers": []}
    started = time.perf_counter()
    with DecodePool(num_workers=options.workers) as pool:
        start_up = time.perf_counter() - started
        for _ in range(options.rounds):
            for name in rates:
                started = time.perf_counter()
                if name.startswith("pool"):
                    for result in pool.map(files):
                        assert isinstance(result, DecodedImage), result
                else:
                    for data in files:
                        decode_image(data)
                rates[name].append(len(files) / (time.perf_counter() - started))
    print(
        f"JPEG {options.width}x{options.height}, {kilobytes:.1f} kB, {len(files)} images, {options.rounds} rounds"
    )
    print(f"pool of {options.workers} started in {start_up:.2f} s")
    for name, values in rates.items():
        median, low, high = statistics.median(values), min(values), max(values)
        print(f"{name:26} {median:7.0f} images/s  (min {low:.0f}, max {high:.0f})")


if __name__ == "__main__":
    main()
