"""What each stage did in the last minute, from the spans that arrive with the parts."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WINDOW_S = 60.0


@dataclass(frozen=True, kw_only=True)
class StageRate:
    """One stage over the window."""

    stage: str
    rows_per_second: float
    busy_workers: float
    """Seconds of work a second, added over workers: 1.0 is one worker that never waits."""


class StageRates:
    """Spans of the last minute. Times are the workers' clocks: those of a cluster should agree within seconds."""

    def __init__(self) -> None:
        self.recent: dict[str, deque[Sequence[float]]] = {}

    def add(self, spans: Mapping[str, Sequence[float]]) -> None:
        """A part's spans (`pipelines.spans`)."""
        for stage, span in spans.items():
            recent = self.recent.setdefault(stage, deque())
            recent.append(span)
            while recent[0][1] < time.time() - 2 * WINDOW_S and len(recent) > 1:
                recent.popleft()

    def rates(self) -> list[StageRate]:
        """Of every stage that has worked, in the order of their first part."""
        now = time.time()
        kept = {stage: list(spans) for stage, spans in list(self.recent.items())}
        first = min((span[0] for spans in kept.values() for span in spans), default=now)
        since = max(first, now - WINDOW_S)
        return [_rate(stage, spans, since, now) for stage, spans in kept.items()]


def _rate(stage: str, spans: Sequence[Sequence[float]], since: float, now: float) -> StageRate:
    shares = [_share_since(span, since) for span in spans]
    seconds = max(now - since, 1e-3)
    return StageRate(
        stage=stage,
        rows_per_second=sum(share * span[3] for share, span in zip(shares, spans, strict=True)) / seconds,
        busy_workers=sum(share * span[2] for share, span in zip(shares, spans, strict=True)) / seconds,
    )


def _share_since(span: Sequence[float], since: float) -> float:
    """Share of a span that lies after a moment."""
    started, ended = span[0], span[1]
    if ended <= since:
        return 0.0
    return 1.0 if started >= since else (ended - since) / (ended - started)
