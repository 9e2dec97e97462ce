"""When a stage worked on which rows: small enough for commit records, never in the tables that are compared.

A span is `[started, ended, busy, images]`: Unix seconds, seconds that the stage itself worked (added over workers),
and rows.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

STAGES = ("segment", "encode", "ask", "write")
"""Stages whose time is taken: the models together, masks to records, the endpoint, part files."""
_TIMED_AS = {"annotate": "segment"}
MAX_SPANS = 24
"""Spans of one stage that a shard's record keeps; neighbours are joined beyond."""

Span = list[float]
Spans = Mapping[str, Sequence[Sequence[float]]]
"""By stage."""


def timing_fields(stage: str) -> list[pa.Field]:
    """Columns that a stage stamps on its rows: the row's share of the work, and when its batch began and ended."""
    return [
        pa.field(f"{stage}_seconds", pa.float32()),
        pa.field(f"{stage}_started", pa.float64()),
        pa.field(f"{stage}_ended", pa.float64()),
    ]


def timed_as(stages: Sequence[str]) -> str:
    """What the work of stages that run together is called: the first of them whose time is taken, or the first."""
    names = [_TIMED_AS.get(name, name) for name in stages]
    return next((name for name in names if name in STAGES), names[0])


class Stopwatch:
    """Times one batch of a stage."""

    def __init__(self) -> None:
        self.started, self._clock = time.time(), time.perf_counter()

    def columns(self, stage: str, num_rows: int) -> dict[str, pa.Array]:
        """`timing_fields` of the rows, each with its equal share."""
        share = (time.perf_counter() - self._clock) / max(1, num_rows)
        values = (share, self.started, time.time())
        return {
            field.name: pa.array([value] * num_rows, field.type)
            for field, value in zip(timing_fields(stage), values, strict=True)
        }


def span_of(rows: pa.Table, stage: str) -> Span | None:
    """The span of rows that carry a stage's columns; None where it did not work on any."""
    if f"{stage}_started" not in rows.column_names:
        return None
    seconds, started, ended = (rows.column(field.name) for field in timing_fields(stage))
    if started.null_count == len(started):
        return None
    images = pc.and_(pc.is_valid(started), pc.is_null(rows.column("closing")))
    return [pc.min(started).as_py(), pc.max(ended).as_py(), pc.sum(seconds).as_py(), pc.sum(images).as_py()]


@contextmanager
def stopped(spans: dict[str, Span], stage: str, images: int) -> Iterator[None]:
    """Adds the span of what is done inside."""
    started, clock = time.time(), time.perf_counter()
    yield
    spans[stage] = [started, time.time(), time.perf_counter() - clock, images]


def spans_to_json(spans: Mapping[str, Span]) -> str:
    """For a row of `PART_ROW`."""
    return json.dumps({stage: _rounded(span) for stage, span in spans.items()}, sort_keys=True)


def add_spans(known: dict[str, list[Span]], text: str | None) -> None:
    """Add what a row of `PART_ROW` says."""
    for stage, span in json.loads(text or "{}").items():
        spans = known.setdefault(stage, [])
        spans.append([float(value) for value in span])
        if len(spans) > 2 * MAX_SPANS:
            known[stage] = joined(spans)


def joined(spans: Iterable[Sequence[float]], limit: int = MAX_SPANS) -> list[Span]:
    """At most `limit` spans in order of time: neighbours are joined, the smallest gap of starts first."""
    found = [_rounded(span) for span in sorted(spans, key=tuple)]
    while len(found) > limit:
        place = min(range(1, len(found)), key=lambda i: found[i][0] - found[i - 1][0])
        earlier, later = found[place - 1], found.pop(place)
        found[place - 1] = [
            earlier[0],
            max(earlier[1], later[1]),
            round(earlier[2] + later[2], 3),
            earlier[3] + later[3],
        ]
    return found


def _rounded(span: Sequence[Any]) -> Span:
    """Milliseconds are enough."""
    started, ended, busy, images = span
    return [round(started, 3), round(ended, 3), round(busy, 3), int(images)]
