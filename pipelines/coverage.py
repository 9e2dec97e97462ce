"""Which rows of a shard are written so far: parts as intervals, until they tile the whole shard."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.rows import Closing
from pipelines.spans import Span, add_spans


@dataclass
class ShardCoverage:
    """Parts of one shard as they arrive, from any number of attempts."""

    parts: list[Mapping[str, Any]] = field(default_factory=list)
    closing: Closing | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    spans: dict[str, list[Span]] = field(default_factory=dict)

    def add(self, part: Mapping[str, Any]) -> None:
        """Take note of a row of `PART_ROW`."""
        self.parts.append(part)
        if part["closing"]:
            self.closing = Closing.from_json(part["closing"])
        for name in ("decode_seconds", "segment_seconds"):
            self.seconds[name] = self.seconds.get(name, 0.0) + part[name]
        add_spans(self.spans, part.get("spans"))

    def tiling(self) -> list[Mapping[str, Any]] | None:
        """Parts that cover rows 0..n (the closing row is n) once, or None while some are missing.

        Attempts of a retried task may have cut their parts at other rows; the search goes over starts, so it
        is linear in the number of parts.
        """
        if self.closing is None:
            return None
        end = self.closing.num_rows + 1
        starting: dict[int, list[Mapping[str, Any]]] = {}
        for part in self.parts:
            starting.setdefault(part["first"], []).append(part)
        arrived_by: dict[int, Mapping[str, Any] | None] = {0: None}
        for row in sorted(starting):
            if row in arrived_by:
                for candidate in starting[row]:
                    arrived_by.setdefault(candidate["end"], candidate)
        if end not in arrived_by:
            return None
        chosen: list[Mapping[str, Any]] = []
        last = arrived_by[end]
        while last is not None:
            chosen.append(last)
            last = arrived_by[last["first"]]
        return chosen[::-1]
