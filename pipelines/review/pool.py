"""Candidates of a review: a bounded pool of each class, uncertain ones likelier. One pass for counts, one for the pool.

A class with more than `pool_per_class` labels gives a weighted sample without replacement (Efraimidis and Spirakis,
Information Processing Letters 97, 2006): the largest log(h) / u, where h in (0, 1) is a hash of seed and uid and u the
doubt. Equal labels on equal bytes (the same picture twice) count once.
"""

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from pipelines.export import committed_rows
from pipelines.ledger import Commit
from pipelines.review.config import ReviewConfig
from pipelines.review.uncertainty import Doubt, doubt_of
from pipelines.storage import Storage

_COLUMNS = [
    "instance_uid",
    "image_uid",
    "category_id",
    "bbox",
    "area",
    "score",
    "score_calibrated",
    "agreement_other",
    "rivals",
    "verdict",
    "decision",
    "reason_codes",
]
_IMAGE_COLUMNS = ["image_uid", "shard", "index", "key", "sha256", "width", "height", "status"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A label that may go into the queue."""

    row: Mapping[str, Any]
    image: Mapping[str, Any]
    doubt: Doubt
    descriptor: Float64[np.ndarray, " D"]
    weight: float
    """Labels of its class that it stands for because the class has more than the pool holds."""

    @property
    def uid(self) -> str:
        """Of the instance."""
        return str(self.row["instance_uid"])


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Candidates by category id, and the labels of each class in the run."""

    candidates: Mapping[int, Sequence[Candidate]]
    counts: Mapping[int, int]
    doubles: int
    """Labels left out because an equal one on equal bytes is there."""


def fill_pool(
    storage: Storage, commits: Sequence[Commit], names: Mapping[int, str], config: ReviewConfig
) -> Pool:
    """Go through the tables once, shard by shard."""
    counts: Counter[int] = Counter()
    heaps: dict[int, list[tuple[float, str, dict[str, Any], dict[str, Any], Doubt]]] = {}
    seen: set[bytes] = set()
    doubles = 0
    for commit in commits:
        images = {row["image_uid"]: row for row in committed_rows(storage, commit, "images", _IMAGE_COLUMNS)}
        for row in committed_rows(storage, commit, "instances", _COLUMNS):
            category = row["category_id"]
            counts[category] += 1
            doubt = doubt_of(row, names)
            if config.class_values.get(names.get(category, ""), 1.0) == 0 or doubt.value <= 0:
                continue
            image = images[row["image_uid"]]
            print_ = _fingerprint(image, row)
            if print_ in seen:
                doubles += 1
                continue
            seen.add(print_)
            entry = (
                _draw_key(config.seed, row["instance_uid"], doubt.value),
                row["instance_uid"],
                row,
                image,
                doubt,
            )
            heap = heaps.setdefault(category, [])
            if len(heap) < config.pool_per_class:
                heapq.heappush(heap, entry)
            elif entry[:2] > heap[0][:2]:
                heapq.heapreplace(heap, entry)
    return Pool(
        candidates={
            category: [
                Candidate(
                    row=row,
                    image=image,
                    doubt=doubt,
                    descriptor=descriptor_of(row, image),
                    weight=max(1.0, counts[category] / len(heap)),
                )
                for _, _, row, image, doubt in sorted(heap, key=lambda entry: entry[1])
            ]
            for category, heap in sorted(heaps.items())
        },
        counts=counts,
        doubles=doubles,
    )


def _fingerprint(image: Mapping[str, Any], row: Mapping[str, Any]) -> bytes:
    box = ",".join(f"{side:.1f}" for side in row["bbox"])
    data = f"{image['sha256'] or image['image_uid']} {row['category_id']} {box}"
    return hashlib.blake2b(data.encode(), digest_size=8).digest()


def _draw_key(seed: int, uid: str, doubt: float) -> float:
    data = f"ovsops review {seed}\0{uid}".encode("utf-8", "surrogatepass")
    bits = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
    return math.log((bits + 1) / (2**64 + 2)) / doubt


def descriptor_of(row: Mapping[str, Any], image: Mapping[str, Any]) -> Float64[np.ndarray, " D"]:
    """Where a label is, how large, of what shape, and how sure: what is known of it without its pixels.

    Centre and sides as shares of the image (sides by their square root), filled share of the box, chance.
    """
    width, height = max(1, image["width"] or 1), max(1, image["height"] or 1)
    x, y, box_width, box_height = row["bbox"]
    score = row["score"] if row["score_calibrated"] is None else row["score_calibrated"]
    return np.array(
        [
            (x + box_width / 2) / width,
            (y + box_height / 2) / height,
            math.sqrt(max(0.0, box_width / width)),
            math.sqrt(max(0.0, box_height / height)),
            min(1.0, row["area"] / max(1.0, box_width * box_height)),
            score,
        ]
    )
