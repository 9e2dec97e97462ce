"""What a run tells while it works, one line per 30 seconds, and one table at the end. Terminals get `live`."""

import logging
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from threading import Event, Thread
from typing import Any

from rich.table import Table

from jobs.devices import device_use
from jobs.exits import ExitCode
from jobs.logs import escape_controls, facts
from jobs.stage_rates import StageRates
from pipelines.codes import RETRYABLE
from pipelines.counted import counted
from pipelines.keys import FOREIGN_IMAGE, UNREAD_PICTURES
from pipelines.ledger import Commit, ShardRecord
from pipelines.units import UnitCommit
from pipelines.watch import Queued, nothing_queued

logger = logging.getLogger(__name__)

LINE_EVERY_S = 30.0
RATE_OVER_S = 60.0
"""The rate that is shown is that of the last minute."""


class Tally:
    """Counts of a run so far: images, rate, shards, time left."""

    def __init__(self, rows: str = "images") -> None:
        self.rows = rows
        self.started = time.monotonic()
        self.images = self.failed = self.shards_done = self.shards_now = self.shards = 0
        self.recent: deque[tuple[float, int]] = deque()
        self.codes: Counter[str] = Counter()
        """Rows that were skipped, failed or left out in this run."""
        self.shards_failed = 0
        self.stages = StageRates()
        self.queued: Queued = nothing_queued

    @property
    def unit(self) -> str:
        """What a rate counts."""
        return "img" if self.rows == "images" else self.rows

    def start(self, *, shards: int, done: int) -> None:
        """Work begins now."""
        self.shards, self.shards_done = shards, done
        self.started = time.monotonic()
        self.recent.clear()

    def add(self, images: int) -> None:
        """Images written."""
        self.images += images
        self.recent.append((time.monotonic(), self.images))
        while len(self.recent) > 2 and self.recent[-1][0] - self.recent[0][0] > RATE_OVER_S:
            self.recent.popleft()

    def rate(self) -> float | None:
        """Images per second over the last minute, from the first finished ones on: workers need long to start.

        None before there are more.
        """
        recent = list(self.recent)  # another thread may add to it
        if len(recent) < 2:
            return None
        (since, before), (_, now) = recent[0], recent[-1]
        return (now - before) / max(1e-6, time.monotonic() - since)

    def eta_s(self) -> float | None:
        """Seconds left if the other shards are like those of this run; None before the first is done."""
        if not self.shards_now:
            return None
        per_shard = (time.monotonic() - self.started) / self.shards_now
        return per_shard * (self.shards - self.shards_done)

    def line(self) -> str:
        """All of it in one line."""
        eta = self.eta_s()
        left = f", about {duration(eta)} left" if eta is not None and self.shards_done < self.shards else ""
        failed = f", {self.failed} failed" if self.failed else ""
        if not self.images and not self.shards:
            return f"starting: {duration(time.monotonic() - self.started)}"
        if not self.images and self.rows != "images":
            return f"no {self.rows} yet after {duration(time.monotonic() - self.started)}, {self._shards()}"
        if not self.images:
            waited = f"no image yet after {duration(time.monotonic() - self.started)}"
            return f"{waited}: workers start and load the model, {self._shards()}{failed}"
        rate = self.rate()
        speed = "" if rate is None else f", {rate:.1f} {self.unit}/s"
        return f"{self.images} {self.rows}{speed}, {self._shards()}{failed}{left}"

    def _shards(self) -> str:
        lost = f", {self.shards_failed} unreadable" if self.shards_failed else ""
        return f"{self.shards_done}/{self.shards} shards{lost}"

    def to_plain(self) -> dict[str, Any]:
        """All of it for machines; what is not known yet is null."""
        rate, eta = self.rate(), self.eta_s()
        return {
            self.rows: self.images,
            "rows_per_second": None if rate is None else round(rate, 3),
            "shards": self.shards,
            "shards_done": self.shards_done,
            "shards_failed": self.shards_failed,
            "failed": self.failed,
            "codes": dict(self.codes),
            "eta_seconds": None if eta is None else round(eta, 1),
            "elapsed_seconds": round(time.monotonic() - self.started, 1),
            "stages": [asdict(rate) for rate in self.stages.rates()],
            "blocks_waiting": dict(self.queued()),
        }


