"""Spans of stages to a line over time. Axes: T slices of working time.

Time in which no stage worked (between two starts, say) is left out; `breaks` says where.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

MAX_SLICES = 60
_IDLE_S = 600.0
"""Nothing for this long ends a session."""

Spans = Mapping[str, Sequence[Sequence[float]]]


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Throughput of stages in slices of working time."""

    width_s: float
    """Seconds of a slice."""
    sessions: tuple[tuple[float, float], ...]
    """Unix seconds of beginning and end of each stretch of work."""
    rates: Mapping[str, Float64[np.ndarray, " T"]]
    """Images a second, by stage."""
    busy: Mapping[str, Float64[np.ndarray, " T"]]
    """Seconds of work a second and stage, over all its workers."""

    @property
    def working_s(self) -> float:
        """Seconds of all sessions."""
        return sum(ended - started for started, ended in self.sessions)

    @property
    def breaks(self) -> tuple[float, ...]:
        """Working seconds at which a later session begins."""
        lengths = [ended - started for started, ended in self.sessions]
        return tuple(itertools.accumulate(lengths))[:-1]


def make_timeline(spans: Spans) -> Timeline | None:
    """None where no span is known."""
    sessions = sessions_of(spans)
    if not sessions:
        return None
    total = sum(ended - started for started, ended in sessions)
    most = max(len(some) for some in spans.values())
    num_slices = int(min(MAX_SLICES, max(1, total), max(4, 2 * most)))
    width = total / num_slices
    rates: dict[str, Float64[np.ndarray, " T"]] = {}
    busy: dict[str, Float64[np.ndarray, " T"]] = {}
    for stage, some in spans.items():
        rates[stage], busy[stage] = np.zeros(num_slices), np.zeros(num_slices)
        for started, ended, worked, images in some:
            shares = _shares(_working(sessions, started), _working(sessions, ended), num_slices, width)
            rates[stage] += images * shares / width
            busy[stage] += worked * shares / width
    return Timeline(width_s=width, sessions=sessions, rates=rates, busy=busy)


def sessions_of(spans: Spans) -> tuple[tuple[float, float], ...]:
    """Stretches of work with less than ten idle minutes in them, at least a tenth of a second each."""
    times = sorted((span[0], max(span[0], span[1])) for some in spans.values() for span in some)
    sessions: list[list[float]] = []
    for started, ended in times:
        if sessions and started - sessions[-1][1] < _IDLE_S:
            sessions[-1][1] = max(sessions[-1][1], ended)
        else:
            sessions.append([started, ended])
    return tuple((started, max(ended, started + 0.1)) for started, ended in sessions)


def _working(sessions: Sequence[tuple[float, float]], at: float) -> float:
    """Working seconds from the first beginning to a time of the clock."""
    return sum(min(max(at - started, 0.0), ended - started) for started, ended in sessions)


def _shares(begin: float, end: float, num_slices: int, width: float) -> Float64[np.ndarray, " T"]:
    """How a span spreads over the slices; sums to 1."""
    edges = np.arange(num_slices + 1) * width
    if end <= begin:
        shares = np.zeros(num_slices)
        shares[min(int(begin / width), num_slices - 1)] = 1.0
        return shares
    overlap = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], begin), 0.0, None)
    return overlap / overlap.sum()
