"""How often models that see only texts pick the positive among its negatives.

python -m benchmarks.blind_negatives FILE.jsonl[.gz] [--bag-only] [--max-bag X] [--max-transformer X]

Each line of the file is an object with `text` and `negatives` (what `ovsops negate` writes; lines without
negatives are passed over), or with `pos_expression` and `neg_expression` (FG-OVD). Rows of one `group`,
`image_id` or `image`, and rows of equal positives, are never on both sides. A model is trained on half of
the groups and picks on the other half, and the other way round; figures are over all rows, with an interval
over groups. Exit status 1 when a figure is over its limit.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import torch

from ovsops.metrics.blind import BlindConfig, blind_scores
from ovsops.metrics.blind_transformer import BlindTransformerConfig, blind_transformer_scores
from ovsops.metrics.fgovd import positive_is_first

GROUP_FIELDS = ("group", "image_id", "image_uid", "image")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--bag-only", action="store_true")
    parser.add_argument("--max-bag", type=float, help="most times chance that the bag of words may reach")
    parser.add_argument("--max-transformer", type=float)
    parser.add_argument("--max-rows", type=int, help="read so many rows at most")
    parser.add_argument("--epochs", type=int, default=BlindTransformerConfig.num_epochs)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    texts, groups = read_rows(options.file, options.max_rows)
    chance = float(np.mean([1 / len(row) for row in texts]))
    num_positives = len({row[0].lower() for row in texts})
    print(
        f"{options.file}: {len(texts)} rows, {num_positives} distinct positives, {len(set(groups))} groups,"
        f" chance {chance:.4f}"
    )
    is_over = False
    names = ["bag of words and pairs"] + ([] if options.bag_only else ["small transformer"])
    for name, limit in zip(names, (options.max_bag, options.max_transformer), strict=False):
        if name.startswith("bag"):
            scores, num_texts = blind_scores(
                texts, groups, config=BlindConfig(num_folds=2, seed=options.seed)
            )
        else:
            config = BlindTransformerConfig(seed=options.seed, num_epochs=options.epochs)
            scores, num_texts = blind_transformer_scores(texts, groups, config=config)
        hits = positive_is_first(scores, num_texts).double().numpy()
        low, high = interval(hits, groups)
        times = hits.mean() / chance
        print(
            f"{name:24} picks the positive in {hits.mean():.4f} [{low:.4f}, {high:.4f}], {times:.2f} x chance"
            f" [{low / chance:.2f}, {high / chance:.2f}]"
        )
        is_over |= limit is not None and times > limit
    sys.exit(1 if is_over else 0)


def read_rows(path: Path, max_rows: int | None = None) -> tuple[list[list[str]], list[Hashable]]:
    """Texts of each row, the positive first, and its group."""
    texts: list[list[str]] = []
    groups: list[Hashable] = []
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if "pos_expression" in row:
                texts.append([row["pos_expression"][0], *row["neg_expression"]])
            elif row.get("negatives"):
                texts.append([row.get("positive") or row["text"], *row["negatives"]])
            else:
                continue
            groups.append(next((row[name] for name in GROUP_FIELDS if name in row), row_key(texts[-1][0])))
            if max_rows is not None and len(texts) >= max_rows:
                break
    return texts, groups


def row_key(positive: str) -> str:
    return positive.lower()


def interval(hits: np.ndarray, groups: list[Hashable], *, draws: int = 1000) -> tuple[float, float]:
    """95 % of the mean over groups drawn again and again."""
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    of_row = np.array([places[group] for group in groups])
    sums, counts = np.bincount(of_row, hits), np.bincount(of_row)
    chosen = np.random.default_rng(0).integers(len(counts), size=(draws, len(counts)))
    means = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


if __name__ == "__main__":
    main()
