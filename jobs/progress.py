"""What a run shows while it works: a bar on a terminal, one line per 30 seconds elsewhere, one table at the end."""

import logging
import time
from collections import deque
from collections.abc import Mapping
from threading import Event, Thread
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from jobs.exits import ExitCode
from jobs.logs import escape_controls
from pipelines.codes import RETRYABLE
from pipelines.label import Observer
from pipelines.ledger import Commit
from pipelines.units import UnitCommit

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
        if not self.images and self.rows != "images":
            return f"no {self.rows} yet after {duration(time.monotonic() - self.started)}, {self._shards()}"
        if not self.images:
            waited = f"no image yet after {duration(time.monotonic() - self.started)}"
            return (
                f"{waited}: workers start and load the model, {self._shards()}{failed}"
                if self.shards
                else waited
            )
        rate = self.rate()
        speed = "" if rate is None else f", {rate:.1f} {'img' if self.rows == 'images' else self.rows}/s"
        return f"{self.images} {self.rows}{speed}, {self._shards()}{failed}{left}"

    def _shards(self) -> str:
        return f"{self.shards_done}/{self.shards} shards"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class LineObserver(Observer):
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
            logger.info("%s", self.tally.line())

    def started(self, *, shards: int, done: int) -> None:
        """Work begins."""
        self.tally.start(shards=shards, done=done)

    def part(self, *, images: int) -> None:
        """Images written."""
        self.tally.add(images)

    def committed(self, commit: Commit | UnitCommit) -> None:
        """A shard is done."""
        self.tally.shards_done += 1
        self.tally.shards_now += 1
        self.tally.failed += commit.failed


class BarObserver(LineObserver):
    """A live bar over shards, with images, rate, failures and time left."""

    def __init__(self, console: Console, rows: str = "images") -> None:
        super().__init__(rows)
        self.bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=None)

    def __enter__(self) -> "BarObserver":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def started(self, *, shards: int, done: int) -> None:
        """Work begins."""
        super().started(shards=shards, done=done)
        self._show()

    def part(self, *, images: int) -> None:
        """Images written."""
        self.tally.add(images)
        self._show()

    def committed(self, commit: Commit | UnitCommit) -> None:
        """A shard is done."""
        super().committed(commit)
        self._show()

    def _show(self) -> None:
        self.bar.update(
            self.task,
            total=max(1, self.tally.shards),
            completed=self.tally.shards_done,
            description=self.tally.line(),
        )


def make_observer(console: Console, rows: str = "images") -> LineObserver:
    """A bar on a terminal, lines elsewhere; `rows` is what is counted."""
    return BarObserver(console, rows) if console.is_terminal else LineObserver(rows)


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
    table.add_row("labelled", str(images["labelled"]), f"{images['instances']} regions")
    table.add_row("skipped", str(images["skipped"]), _codes(summary, skipped=True))
    table.add_row("failed", str(images["failed"]), _codes(summary, skipped=False))
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
