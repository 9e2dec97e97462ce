"""A sample of negatives for a person to read: is it true after all, is it bad language?

python -m benchmarks.sample_negatives FILE.jsonl [--count 50] [--seed 0]

Reads what `ovsops negate` writes (`text`, `negatives`, `types`). Types of changes take turns, so that rare ones are
seen, too; a positive is shown once. Prints a Markdown table whose last column is for the reader.
"""

import argparse
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with (gzip.open if options.file.suffix == ".gz" else open)(options.file, "rt", encoding="utf-8") as file:
        chosen = drawn_sample((json.loads(line) for line in file), options.count, options.seed)
    print("| no. | type | caption | negative | true or bad? |\n|---|---|---|---|---|")
    for number, (kind, text, negative) in enumerate(chosen, start=1):
        print(f"| {number} | {kind} | {text} | {negative} | |")


def drawn_sample(rows: Iterable[dict[str, Any]], count: int, seed: int) -> list[tuple[str, str, str]]:
    """Type, caption and negative of `count` negatives of distinct captions; types take turns."""
    by_type: dict[str, list[tuple[str, str, str]]] = {}
    for row in rows:
        for negative, kind in zip(row.get("negatives") or (), row.get("types") or (), strict=True):
            by_type.setdefault(kind, []).append((kind, row["text"], negative))
    generator = np.random.default_rng(seed)
    queues = [
        [by_type[kind][place] for place in generator.permutation(len(by_type[kind]))]
        for kind in sorted(by_type)
    ]
    chosen: list[tuple[str, str, str]] = []
    seen: set[str] = set()
    while any(queues) and len(chosen) < count:
        for queue in queues:
            while queue and queue[-1][1].lower() in seen:
                queue.pop()
            if queue and len(chosen) < count:
                chosen.append(queue.pop())
                seen.add(chosen[-1][1].lower())
    return chosen


if __name__ == "__main__":
    main()
