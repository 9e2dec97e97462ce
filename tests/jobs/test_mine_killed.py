"""`ovsops run` of a mine recipe on Ray with the miniature FG-CLIP 2, killed while it embeds and while it mines."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.test_mine import INLINE, write
from tests.tiny.deaths import files_of

pytestmark = [pytest.mark.kill, pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
PATIENCE_S = 900
SMALL = {"k": 3, "min_score": -1.0, "query_rows": 8}
"""Many parts, so that there is a moment when some are there."""


def start(recipe: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "run", str(recipe)],
        cwd=ROOT,
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed_when(recipe: Path, pattern: str) -> None:
    """A run that dies as soon as its output holds such a file."""
    out, process = recipe.parent / "mined", start(recipe)
    patience = time.monotonic() + PATIENCE_S
    while not any(out.glob(pattern)):
        assert process.poll() is None, process.stderr and process.stderr.read()[-4000:]
        assert time.monotonic() < patience, f"no {pattern}"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGKILL


def test_a_mine_run_on_ray_is_killed_twice(
    scenes: Path, tmp_path: Path, ovsops: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "whole").mkdir()
    code, _, err = ovsops("run", write(scenes, tmp_path / "whole", mining=SMALL), *INLINE)
    assert code == 0, err
    ray: dict[str, Any] = {"num_cpus": 2, "object_store_mib": 200, "start_timeout_s": 600.0}
    recipe = write(scenes, tmp_path, mining=SMALL, ray=ray)
    out = tmp_path / "mined"
    killed_when(recipe, "commits/*.json")
    assert not (out / "mined.json").exists()
    killed_when(recipe, "mined/region/*.parquet")
    assert not (out / "mined.json").exists()
    last = start(recipe)
    _, err = last.communicate(timeout=PATIENCE_S)
    assert last.returncode == 0, err[-4000:]
    found, whole = files_of(out), files_of(tmp_path / "whole" / "mined")
    del found["run.json"], whole["run.json"]  # each holds the address of its own output
    assert found == whole
