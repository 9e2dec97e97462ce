"""A night that is killed in its later steps ends with the same bytes; two nights as two processes: one works."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import jobs.nightly_steps
from pipelines.lock import LOCK
from tests.jobs.test_nightly import INLINE, Nights, nights, shard
from tests.night_kill_job import BOUNDARIES, labelled_by_hand
from tests.tiny.deaths import files_of
from tests.tiny.labelled import label, some_images

__all__ = ["nights"]
Call = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
SHARDS = 3
PATIENCE_S = 600
"""A process loads PyTorch first: seconds, minutes where others work."""
CHAIN: dict[str, Any] = {
    "canary": None,
    "negatives": {"negatives": {"max_iterations": 2}},
    "dataset": {"set": {"formats": ["finehard-json", "coco"]}, "splits": {"val": 0.2, "test": 0.2}},
}


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OVSOPS_CACHE": str(root / "cache")}


def made_by(nights: Nights) -> dict[str, dict[str, bytes]]:
    """What the later steps of night one left, but for what says when."""
    folder = nights.out / "nights" / "one"
    return {step: files_of(folder / step) for step in ("negatives", "dataset")}


@pytest.mark.kill
@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_killed_in_negatives_and_in_sets(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = nights.root / "in"
    label(nights.root / "first", corpus, [some_images(number) for number in range(SHARDS)])
    monkeypatch.setattr(jobs.nightly_steps, "run_recipe", labelled_by_hand(corpus, SHARDS))
    recipe = str(nights.recipe(**CHAIN))
    for job in ("negatives", "dataset"):
        for boundary, switch in BOUNDARIES.items():
            switches = nights.root / f"{job}-{boundary}"
            switches.mkdir()
            arguments = {
                "recipe": recipe,
                "job": job,
                "boundary": boundary,
                "switches": str(switches),
                "corpus": str(corpus),
                "num_shards": SHARDS,
            }
            killed = subprocess.run(
                [sys.executable, "-m", "tests.night_kill_job", json.dumps(arguments)],
                env=environment(nights.root),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
            assert killed.returncode == -9, killed.stderr[-4000:]
            assert (switches / switch).exists()
            assert (nights.out / LOCK).exists()
            assert not (nights.out / "ledger" / "one.json").exists()
    # A step that is done when the night is killed is not run again.
    assert {path.stem for path in (nights.out / "nights" / "one" / "steps").iterdir()} == {
        "retry",
        "label",
        "negatives",
    }
    said = nights.run("one", **CHAIN)
    assert said["state"] == "done"
    assert said["steps"]["negatives"]["shards"] == said["steps"]["dataset"]["shards"] == SHARDS
    found = made_by(nights)
    assert len(found["dataset"]) > 20

    shutil.rmtree(nights.out / "nights" / "one")
    for place in ("plans", "ledger"):
        (nights.out / place / "one.json").unlink()
    assert nights.run("one", **CHAIN)["state"] == "done"
    assert made_by(nights) == found, "a night that was killed four times ends as one that was left alone"


@pytest.mark.kill
@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_two_commands_at_once(nights: Nights) -> None:
    """The second one, a process of its own, says who is at work and since when, and ends with 5 before it writes."""
    shard(nights.root / "in", 1, images=2)
    words = [sys.executable, "-m", "jobs.cli", "nightly", str(nights.recipe()), "--night", "one", *INLINE]

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            words,
            cwd=ROOT,
            env=environment(nights.root),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    both = start(), start()
    holder = wait_for_lock(nights.out / LOCK)
    worker, other = both if both[0].pid == holder["pid"] else both[::-1]
    assert worker.pid == holder["pid"]
    worker.send_signal(signal.SIGSTOP)  # it works for long, as far as the other one can see
    try:
        out, err = other.communicate(timeout=PATIENCE_S)
    finally:
        worker.send_signal(signal.SIGCONT)
    assert other.returncode == 5, err
    said = json.loads(out.splitlines()[-1])
    assert (said["state"], said["exit_code"]) == ("locked", 5)
    since = datetime.fromtimestamp(holder["since"], UTC)
    for text in (said["error"], err):
        assert (
            f"is used by process {worker.pid} on {holder['host']} since {since:%Y-%m-%d %H:%M:%S} UTC" in text
        )
        assert "heartbeat" in text
    out, err = worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["state"] == "done"
    assert nights.labelled("one") == {"shard-001.tar": 2}
    assert not (nights.out / LOCK).exists()


def wait_for_lock(path: Path) -> dict[str, Any]:
    """What the lock of a night says, as soon as it is there."""
    patience = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < patience, "no night began"
        time.sleep(0.002)
    found: dict[str, Any] = json.loads(path.read_text())
    return found
