"""What a run did: counted from the ledger, written as `summary.json` whatever happened."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovsops.errors import ConfigError
from pipelines.counted import counted
from pipelines.endpoint_config import EndpointConfig, EndpointCounts
from pipelines.ledger import Commit
from pipelines.storage import Storage

SUMMARY = "summary.json"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much may fail before a finished run counts as one that needs a look (exit 3)."""

    max_failed_share: float = 0.01
    """Share of the images read that may have failed."""
    max_damaged_shards: int = 0
    """Archives that were cut short or damaged: what they lost cannot be counted."""
    max_failed_shards: int = 0
    """Shards that could not be read at all; the next run tries them again."""
    max_unanswered_share: float = 0.05
    """Share of this start's questions to the endpoint that may have got no answer."""

    def __post_init__(self) -> None:
        for name in ("max_failed_share", "max_unanswered_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"limits.{name} is {getattr(self, name)}; a share lies in [0, 1]")
        for name in ("max_damaged_shards", "max_failed_shards"):
            if getattr(self, name) < 0:
                raise ConfigError(f"limits.{name} is {getattr(self, name)}; it must be 0 or more")


@dataclass(kw_only=True)
class EndpointBill:
    """What this start asked an endpoint, and its prices. Parts that never arrived are not in it."""

    config: EndpointConfig
    counts: EndpointCounts = field(default_factory=EndpointCounts)

    @property
    def num_unanswered(self) -> int:
        """Questions without an answer."""
        return self.counts.failed.total()

    def to_plain(self) -> dict[str, Any]:
        """For `summary.json`."""
        return self.counts.to_plain() | {
            "model": self.config.model,
            "cost": round(self.counts.cost(self.config), 6),
        }


@dataclass(kw_only=True)
class RunStats:
    """What this start did, beside what the ledger says in all."""

    started: float = 0.0
    seconds: float = 0.0
    images: int = 0
    shards: int = 0
    lost_commits: int = 0
    """Shards that another run committed first."""
    rolled_forward: int = 0
    swept: int = 0
    model_busy_s: float = 0.0
    """Seconds in the model, added over actors."""
    model_first: float | None = None
    model_last: float | None = None
    actors: int = 1
    failed_shards: dict[str, str] = field(default_factory=dict)
    """Code and message of shards that could not be read, by name."""
    endpoint: EndpointBill | None = None
    """None where nobody is asked."""

    def note_asked(self, part: Mapping[str, Any]) -> None:
        """Add what a row of `PART_ROW` cost, also of one that came too late to count: it was paid for."""
        if self.endpoint is not None and part["asked"]:
            self.endpoint.counts.add(EndpointCounts.sum_of([part["asked"]]))

    @property
    def model_span_s(self) -> float | None:
        """Seconds from the first model batch to the end of the last one."""
        if self.model_first is None or self.model_last is None or self.model_last <= self.model_first:
            return None
        return self.model_last - self.model_first

    @property
    def model_busy_share(self) -> float | None:
        """Model seconds over their span, per actor."""
        span = self.model_span_s
        return None if span is None else self.model_busy_s / (self.actors * span)


def summarise(
    commits: Sequence[Commit],
    stats: RunStats,
    *,
    pending: int | None,
    limits: Limits,
    state: str,
    error: str = "",
) -> dict[str, Any]:
    """Totals of the whole output and of this start; `exit_code` and why."""
    totals = {
        name: sum(getattr(c, name) for c in commits)
        for name in ("read", "labelled", "skipped", "failed", "instances")
    }
    codes: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    per_class: Counter[str] = Counter()
    for commit in commits:
        codes.update(commit.codes)
        notes.update(commit.notes)
        ignored.update(commit.ignored)
        per_class.update(commit.instances_per_class)
    damaged = {c.name: f"{c.damage_code}: {c.damage}" for c in commits if not c.complete}
    over = over_limits(totals, damaged, stats.failed_shards, limits)
    if stats.endpoint is not None:
        over += unanswered_over_limit(stats.endpoint, limits)
    asked = {} if stats.endpoint is None else {"endpoint": stats.endpoint.to_plain()}
    return {
        "state": state,
        "error": error,
        "over_limits": over,
        "shards": {
            "committed": len(commits),
            "pending": pending,
            "failed": stats.failed_shards,
            "damaged": damaged,
        },
        "images": totals
        | {"invariant_holds": totals["read"] == totals["labelled"] + totals["skipped"] + totals["failed"]},
        "failures_by_code": dict(sorted(codes.items())),
        "notes": dict(sorted(notes.items())),
        "ignored_members": dict(sorted(ignored.items())),
        "instances_per_class": dict(sorted(per_class.items(), key=lambda item: int(item[0]))),
        "this_run": {
            "started_unix": stats.started,
            "seconds": round(stats.seconds, 3),
            "shards": stats.shards,
            "images": stats.images,
            "images_per_second": round(stats.images / stats.seconds, 3) if stats.seconds else None,
            "model_span_s": stats.model_span_s,
            "model_busy_share": stats.model_busy_share,
            "commits_lost_to_another_run": stats.lost_commits,
            "shards_rolled_forward": stats.rolled_forward,
            "shards_swept": stats.swept,
        }
        | asked,
    }


def over_limits(
    totals: Mapping[str, int], damaged: Mapping[str, str], failed_shards: Mapping[str, str], limits: Limits
) -> list[str]:
    """One sentence per limit that was passed."""
    over = []
    share = totals["failed"] / totals["read"] if totals["read"] else 0.0
    if share > limits.max_failed_share:
        over.append(
            f"{totals['failed']} of {totals['read']} images failed ({share:.2%}; limits.max_failed_share is"
            f" {limits.max_failed_share:.2%})"
        )
    if len(damaged) > limits.max_damaged_shards:
        over.append(
            f"{counted(len(damaged), 'damaged shards')} (limits.max_damaged_shards is {limits.max_damaged_shards})"
        )
    if len(failed_shards) > limits.max_failed_shards:
        over.append(
            f"{counted(len(failed_shards), 'unreadable shards')} (limits.max_failed_shards is"
            f" {limits.max_failed_shards})"
        )
    return over


def unanswered_over_limit(bill: EndpointBill, limits: Limits) -> list[str]:
    """A sentence where too many questions got no answer."""
    share = bill.num_unanswered / bill.counts.questions if bill.counts.questions else 0.0
    if share <= limits.max_unanswered_share:
        return []
    return [
        f"{bill.num_unanswered} of {bill.counts.questions} questions to {bill.config.model} got no answer ({share:.2%};"
        f" limits.max_unanswered_share is {limits.max_unanswered_share:.2%})"
    ]


def write_summary(storage: Storage, summary: Mapping[str, Any]) -> None:
    """Put `summary.json`."""
    storage.put(SUMMARY, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
