"""SIGKILL at every boundary, on real processes: nothing is lost, nothing doubled, the bytes are the same.

Driver, segment actor and writer are killed in turn at five boundaries. A killed driver is started again; a
killed worker is Ray's matter. The reference is a run without Ray that nobody disturbed.
"""

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray

from pipelines.label import run_label
from pipelines.runner import InlineEngine
from pipelines.storage import StorageOptions, open_storage
from tests.kill_job import LATE_WIDTH, make_job
from tests.servers import S3Server, s3_server
from tests.tiny.shards import draw_image, encode, write_shards, write_tar

pytestmark = [pytest.mark.kill, pytest.mark.ray]

ROOT = Path(__file__).parents[2]
BOUNDARIES = [
    "before a part",
    "after a part",
    "after seal, before commit",
    "between commit and publish",
    "after publish",
]
NUM_SHARDS, IMAGES_PER_SHARD = 6, 8


def cases(*always: tuple[str, str]) -> list[Any]:
    """Every worker at every boundary, all but a few of them in the nightly run alone: each costs 20 to 40 s."""
    return [
        pytest.param(target, boundary, marks=[] if (target, boundary) in always else [pytest.mark.nightly])
        for target in ("driver", "segment", "write")
        for boundary in BOUNDARIES
    ]


LOCAL_CASES = cases(("driver", BOUNDARIES[3]), ("segment", BOUNDARIES[1]))
S3_CASES = cases(("driver", BOUNDARIES[3]))


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("in")
    write_shards(folder, num_shards=NUM_SHARDS - 1, images_per_shard=IMAGES_PER_SHARD, broken_every=7)
    late = [(f"late-{i}.jpg", encode(draw_image(i, width=LATE_WIDTH))) for i in range(IMAGES_PER_SHARD)]
    write_tar(folder / "shard-late.tar", late)
    return [str(folder / "*.tar")]


@pytest.fixture(scope="module")
def reference(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("reference")
    job = make_job({"shards": inputs, "output": str(out), "seconds_per_batch": 0.0})
    summary = run_label(job, InlineEngine(job.storage), run="reference")
    assert summary["images"]["read"] == NUM_SHARDS * IMAGES_PER_SHARD
    assert summary["images"]["failed"] == 5
    return tables(str(out), StorageOptions())


def tables(output: str, options: StorageOptions) -> dict[str, str]:
    """SHA-256 of every published table."""
    storage = open_storage(output, options)
    found = [info.path for folder in ("images", "instances") for info in storage.list(folder)]
    return {path: hashlib.sha256(storage.read(path)).hexdigest() for path in found}


def forget_dead_jobs() -> None:
    """Make Ray Data forget the CPUs that jobs reserved which were killed: they expire after minutes only."""
    with contextlib.suppress(ValueError):  # no job has run yet
        coordinator = ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")
        ray.kill(coordinator, no_restart=True)


def run_until_done(arguments: dict[str, Any], timeout: float = 120) -> tuple[int, dict[str, Any]]:
    """Start the job again until it ends by itself; how often it was killed, and its summary."""
    for kills in range(3):
        forget_dead_jobs()
        done = subprocess.run(
            [sys.executable, "-m", "tests.kill_job", json.dumps(arguments | {"run": f"run{kills}"})],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode == 0:
            return kills, json.loads(done.stdout.splitlines()[-1])
        assert done.returncode == -9, done.stderr[-4000:]
    raise AssertionError("killed three times: the switch must fire once")


def check(output: str, options: StorageOptions, reference: dict[str, str], summary: dict[str, Any]) -> None:
    assert tables(output, options) == reference
    assert summary["state"] == "done"
    assert summary["images"]["invariant_holds"]
    assert summary["shards"]["pending"] == 0
    storage = open_storage(output, options)
    left = {info.path.split("/")[0] for info in storage.list()}
    assert left <= {"images", "instances", "commits", "run.json", "summary.json", "_parts"}
    images = [p for p in reference if p.startswith("images/")]
    uids = [u for p in images for u in read_uids(storage.read(p))]
    assert len(uids) == len(set(uids)) == NUM_SHARDS * IMAGES_PER_SHARD


def read_uids(data: bytes) -> list[str]:
    import pyarrow as pa

    return pq.read_table(pa.BufferReader(data), columns=["image_uid"]).column(0).to_pylist()


def arguments_for(inputs: list[str], output: str, folder: Path, target: str, boundary: str) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    switch = {"boundary": boundary, "target": target, "folder": str(folder)}
    address = ray.get_runtime_context().gcs_address
    return {
        "shards": inputs,
        "output": output,
        "switch": switch,
        "address": address,
    }


@pytest.mark.parametrize(("target", "boundary"), LOCAL_CASES)
def test_killed_on_local_disk(
    local_ray: None, inputs: list[str], reference: dict[str, str], tmp_path: Path, target: str, boundary: str
) -> None:
    out = str(tmp_path / "out")
    kills, summary = run_until_done(arguments_for(inputs, out, tmp_path / "switch", target, boundary))
    assert (tmp_path / "switch" / "fired").read_text() == target
    assert kills == (target == "driver")
    check(out, StorageOptions(), reference, summary)


@pytest.mark.parametrize(("target", "boundary"), S3_CASES)
def test_killed_on_s3(
    local_ray: None,
    s3: S3Server,
    inputs: list[str],
    reference: dict[str, str],
    tmp_path: Path,
    target: str,
    boundary: str,
) -> None:
    bucket = f"{target}-{BOUNDARIES.index(boundary)}"
    out = f"{s3.make_bucket(bucket)}/out"
    arguments = arguments_for(inputs, out, tmp_path / "switch", target, boundary)
    arguments["storage"] = {"s3_endpoint": s3.endpoint}
    kills, summary = run_until_done(arguments)
    assert kills == (target == "driver")
    check(out, StorageOptions(s3_endpoint=s3.endpoint), reference, summary)


def test_a_node_of_two_dies_and_the_run_ends_by_itself(
    inputs: list[str], reference: dict[str, str], tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    arguments = {"shards": inputs, "output": out, "kill_after_images": 8, "seconds_per_batch": 0.3}
    done = subprocess.run(
        [sys.executable, "-m", "tests.node_loss_job", json.dumps(arguments), str(tmp_path / "removed")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "removed").exists()
    check(out, StorageOptions(), reference, json.loads(done.stdout.splitlines()[-1]))
