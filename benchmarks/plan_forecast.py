"""Does `ovsops plan --sample 64` say what the run takes? Plans, runs, and prints forecast, truth and ratio.

Scenes of the drawn world, the miniature checkpoints, the inline engine (one process); the commands as a user gives
them, each in a process of its own. The scenes are cut into parts, each planned and then run, so that a machine that
others use has about the same load for a forecast and its truth; images/s of all parts together are what counts.

Two clocks: the wall's, and CPU seconds of the process and its decoders. The truth by the wall is the seconds of the
run's summary, the truth in CPU seconds what was used since the run took its lock; both hold the loading of the models,
as the forecasts do here, and neither the start of the interpreter.

python -m benchmarks.plan_forecast [--scenes 2000] [--sample 64] [--parts 4] [--clock wall]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ovsops.miniature.scene import SceneConfig
from ovsops.miniature.splits import seeds_of
from pipelines.world_shards import write_world_shards

RECIPE = Path(__file__).parents[1] / "jobs" / "recipes" / "demo.yaml"
BAR = 0.20
_POLL_S = 0.1


def command(*words: str | Path, since: Path | None = None) -> float:
    """Run `ovsops` in a process of its own; CPU seconds, with its decoders', from when the file `since` is there."""
    arguments = [sys.executable, "-m", "jobs.cli", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, env=environment)
    seconds: dict[int, float] = {}
    before: float | None = None
    while process.poll() is None:
        _note(process.pid, seconds)
        if before is None and since is not None and since.exists():
            before = sum(seconds.values())
        time.sleep(_POLL_S)  # what is used after the last look is missed
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return sum(seconds.values()) - (before or 0.0)


def _note(pid: int, seconds: dict[int, float]) -> None:
    """CPU seconds so far of a process and of those that it started."""
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            times = process.cpu_times()
            seconds[process.pid] = times.user + times.system
    except psutil.NoSuchProcess:
        return


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the scenes: seconds that were forecast, with their interval, and seconds that it took."""

    images: int
    wall: tuple[float, float, float]
    wall_took: float
    cpu: tuple[float, float, float]
    cpu_took: float


def plan_and_run(work: Path, number: int, shards: Sequence[str], sample: int) -> Part:
    """One part."""
    only = ("--set", f"input.only={json.dumps(list(shards))}", *settings(work))
    out = work / f"plan-{number}"
    command("plan", RECIPE, *only, "--engine", "inline", "--sample", str(sample), "--out", out)
    found = json.loads((out / "plan.json").read_text("utf-8"))
    cpu_took = command("run", RECIPE, *only, "--engine", "inline", since=work / "run" / "_lock.json")
    this = json.loads((work / "run" / "summary.json").read_text("utf-8"))["this_run"]
    images, rate = found["forecast"]["images"], found["forecast"]["images_per_second"]
    assert images == this["images"], (images, this)
    load, cpu = found["sample"]["load_seconds"], found["sample"]["cpu_seconds_per_image"]
    load_cpu = found["sample"]["load_cpu_seconds"]
    return Part(
        images=this["images"],
        wall=tuple(images / rate[end] + load for end in ("value", "high", "low")),
        wall_took=this["seconds"],
        cpu=tuple(images * cpu[end] + load_cpu for end in ("value", "low", "high")),
        cpu_took=cpu_took,
    )


def settings(work: Path) -> tuple[str, ...]:
    return ("--set", f"input.shards={work / 'shards'}", "--set", f"output={work / 'run'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--sample", type=int, default=64)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--scenes-per-shard", type=int, default=50)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="what exit 1 is decided by")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        seeds = seeds_of("train")[: arguments.scenes]
        written = write_world_shards(
            work / "shards", seeds, scenes_per_shard=arguments.scenes_per_shard, config=SceneConfig()
        )
        names = [path.name for path in written]
        parts = []
        for number in range(arguments.parts):
            part = plan_and_run(work, number, names[number :: arguments.parts], arguments.sample)
            print(f"part {number + 1}: {part}", flush=True)
            parts.append(part)
    ratios = {
        "wall": report("wall", [(p.images, p.wall, p.wall_took) for p in parts]),
        "cpu": report("CPU", [(p.images, p.cpu, p.cpu_took) for p in parts]),
    }
    within = abs(ratios[arguments.clock] - 1) <= BAR
    print(f"by the {arguments.clock} clock {'within' if within else 'NOT within'} {BAR:.0%}")
    sys.exit(0 if within else 1)


def report(clock: str, parts: Sequence[tuple[int, tuple[float, float, float], float]]) -> float:
    """Print images for a second of the clock, by part and in all; forecast over truth."""
    print(
        f"{f'images/s, {clock} clock':22} {'images':>7} {'forecast':>9} {'interval':>16} {'truth':>8} {'ratio':>6}"
    )
    for number, (images, (value, low, high), took) in enumerate(parts, start=1):
        interval = f"{images / high:.2f} to {images / low:.2f}"
        figures = f"{images / value:9.2f} {interval:>16} {images / took:8.2f} {took / value:6.3f}"
        print(f"{f'part {number}':22} {images:7d} {figures}")
    images, took = sum(part[0] for part in parts), sum(part[2] for part in parts)
    forecast = sum(part[1][0] for part in parts)
    print(
        f"{'all':22} {images:7d} {images / forecast:9.2f} {'':16} {images / took:8.2f} {took / forecast:6.3f}"
    )
    return took / forecast


if __name__ == "__main__":
    main()
