"""The commands of the pages, executed: the words of `table`, in folders that have what a reader has."""

import csv
import importlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.cli import run_command
from jobs.demo_photos import draw_scene
from ovsops.miniature.scene import SceneConfig
from ovsops.miniature.splits import seeds_of
from pipelines.world_shards import write_world_shards
from tests.docs.table import BENCHMARKS, EXECUTED, Executed, Walk
from tests.infra.objects import ROOT
from tests.pipelines.made_runs import Made, Picture, write_run


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which the tree's recipes are where a clone has them; the process stays as it was."""
    for name in ("jobs", "infra"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVSOPS_CACHE", str(tmp_path / "cache"))
    root = logging.getLogger()
    handlers, level, sigterm = root.handlers, root.level, signal.getsignal(signal.SIGTERM)
    yield tmp_path
    root.handlers, root.level = handlers, level
    signal.signal(signal.SIGTERM, sigterm)


def execute(step: Executed) -> None:
    """One step; ovsops in this process, anything else in another one."""
    words = shlex.split(step.words)
    if words[0] == "ovsops":
        code = run_command(words[1:])
    else:
        words = [sys.executable, *words[1:]] if words[0] == "python" else words
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        code = subprocess.run(words, env=environment, check=False, stdout=subprocess.DEVNULL).returncode
    assert code == step.code, f"{step.words}: exit code {code}"


def walk(name: Walk, *, before: dict[str, Callable[[], object]] | None = None) -> None:
    """All steps of a walk; `before` says what a reader does before the step that begins so."""
    for step in EXECUTED:
        if step.walk == name:
            for start, act in (before or {}).items():
                if step.text.startswith(start):
                    act()
            execute(step)


def test_photos(place: Path) -> None:
    (place / "photos").mkdir()
    for seed in range(3):
        draw_scene(seed, width=192, height=128).save(place / "photos" / f"{seed}.jpg")
    walk("photos")
    assert (place / "runs" / "my_photos" / "report.html").is_file()
    assert len(list((place / "coco").rglob("*.json"))) >= 1
    assert (place / "queue.csv").is_file()


@pytest.mark.nightly
def test_demo(place: Path) -> None:
    walk("demo")
    assert (place / "demo-out" / "report" / "index.html").is_file()
    assert (place / "demo-out" / "evaluation" / "index.html").is_file()


def fill_in(form: Path) -> None:
    """One label in four is wrong."""
    with form.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with form.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | {"verdict": "right" if i % 4 else "wrong"} for i, row in enumerate(rows))


@pytest.mark.nightly
def test_sets(place: Path) -> None:
    scenes = list(seeds_of("test")[:16])
    write_world_shards(place / "demo-out" / "shards", scenes, scenes_per_shard=4, config=SceneConfig())
    runs = place / "runs"

    def copy_labels() -> None:
        for name in ("first", "monday", "tuesday"):
            shutil.copytree(runs / "label_instances_miniature", runs / name, dirs_exist_ok=True)

    def forget_queue() -> None:
        (place / "queue.csv").unlink(missing_ok=True)

    walk(
        "sets",
        before={
            "ovsops overlay": copy_labels,
            "ovsops audit runs/first --filled": lambda: fill_in(place / "audit" / "audit.csv"),
            "ovsops review": forget_queue,
        },
    )
    assert list((runs / "dataset_miniature" / "finehard-json").rglob("*.json"))
    assert (place / "calibrator.json").is_file()


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "step", [s for s in EXECUTED if s.walk == "trainings"], ids=lambda step: step.text.rsplit("/", 1)[1]
)
def test_training(place: Path, step: Executed) -> None:
    execute(step)
    assert list((place / "train-out").rglob("summary.json"))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", sorted(name for name, words in BENCHMARKS.items() if words is not None))
def test_benchmark(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes through on a few rows; 1 is a bar that so few miss."""
    words = (BENCHMARKS[name] or "").split()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # some measure processes of their own
    if "FILE" in words:
        run_benchmark("world_negatives", "made.jsonl --scenes 40".split(), monkeypatch)
    if "RUN" in words:
        write_run(place / "run", {"s.tar": [Picture(f"{n}", (Made(1),)) for n in range(8)]})
    places = {"FILE": "made.jsonl", "RUN": "run", "OUT": "out.jsonl", "FOLDER": "made"}
    assert run_benchmark(name, [places.get(word, word) for word in words], monkeypatch) in (0, 1)


def run_benchmark(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Its exit code."""
    monkeypatch.setattr(sys, "argv", [name, *words])
    try:
        return int(importlib.import_module(f"benchmarks.{name}").main() or 0)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else -1 if end.code else 0
