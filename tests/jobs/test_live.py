"""The live view: what it says, and that it leaves the terminal as it was."""

import io
import re
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.spinner import Spinner

from jobs import live
from jobs.devices import DeviceUse, gpu_use
from jobs.live import LiveObserver, make_observer, view_of
from jobs.logs import configure_logging
from jobs.progress import LineObserver, Tally, listed_codes
from jobs.stage_rates import StageRates
from tests.jobs.test_progress import COMMIT


def terminal(width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def shown(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def busy_tally(now: float) -> Tally:
    tally = Tally()
    tally.start(shards=4, done=1)
    tally.queued = lambda: {"segment": 7, "encode": 0}
    tally.add(10)
    for second in range(10):
        tally.stages.add(
            {"segment": [now - 10 + second, now - 9 + second, 0.9, 4], "write": [now - 1, now, 0.2, 4]}
        )
    tally.add(10)
    tally.codes.update({"E_TRUNCATED": 2, "S_SMALL": 5, "E_\x1b[2J": 1})
    return tally


def test_the_view_says_rate_stages_queues_devices_and_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 5000.0)
    console = terminal()
    gpu = DeviceUse(name="gpu 0", busy_percent=93.0, used_gib=21.25, total_gib=80.0)
    console.print(view_of(busy_tally(time.time()), [gpu], Spinner("dots")))
    text = shown(console)
    assert "1/4 shards" in text
    stage = next(line for line in text.splitlines() if "segment" in line)
    assert re.search(r"segment +4\.0 +0\.90 +7$", stage.rstrip()), stage
    assert re.search(r"write +\d+\.\d +\d\.\d\d *$", text, re.MULTILINE)  # no queue of its own
    assert "gpu 0 93 %, 21.2 of 80.0 GiB" in text
    assert "5 S_SMALL, 2 E_TRUNCATED, 1 E_\\x1b[2J" in text


def test_a_narrow_terminal_gets_all_of_it_too() -> None:
    console = terminal(width=40)
    console.print(view_of(busy_tally(time.time()), [], Spinner("dots")))
    assert all(len(line) <= 40 for line in shown(console).splitlines())
    assert "segment" in shown(console)


def test_before_the_first_part_there_is_a_line_and_no_table() -> None:
    console = terminal()
    console.print(view_of(Tally(), [], Spinner("dots")))
    assert "starting: " in shown(console)
    assert "stage" not in shown(console)


def test_on_a_terminal_it_is_live_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "DEVICES_EVERY_S", 0.01)
    configure_logging(log_format="text", verbose=False)
    console = terminal()
    with make_observer(console) as observer:
        assert isinstance(observer, LiveObserver)
        observer.started(shards=2, done=0)
        observer.part(images=7, spans={})
        observer.committed(COMMIT)
        observer.shard_failed("E_STORAGE")
        deadline = time.monotonic() + 20
        while not observer.devices and time.monotonic() < deadline:
            time.sleep(0.01)
        observer.live.refresh()
    text = shown(console)
    assert "7 images" in text
    assert "1/2 shards, 1 unreadable, 1 failed" in text
    assert "this machine: cpu" in text
    assert text.rstrip("\n").endswith("\x1b[2K")  # the last thing is to wipe what was drawn
    assert "\x1b[?25h" in text  # the cursor is back


def test_no_live_view_where_lines_are_json_or_no_terminal_is() -> None:
    assert type(make_observer(Console(file=io.StringIO()))) is LineObserver
    configure_logging(log_format="json", verbose=False)
    assert type(make_observer(terminal())) is LineObserver


@pytest.mark.parametrize(
    ("most", "text"), [(9, "7 B, 2 A, 2 C"), (2, "7 B, 2 A and 1 other codes")], ids=["all", "some"]
)
def test_codes_are_listed_the_most_frequent_first(most: int, text: str) -> None:
    assert listed_codes({"A": 2, "B": 7, "C": 2}, most) == text


def test_a_rate_counts_the_last_minute_and_the_share_of_a_span_that_reaches_into_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    rates = StageRates()
    rates.add({"segment": [900.0, 930.0, 30.0, 300]})  # over a minute ago
    rates.add({"segment": [930.0, 950.0, 20.0, 60]})  # half of it
    rates.add({"segment": [950.0, 1000.0, 40.0, 90]})
    (rate,) = rates.rates()
    assert rate.busy_workers == pytest.approx((10 + 40) / 60)
    assert rate.rows_per_second == pytest.approx((30 + 90) / 60)


def test_old_spans_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 10_000.0)
    rates = StageRates()
    for started in range(5000):
        rates.add({"write": [started, started + 1, 1.0, 1]})
    assert len(rates.recent["write"]) == 1
    assert rates.rates()[0].busy_workers == 0.0


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo '0, 93, 21760, 81920'; echo '1, 0, 4, 81920'", ["gpu 0 93 %", "gpu 1 0 %"]),
        ("echo '0, [N/A], [N/A], [N/A]'", []),
        ("echo 'NVIDIA-SMI has failed'; exit 9", []),
    ],
    ids=["two", "a partition", "no driver"],
)
def test_gpus_as_the_tool_tells(
    script: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert [gpu.line().partition(",")[0] for gpu in gpu_use()] == found


def test_without_the_tool_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_use() == []


def test_a_line_holds_the_numbers_for_machines(caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.progress.LINE_EVERY_S", 0.01)
    caplog.set_level("INFO", "jobs.progress")
    with LineObserver() as observer:
        observer.started(shards=2, done=0, queued=lambda: {"segment": 3})
        observer.part(images=5, spans={"segment": [time.time() - 1, time.time(), 1.0, 5]})
        observer.committed(COMMIT)
        deadline = time.monotonic() + 20
        while not (caplog.records and caplog.records[-1].facts["failed"]) and time.monotonic() < deadline:
            time.sleep(0.01)
    facts = caplog.records[-1].facts
    assert facts["event"] == "progress"
    assert (facts["images"], facts["failed"], facts["codes"]) == (5, 1, {"E_TRUNCATED": 1})
    assert facts["blocks_waiting"] == {"segment": 3}
    assert facts["stages"][0]["stage"] == "segment"
    assert facts["devices"][0]["name"] == "cpu"
