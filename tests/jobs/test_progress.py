"""What is shown while a run works, and its end."""

import io
import logging
import time
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from jobs import progress
from jobs.exits import ExitCode
from jobs.live import make_observer
from jobs.progress import (
    LineObserver,
    Tally,
    duration,
    exit_code_of_summary,
    next_steps,
    summary_table,
)
from pipelines.ledger import Commit

COMMIT = Commit(
    shard="s", name="a.tar", url="a.tar", size=1, tag="1", run="r", recipe_hash="h", retry=0, read=3, labelled=2,
    skipped=0, failed=1, codes={"E_TRUNCATED": 1}, notes={}, instances=2, instances_per_class={"1": 2}, complete=True,
    damage_code="", damage="", ignored={}, sha256="", tables={},
)  # fmt: skip


def summary(**changes: Any) -> dict[str, Any]:
    return {
        "over_limits": [],
        "shards": {"committed": 1, "pending": 0, "failed": {}, "damaged": {}},
        "images": {"read": 3, "labelled": 2, "skipped": 0, "failed": 1, "instances": 2},
        "failures_by_code": {"E_TRUNCATED": 1, "S_SMALL": 4},
        "this_run": {"images_per_second": 1.5},
    } | changes


def text_of(renderable: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (65, "1 min 05 s"), (7620, "2 h 07 min"), (90000, "25 h 00 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rate_and_time_left_come_from_this_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    tally = Tally()
    assert tally.line() == "starting: 0 s"
    tally.start(shards=10, done=5)
    assert tally.eta_s() is None
    clock[0] += 90
    assert tally.line() == "no image yet after 1 min 30 s: workers start and load the model, 5/10 shards"
    tally.add(20)
    assert tally.rate() is None
    assert tally.line() == "20 images, 5/10 shards"
    clock[0] += 10
    tally.add(40)
    tally.shards_done += 1
    tally.shards_now += 1
    assert tally.rate() == pytest.approx(4.0)  # the 90 s before the first image are no rate
    assert tally.eta_s() == pytest.approx(400.0)
    assert tally.line() == "60 images, 4.0 img/s, 6/10 shards, about 6 min 40 s left"


def test_the_rate_forgets_what_is_over_a_minute_old(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    tally = Tally()
    for _ in range(30):
        clock[0] += 10
        tally.add(10 if clock[0] <= 200 else 100)
    assert tally.rate() == pytest.approx(10.0)


def test_lines_come_without_a_terminal_even_while_nothing_is_finished(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.01)
    caplog.set_level(logging.INFO, "jobs.progress")
    with make_observer(Console(file=io.StringIO())) as observer:
        assert type(observer) is LineObserver
        observer.started(shards=2, done=0)
        observer.part(images=30, spans={})
        observer.committed(COMMIT)
        deadline = time.monotonic() + 20
        while len(caplog.messages) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(caplog.messages) >= 3
    assert caplog.messages[-1].startswith("30 images, ")
    assert "1/2 shards, 1 failed" in caplog.messages[-1]
    lines = len(caplog.messages)
    time.sleep(0.05)
    assert len(caplog.messages) == lines


def test_the_end_names_codes_output_and_what_to_do() -> None:
    shown = text_of(
        summary_table(summary(shards=summary()["shards"] | {"failed": {"b\x1b.tar": "E_STORAGE: 403"}}))
    )
    assert "1 E_TRUNCATED" in shown
    assert "4 S_SMALL" in shown
    assert "b\\x1b.tar: E_STORAGE: 403" in shown
    steps = "\n".join(next_steps(summary(over_limits=["1 of 3 images failed"]), "runs/a"))
    assert "over the limits: 1 of 3 images failed" in steps
    assert "look: ovsops status runs/a" in steps
    assert "ovsops retry" not in steps  # a truncated image stays truncated
    codes = {"E_MODEL": 1, "E_TIMEOUT": 2, "E_TRUNCATED": 1}
    steps = "\n".join(next_steps(summary(failures_by_code=codes), "runs/a"))
    assert "ovsops retry runs/a --code E_MODEL --code E_TIMEOUT\n" in steps
    assert "ovsops export runs/a" in "\n".join(
        next_steps(summary(images=summary()["images"] | {"failed": 0}), "runs/a")
    )


def test_the_exit_code_follows_the_limits() -> None:
    assert exit_code_of_summary(summary()) == ExitCode.DONE
    assert exit_code_of_summary(summary(over_limits=["x"])) == ExitCode.OVER_LIMITS


def test_a_shard_of_another_commit_counts_its_own_failures() -> None:
    observer = progress.LineObserver()
    observer.committed(COMMIT)
    observer.committed(replace(COMMIT, failed=4))
    assert observer.tally.failed == 5
