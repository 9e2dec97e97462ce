"""Does `ovsops plan --sample 64` say what the run takes? Plans, runs, plans again; prints forecast, truth, ratio.

Scenes of the drawn world, the miniature checkpoints, the inline engine (one process); the commands as a user gives
them, each in a process of its own. Two clocks: the wall's, and CPU seconds of the process and its decoders. On a machine
that others use the wall's differs between two starts of the same command, which the second plan shows; CPU seconds
differ less. The truth by the wall is images over seconds as the run's summary has them, which hold the loading of the
models, as the forecast does here. The truth in CPU seconds has those of a start with nothing to do taken off.

python -m benchmarks.plan_forecast [--scenes 2000] [--sample 64] [--clock wall]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from ovsops.miniature.scene import SceneConfig
from ovsops.miniature.splits import seeds_of
from pipelines.world_shards import write_world_shards

RECIPE = Path(__file__).parents[1] / "jobs" / "recipes" / "demo.yaml"
BAR = 0.20
_POLL_S = 0.2


def command(*words: str | Path) -> float:
    """Run `ovsops` in a process of its own; its CPU seconds, with its decoders'."""
    arguments = [sys.executable, "-m", "jobs.cli", *map(str, words)]
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    seconds: dict[int, float] = {}
    watcher = threading.Thread(target=_watch, args=(process.pid, seconds))
    watcher.start()
    code = process.wait()
    watcher.join()
    if code:
        raise SystemExit(f"{' '.join(arguments)} ended with {code}")
    return sum(seconds.values())


def _watch(pid: int, seconds: dict[int, float]) -> None:
    """Note CPU seconds by process until `pid` is gone; the last fifth of a second may be missed."""
    try:
        root = psutil.Process(pid)
        while root.is_running() and root.status() != psutil.STATUS_ZOMBIE:
            for process in (root, *root.children(recursive=True)):
                try:
                    times = process.cpu_times()
                except psutil.Error:
                    continue
                seconds[process.pid] = times.user + times.system
            time.sleep(_POLL_S)
    except psutil.NoSuchProcess:
        return


def plan(work: Path, name: str, shards: Path, sample: int) -> dict[str, Any]:
    """A plan of all shards, as if nothing were done."""
    settings = ("--set", f"input.shards={shards}", "--set", f"output={work / f'none-{name}'}")
    out = work / f"plan-{name}"
    command("plan", RECIPE, *settings, "--engine", "inline", "--sample", str(sample), "--out", out)
    return json.loads((out / "plan.json").read_text("utf-8"))


def by_wall(found: dict[str, Any]) -> tuple[float, float, float]:
    """Forecast images/s with the loading of the models, and its interval."""
    forecast, sample = found["forecast"], found["sample"]
    images, load = forecast["images"], sample["load_seconds"]
    rate = forecast["images_per_second"]
    value, low, high = (images / (images / rate[end] + load) for end in ("value", "low", "high"))
    return value, low, high


def by_cpu(found: dict[str, Any]) -> tuple[float, float, float]:
    """Forecast images for a CPU second, and its interval."""
    seconds = found["sample"]["cpu_seconds_per_image"]
    return 1 / seconds["value"], 1 / seconds["high"], 1 / seconds["low"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--sample", type=int, default=64)
    parser.add_argument("--scenes-per-shard", type=int, default=100)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="what exit 1 is decided by")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shards, out = work / "shards", work / "run"
        seeds = seeds_of("train")[: arguments.scenes]
        write_world_shards(shards, seeds, scenes_per_shard=arguments.scenes_per_shard, config=SceneConfig())
        before = plan(work, "before", shards, arguments.sample)
        run = (
            "run",
            RECIPE,
            "--engine",
            "inline",
            "--set",
            f"input.shards={shards}",
            "--set",
            f"output={out}",
        )
        cpu = command(*run)
        this = json.loads((out / "summary.json").read_text("utf-8"))["this_run"]
        cpu -= command(*run)  # nothing is left to do
        after = plan(work, "after", shards, arguments.sample)
    images = this["images"]
    truth = {"wall": images / this["seconds"], "cpu": images / cpu}
    print(
        f"{images} scenes, {this['seconds']:.0f} s by the wall, {cpu:.0f} CPU-s; sample of {arguments.sample}"
    )
    print(f"{'images/s':26} {'forecast':>8} {'interval':>16} {'truth':>8} {'ratio':>6}")
    ratios = {}
    for clock, look in (("wall", by_wall), ("cpu", by_cpu)):
        for when, found in (("before", before), ("after", after)):
            value, low, high = look(found)
            ratio = value / truth[clock]
            ratios.setdefault(clock, ratio)
            says = f"{clock}, planned {when} the run"
            print(f"{says:26} {value:8.3f} {f'{low:.3f} to {high:.3f}':>16} {truth[clock]:8.3f} {ratio:6.3f}")
    within = abs(ratios[arguments.clock] - 1) <= BAR
    print(f"by the {arguments.clock} clock {'within' if within else 'NOT within'} {BAR:.0%}")
    sys.exit(0 if within else 1)


if __name__ == "__main__":
    main()
