"""Exact nearest neighbours of other classes, block by block: CPU seconds, memory, and whether brute force agrees.

python -m benchmarks.mining [--rows 16384] [--width 768] [--query-rows 4096] [--block-rows 2048]

Made vectors. Brute force is one float64 product of the first 256 queries with everything, sorted.
"""

import argparse
import resource
import time

import numpy as np

from ovsops.negatives.mined import Block, Nearest, PairRules, one_hot, whole_vectors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--query-rows", type=int, default=4096)
    parser.add_argument("--block-rows", type=int, default=2048)
    options = parser.parse_args()
    rules, k = PairRules(), 10
    queries = made(0, options.query_rows, options.width)
    started = time.process_time()
    nearest = Nearest.none_yet(queries, k=k)
    for first in range(0, options.rows, options.block_rows):
        nearest = nearest.seen(
            made(first, min(options.block_rows, options.rows - first), options.width), rules
        )
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pairs = options.query_rows * options.rows
    print(
        f"{options.query_rows} queries x {options.rows} rows of {options.width}: {seconds:.1f} CPU-seconds,"
        f" {pairs / seconds / 1e6:.1f} M pairs a CPU-second, peak {peak:.0f} MiB"
    )
    some = made(0, min(256, options.query_rows), options.width)
    uids, cosines = [], []
    for first in range(0, options.rows, options.block_rows):
        block = made(first, min(options.block_rows, options.rows - first), options.width)
        values = some.vectors @ block.vectors.T / 2.0**52
        values[rules.excluded(some, block)] = -np.inf
        uids.append(block.uids)
        cosines.append(values)
    names, values = np.concatenate(uids), np.concatenate(cosines, 1)
    order = np.argsort(names, kind="stable")
    best = order[np.argsort(-values[:, order], axis=1, kind="stable")[:, :k]]
    print(f"equal to brute force: {np.array_equal(names[best], nearest.uids[: len(some)])}")


def made(first: int, count: int, width: int) -> Block:
    """Rows `first` and on of an endless corpus of 100 classes, in rows of 64."""
    rows = []
    for start in range(first // 64 * 64, first + count, 64):
        rows.append(np.random.default_rng(start).normal(size=(64, width)).astype(np.float32))
    vectors = np.concatenate(rows)[first % 64 :][:count]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places = np.arange(first, first + count)
    return Block(
        uids=np.array([f"{place:012d}" for place in places]),
        groups=np.array([f"{place // 4:012d}" for place in places]),
        classes=one_hot((places * 7919 % 100).tolist(), 100),
        vectors=whole_vectors(vectors, where="made"),
    )


if __name__ == "__main__":
    main()
