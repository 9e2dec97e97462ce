"""The review queue of a run, and the file that it is written to."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ovsops.errors import ConfigError
from ovsops.text.names import nearest
from pipelines.audit.form import harmless
from pipelines.audit.sample import chance_of
from pipelines.export import vocabulary_of
from pipelines.ledger import Ledger
from pipelines.review.config import ReviewConfig
from pipelines.review.pool import fill_pool
from pipelines.review.select import Chosen, choose
from pipelines.storage import Storage


@dataclass(frozen=True, kw_only=True)
class ReviewQueue:
    """What to look at, best first."""

    chosen: tuple[Chosen, ...]
    labels: int
    """Labels of the run."""
    candidates: int
    """Of these, labels that were weighed against each other."""
    doubles: int

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the file."""
        for rank, each in enumerate(self.chosen, 1):
            row, image = each.candidate.row, each.candidate.image
            yield {
                "rank": rank,
                "instance_uid": row["instance_uid"],
                "image_uid": row["image_uid"],
                "shard": image["shard"],
                "key": image["key"],
                "class": each.class_name,
                "decision": row["decision"] or "none",
                "score": round(chance_of(row), 4),
                "bbox_xywh": [round(side, 2) for side in row["bbox"]],
                "priority": float(f"{each.priority:.6g}"),
                "uncertainty": round(each.candidate.doubt.value, 4),
                "represents": each.represents,
                "class_value": round(each.class_value, 4),
                "reasons": list(each.reasons),
            }


def make_queue(storage: Storage, config: ReviewConfig) -> ReviewQueue:
    """Read a run and choose. Raises `ConfigError` for a class that the vocabulary does not have."""
    names = {spec.id: spec.name for spec in vocabulary_of(storage).classes}
    for name in config.class_values:
        if name not in names.values():
            raise ConfigError(
                f"review.class_values.{name}: the run has no such class{nearest(name, names.values())}"
            )
    commits = Ledger(storage).read_all()
    pool = fill_pool(storage, commits, names, config)
    return ReviewQueue(
        chosen=tuple(choose(pool, names, config)),
        labels=sum(pool.counts.values()),
        candidates=sum(len(each) for each in pool.candidates.values()),
        doubles=pool.doubles,
    )


def queue_to_bytes(rows: Sequence[Mapping[str, Any]], suffix: str) -> bytes:
    """CSV for `.csv`, JSON Lines for `.jsonl`. Raises `ConfigError` for another suffix."""
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows).encode()
    if suffix != ".csv":
        raise ConfigError(f"--out ends in {suffix!r}: give a file that ends in .csv or .jsonl")
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\r\n")
    writer.writerow(rows[0].keys() if rows else ["rank"])
    for row in rows:
        writer.writerow([harmless(_cell(value)) for value in row.values()])
    return b"\xef\xbb\xbf" + sink.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    is_text = any(isinstance(each, str) for each in value)
    return ("; " if is_text else " ").join(str(each) for each in value)
