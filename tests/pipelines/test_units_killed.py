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
JOBS = ("negatives", "dataset", "mine")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("made")
    label(folder / "labels", folder / "shards", [some_images(shard) for shard in range(4)])
    return {name: str(folder / name) for name in ("labels", "shards", *JOBS)}


def start(arguments: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    forget_dead_jobs()
    return subprocess.run(
        [sys.executable, "-m", "tests.units_kill_job", json.dumps(arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


def reference(made: dict[str, str], job: str) -> Path:
    """What the job leaves undisturbed; made once. A set needs its negatives."""
    for each in ("negatives", job) if job == "dataset" else (job,):
        if not Path(made[each], "summary.json").exists():
            run_inline({**made, "job": each, "output": made[each]})
    return Path(made[job])


def arguments_of(made: dict[str, str], folder: Path, job: str, *boundaries: str) -> dict[str, Any]:
    (folder / "switches").mkdir()
    return {
        **made,
        "job": job,
        "output": str(folder / "out"),
        "switches": str(folder / "switches"),
        "boundaries": boundaries,
        "address": ray.get_runtime_context().gcs_address,
    }


def reached(folder: Path) -> set[str]:
    return {path.name for path in (folder / "switches").iterdir()}


@pytest.mark.parametrize(
    "job", [pytest.param(job, marks=[pytest.mark.nightly] * (job == "mine")) for job in JOBS]
)
def test_killed_worker_and_driver(local_ray: None, made: dict[str, str], tmp_path: Path, job: str) -> None:
    whole = reference(made, job)
    arguments = arguments_of(made, tmp_path, job, "worker", "driver", "miner")
    killed = start(arguments | {"run": "run0"})
    assert killed.returncode == -9, killed.stderr[-4000:]
    assert reached(tmp_path) == {"worker", "driver"}
    done = start(arguments | {"run": "run1"})
    assert done.returncode == 0, done.stderr[-4000:]
    assert reached(tmp_path) == {"worker", "driver"} | ({"miner"} if job == "mine" else set())
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["shards"] == {"committed": 4, "pending": 0, "failed": {}}
    assert summary["over_limits"] == []
    assert summary["this_run"]["shards_rolled_forward"] == 1
    assert files_of(tmp_path / "out") == files_of(whole)


@pytest.mark.nightly
def test_a_driver_of_the_mine_job_is_killed_wherever_it_mines(
    local_ray: None, made: dict[str, str], tmp_path: Path
) -> None:
    whole = reference(made, "mine")
    boundaries = ("driver", "driver between parts", "driver after parts")
    arguments = arguments_of(made, tmp_path, "mine", *boundaries)
    for number, _ in enumerate(boundaries):
        killed = start(arguments | {"run": f"run{number}"})
        assert killed.returncode == -9, killed.stderr[-4000:]
        assert reached(tmp_path) == set(boundaries[: number + 1])
    done = start(arguments | {"run": "last"})
    assert done.returncode == 0, done.stderr[-4000:]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["this_run"]["shards"] == 0  # what was committed is not embedded again
    before = {look: mined["parts_before"] for look, mined in summary["mined"].items()}
    assert before == {"region": 3, "image": 1}  # nor are pairs that are there mined again
    assert files_of(tmp_path / "out") == files_of(whole)