def listed_codes(codes: Mapping[str, int], most: int) -> str:
    """`7 E_TRUNCATED, 2 S_SMALL`, the most frequent first."""
    ordered = sorted(codes.items(), key=lambda item: (-item[1], item[0]))
    rest = len(ordered) - most
    more = f" and {rest} other codes" if rest > 0 else ""
    return ", ".join(f"{count} {escape_controls(code)}" for code, count in ordered[:most]) + more


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class LineObserver:
    """One log line per 30 seconds, whether or not an image was finished: for files, CI and schedulers."""

    def __init__(self, rows: str = "images") -> None:
        self.tally = Tally(rows)
        self._ended = Event()
        self._lines = Thread(target=self._write_lines, name="progress", daemon=True)

    def __enter__(self) -> "LineObserver":
        self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._lines.join()

    def _write_lines(self) -> None:
        while not self._ended.wait(LINE_EVERY_S):
            devices = [device.to_plain() for device in device_use()]
            told = facts("progress", **self.tally.to_plain(), devices=devices)
            logger.info("%s", self.tally.line(), extra=told)

    def started(self, *, shards: int, done: int, queued: Queued = nothing_queued) -> None:
        """Work begins."""
        self.tally.start(shards=shards, done=done)
        self.tally.queued = queued

    def part(self, *, images: int, spans: Mapping[str, Sequence[float]]) -> None:
        """Rows written."""
        self.tally.add(images)
        self.tally.stages.add(spans)

    def committed(self, commit: ShardRecord) -> None:
        """A shard is done."""
        self.tally.shards_done += 1
        self.tally.shards_now += 1
        if isinstance(commit, Commit):
            self.tally.failed += commit.failed
            self.tally.codes.update(commit.codes)
        elif isinstance(commit, UnitCommit):
            self.tally.codes.update(commit.left_out)

    def shard_failed(self, code: str) -> None:
        """A shard could not be read."""
        self.tally.shards_failed += 1


def exit_code_of_summary(summary: Mapping[str, Any]) -> ExitCode:
    """Done, or over the recipe's limits."""
    return ExitCode.OVER_LIMITS if summary["over_limits"] else ExitCode.DONE


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Counts of an output, failures by code."""
    images, shards, now = summary["images"], summary["shards"], summary["this_run"]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    rate = f"{now['images_per_second']:.1f} img/s in this run" if now["images_per_second"] else ""
    table.add_row(
        "shards", str(shards["committed"]), f"{shards['pending']} pending" if shards["pending"] else ""
    )
    table.add_row("images read", str(images["read"]), rate)
    table.add_row("labelled", str(images["labelled"]), counted(images["instances"], "regions"))
    table.add_row("skipped", str(images["skipped"]), _codes(summary, skipped=True))
    table.add_row("failed", str(images["failed"]), _codes(summary, skipped=False))
    if unread := summary.get("ignored_members", {}).get(FOREIGN_IMAGE):
        table.add_row("not read", str(unread), UNREAD_PICTURES)
    if asked := now.get("endpoint"):
        codes = ", ".join(f"{count} {code}" for code, count in asked["failed"].items())
        cost = f"; cost {asked['cost']:g}" if asked["cost"] else ""
        table.add_row("questions", str(asked["questions"]), f"{asked['answered']} answered in this run{cost}")
        if codes:
            table.add_row("unanswered", str(sum(asked["failed"].values())), codes)
    for name, message in {**shards["damaged"], **shards["failed"]}.items():
        table.add_row("shard", "", escape_controls(f"{name}: {message}"))
    return table


def _codes(summary: Mapping[str, Any], *, skipped: bool) -> str:
    codes = summary["failures_by_code"].items()
    return ", ".join(f"{count} {code}" for code, count in codes if code.startswith("S_") == skipped)


def next_steps(summary: Mapping[str, Any], output: str) -> list[str]:
    """What a user does now."""
    steps = [f"labels: {output}/images, {output}/instances (pandas.read_parquet reads either folder)"]
    steps += [f"over the limits: {reason}" for reason in summary["over_limits"]]
    if summary["shards"]["pending"] or summary["shards"]["failed"]:
        steps.append("run the same recipe again: it goes on with the shards that are not done")
    if summary["images"]["failed"]:
        mendable = [code for code in summary["failures_by_code"] if code in RETRYABLE]
        retry = " ".join([f"ovsops retry {output}", *(f"--code {code}" for code in mendable)])
        steps.append(
            f"look: ovsops status {output}" + (f"; try again what may go better: {retry}" if mendable else "")
        )
    else:
        steps.append(f"next: ovsops export {output} --to coco --out DIR; ovsops overlay {output} --out DIR")
    steps.append(f"one page about all of it: ovsops report {output}")
    return steps
