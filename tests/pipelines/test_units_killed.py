"""SIGKILL in a worker and in the driver of jobs over committed shards, through Ray: the bytes of an undisturbed run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.pipelines.test_kill_matrix import forget_dead_jobs
from tests.tiny.deaths import files_of
from tests.tiny.labelled import label, some_images
from tests.units_kill_job import run_inline

pytestmark = [pytest.mark.kill, pytest.mark.ray]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("made")
    label(folder / "labels", folder / "shards", [some_images(shard) for shard in range(4)])
    return {name: str(folder / name) for name in ("labels", "shards", "negatives", "dataset")}


def start(arguments: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    forget_dead_jobs()
    return subprocess.run(
        [sys.executable, "-m", "tests.units_kill_job", json.dumps(arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("job", ["negatives", "dataset"])
def test_killed_worker_and_driver(local_ray: None, made: dict[str, str], tmp_path: Path, job: str) -> None:
    for earlier in ("negatives", "dataset"):  # each reference once, the negatives' first
        if not Path(made[earlier], "summary.json").exists():
            run_inline({**made, "job": earlier, "output": made[earlier]})
    switches = tmp_path / "switches"
    switches.mkdir()
    arguments = {
        **made,
        "job": job,
        "output": str(tmp_path / "out"),
        "switches": str(switches),
        "address": ray.get_runtime_context().gcs_address,
    }
    killed = start(arguments | {"run": "run0"})
    assert killed.returncode == -9, killed.stderr[-4000:]
    assert {path.name for path in switches.iterdir()} == {"worker", "driver"}
    done = start(arguments | {"run": "run1"})
    assert done.returncode == 0, done.stderr[-4000:]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["shards"] == {"committed": 4, "pending": 0, "failed": {}}
    assert summary["over_limits"] == []
    assert summary["this_run"]["shards_rolled_forward"] == 1
    assert files_of(tmp_path / "out") == files_of(Path(made[job]))
