"""A training that is killed or stopped, and started again, leaves what an undisturbed one leaves."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ovsops.errors import OutputError
from ovsops.training.curve import read_curve
from ovsops.training.state import states
from pipelines.runner import InlineEngine
from pipelines.storage import StorageOptions
from pipelines.training.job import OUTPUT_VERSION, run_train
from tests.pipelines.training.tiny_program import LOOP, NUM_SCENES, TinyRecipe, make_job, write_scenes

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def reference(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_train(make_job(folder, shards), InlineEngine(StorageOptions()))
    return folder / "out"


def left(out: Path) -> dict[str, bytes]:
    names = [
        "curve.csv",
        "data.json",
        "checkpoint/tiny.safetensors",
        "states/state-00000012/state.safetensors",
    ]
    return {name: (out / name).read_bytes() for name in names}


def summary_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def test_the_curve_holds_every_row(reference: Path) -> None:
    assert [row["step"] for row in read_curve(reference / "curve.csv")] == [3, 6, 9, 12]
    assert (reference / "curve.png").stat().st_size > 5000


@pytest.mark.kill
def test_a_killed_training_goes_on_to_the_same_bytes(shards: Path, reference: Path, tmp_path: Path) -> None:
    program = {"signal_at": 10, "marker": str(tmp_path / "fired")}  # the state is of step 8, a row of step 9
    told = json.dumps({"folder": str(tmp_path), "shards": str(shards), "program": program})
    command = [sys.executable, "-m", "tests.pipelines.training.train_process", told]
    assert subprocess.run(command, cwd=ROOT, timeout=300, check=False).returncode == -signal.SIGKILL
    assert [row["step"] for row in read_curve(tmp_path / "out" / "curve.csv")] == [3, 6, 9]
    assert states(tmp_path / "out" / "states")[-1].name == "state-00000008"
    assert not (tmp_path / "out" / "checkpoint").exists()

    run_train(make_job(tmp_path, shards), InlineEngine(StorageOptions()))
    assert left(tmp_path / "out") == left(reference)
    assert summary_of(tmp_path / "out")["this_run"]["worker"]["start"] == 8
    assert not (tmp_path / "out" / "_lock.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_state_after_the_step(
    number: signal.Signals, shards: Path, reference: Path, tmp_path: Path
) -> None:
    before = signal.getsignal(number)
    program = TinyRecipe(signal_at=4, signal_number=int(number), marker=str(tmp_path / "fired"))
    with pytest.raises(KeyboardInterrupt):
        run_train(make_job(tmp_path, shards, program=program), InlineEngine(StorageOptions()))
    assert signal.getsignal(number) == before
    assert states(tmp_path / "out" / "states")[-1].name == "state-00000005"  # between two rows of the curve
    told = summary_of(tmp_path / "out")
    assert (told["state"], told["steps"]["done"], told["checkpoint"]) == ("interrupted", 5, None)
    run_train(make_job(tmp_path, shards, program=program), InlineEngine(StorageOptions()))
    assert left(tmp_path / "out") == left(reference)


def test_a_finished_training_stays_as_it_is(shards: Path, reference: Path) -> None:
    before = left(reference)
    told = run_train(make_job(reference.parent, shards), InlineEngine(StorageOptions()))
    assert left(reference) == before
    assert (told["state"], told["steps"]["done"]) == ("done", LOOP.num_steps)
    assert told["scenes"]["used"] == NUM_SCENES


def test_a_finished_training_reads_nothing(
    shards: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("scenes were read")

    before = left(reference)
    monkeypatch.setattr("pipelines.training.job.read_scenes", fail)
    told = run_train(make_job(reference.parent, shards), InlineEngine(StorageOptions()))
    assert (told["state"], told["scenes"]["used"], told["this_run"]["worker"]) == ("done", NUM_SCENES, None)
    with pytest.raises(AssertionError, match="scenes were read"):  # one step more is something to do
        run_train(
            make_job(reference.parent, shards, loop=replace(LOOP, num_steps=13)),
            InlineEngine(StorageOptions()),
        )
    with pytest.raises(AssertionError, match="scenes were read"):  # and so is another checkpoint folder
        run_train(
            make_job(reference.parent, shards, checkpoint=reference / "other"), InlineEngine(StorageOptions())
        )
    assert left(reference) == before


def test_moved_shards_of_the_same_scenes_are_no_other_scenes(
    shards: Path, reference: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(shards, moved)
    told = run_train(make_job(reference.parent, moved), InlineEngine(StorageOptions()))
    assert (told["state"], told["scenes"]["used"]) == ("done", NUM_SCENES)


def test_other_scenes_are_refused(shards: Path, reference: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    others.mkdir()
    (others / "a.tar").write_bytes((shards / "world-000000.tar").read_bytes())
    with pytest.raises(OutputError, match="has learned from other scenes"):
        run_train(make_job(reference.parent, others), InlineEngine(StorageOptions()))


def test_another_recipe_is_refused_and_the_field_named(shards: Path, reference: Path) -> None:
    manifest = {"schema_version": OUTPUT_VERSION, "recipe": {"loop": {"num_steps": 13}}}
    with pytest.raises(OutputError, match=r"loop\.num_steps: 12 -> 13"):
        run_train(make_job(reference.parent, shards, manifest=manifest), InlineEngine(StorageOptions()))
