"""RLE of 100 masks of 1024 x 1024: ours against the plain pycocotools path, in CPU milliseconds.

    python -m benchmarks.rle [--rounds 15] [--seed 0]

Every contender runs once a round, in turn, so that a busy machine slows all of them alike; the table has the
medians and the spread. The results are compared byte for byte first. Exit 1 when the label map costs more than 60
CPU-ms or is less than 15 times as fast as the plain path.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from time import process_time

import numpy as np
import pycocotools.mask

from ovsops.masks.rle import crops_to_rles, label_map_to_rles, masks_to_rles

SIDE = 1024
NUM_MASKS = 100
MAX_CPU_MS = 60.0
MIN_RATIO = 15.0


def blobs(seed: int) -> np.ndarray:
    """A label map of 100 wavy discs, 30 of them with a hole, none wholly hidden; median area 0.6 % of the image."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.uint16)
    cell = SIDE // 10
    for label in range(1, NUM_MASKS + 1):
        row, column = divmod(label - 1, 10)
        y, x = (row + rng.uniform(0.3, 0.7)) * cell, (column + rng.uniform(0.3, 0.7)) * cell
        radius = rng.uniform(0.35, 0.6) * cell
        angle = np.arctan2(yy - y, xx - x)
        distance = np.hypot(yy - y, xx - x) / (1 + 0.15 * np.sin(5 * angle + rng.uniform(0, 6)))
        is_blob = distance < radius
        if label % 10 < 3:
            is_blob &= distance > 0.4 * radius
        labels[is_blob] = label
    return labels


def plain(masks: list[np.ndarray]) -> list[str]:
    """What one writes with pycocotools: a column-major copy of each whole mask."""
    encoded = [pycocotools.mask.encode(np.asfortranarray(mask)) for mask in masks]
    return [rle["counts"].decode("ascii") for rle in encoded]


def contenders(labels: np.ndarray) -> dict[str, Callable[[], list[str]]]:
    """Ways to the same 100 strings, by what they start from."""
    stack = labels == np.arange(1, NUM_MASKS + 1)[:, None, None]
    crops, corners = [], []
    for mask in stack:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        crops.append(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy())
        corners.append((int(rows[0]), int(columns[0])))
    return {
        "plain, label map": lambda: plain([labels == label for label in range(1, NUM_MASKS + 1)]),
        "plain, bool masks": lambda: plain(list(stack)),
        "ours, label map": lambda: [rle.counts for rle in label_map_to_rles(labels, NUM_MASKS)],
        "ours, bool masks": lambda: [rle.counts for rle in masks_to_rles(stack)],
        "ours, crops": lambda: [rle.counts for rle in crops_to_rles(crops, corners, (SIDE, SIDE))],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    labels = blobs(options.seed)
    ways = contenders(labels)
    results = [way() for way in ways.values()]
    if any(result != results[0] for result in results):
        print("the ways do not agree")
        return 1
    cpu_ms: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = process_time()
            way()
            cpu_ms[name].append(1e3 * (process_time() - start))

    shares = [np.count_nonzero(labels == label) / labels.size for label in range(1, NUM_MASKS + 1)]
    print(f"{NUM_MASKS} masks of {SIDE} x {SIDE}, median area {100 * statistics.median(shares):.2f} %")
    print(f"{'':20}{'CPU-ms':>9}{'min':>8}{'max':>8}{'ratio':>8}")
    medians = {name: statistics.median(times) for name, times in cpu_ms.items()}
    for name, times in cpu_ms.items():
        base = medians["plain, label map" if "label map" in name else "plain, bool masks"]
        print(f"{name:20}{medians[name]:9.1f}{min(times):8.1f}{max(times):8.1f}{base / medians[name]:8.1f}")
    ratio = medians["plain, label map"] / medians["ours, label map"]
    return 0 if medians["ours, label map"] <= MAX_CPU_MS and ratio >= MIN_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
