"""Scripts: their syntax, what they refuse, and two Ray nodes on this machine that label drawn scenes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray.scripts.scripts import start
from ray.scripts.symmetric_run import symmetric_run

from ovsops.miniature.scene import SceneConfig
from pipelines.world_shards import write_world_shards
from tests.infra.objects import INFRA, ROOT

LOCAL = INFRA / "local_cluster.sh"
SLURM = INFRA / "slurm" / "ovsops.sbatch"


@pytest.mark.parametrize("script", [LOCAL, SLURM], ids=["local", "slurm"])
def test_bash_reads_it_and_it_stops_at_errors(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert "\nset -euo pipefail\n" in script.read_text()


def test_ray_knows_every_option_that_is_used() -> None:
    known = {name for each in (*start.params, *symmetric_run.params) for name in each.opts}
    text = LOCAL.read_text()
    used = {word for line in text.splitlines() for word in line.split() if word.startswith("--")}
    ours = {"--set", "--", "--head"}
    assert used - known - ours == set()
    assert {"--node-ip-address", "--temp-dir", "--dashboard-host", "--block"} <= used
    assert "ray symmetric-run --address" in SLURM.read_text()


@pytest.mark.parametrize("script", [LOCAL, SLURM], ids=["local", "slurm"])
def test_without_a_recipe_it_says_how_it_is_called(script: Path) -> None:
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "RECIPE" in done.stderr


def test_a_python_without_the_job_api_is_named(tmp_path: Path) -> None:
    without = tmp_path / "python"
    without.write_text("#!/bin/sh\nexit 1\n")
    without.chmod(0o755)
    done = subprocess.run(
        ["bash", LOCAL, "a.yaml"],
        env=os.environ | {"PYTHON": str(without)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "pip install '.[cluster]'" in done.stderr


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_two_nodes_label_drawn_scenes(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp_cors", reason="the extra `cluster` is not installed")
    write_world_shards(tmp_path / "shards", range(900_000, 900_064), scenes_per_shard=4, config=SceneConfig())
    settings = {
        "input.shards": tmp_path / "shards",
        "output": tmp_path / "out",
        "segment_on.actors": 2,
        "segment_on.num_cpus": 1.2,  # two do not fit on a node of two shares
    }
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    before = {path.name for path in Path("/tmp").glob("ovs-??????")}
    done = subprocess.run(
        ["bash", LOCAL, ROOT / "jobs" / "recipes" / "demo.yaml", *words],
        env=os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "WAIT_S": "900"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    counts = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "SUCCEEDED, exit code 0" in done.stderr
    assert "2 nodes are up" in done.stderr
    lines = [line.split(":")[0] for line in done.stderr.splitlines() if "MapWorker(" in line]
    assert len({line for line in lines if line != "node no node"}) == 2, done.stderr[-4000:]
    assert counts["state"] == "done"
    assert counts["images"]["labelled"] == 64
    assert {path.name for path in Path("/tmp").glob("ovs-??????")} <= before
