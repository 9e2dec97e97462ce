"""Pruning, on outputs of the negatives and dataset jobs: what a record proves goes, what may be in use stays."""

import shutil
from pathlib import Path

import pytest

from pipelines.dataset import SetConfig
from pipelines.prune import PrunePlan, carry_out, plan_prune
from pipelines.storage import open_storage
from pipelines.training_sets.duplicates import DuplicateConfig
from tests.pipelines.test_dataset_job import Made, run
from tests.tiny.labelled import some_images

JOBS = ("negatives", "dataset")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with finished outputs of both jobs."""
    made = Made(tmp_path_factory.mktemp("made"), [some_images(0, 3), some_images(1, 3)])
    few = SetConfig(formats=("finehard-json", "coco"), check_images="none")
    run(made.job(made.folder / "dataset", set=few, duplicates=DuplicateConfig(max_bits=1)))
    return made.folder


@pytest.fixture
def root(outputs: Path, tmp_path: Path) -> Path:
    for job in JOBS:
        shutil.copytree(outputs / job, tmp_path / job)  # with their times
    return tmp_path


def plan(root: Path) -> PrunePlan:
    return plan_prune(open_storage(str(root)), JOBS)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_negatives_lose_what_their_records_name_and_keep_what_people_fill_in(root: Path) -> None:
    before = files(root / "negatives")
    found = plan(root)
    carry_out(open_storage(str(root)), found)
    left = files(root / "negatives")
    assert set(left) == {"audit.csv", "audit.jsonl", "corpus.json"}
    assert {f"negatives/{path}" for path in left} == set(found.kept_files)
    assert all(before[path] == data for path, data in left.items())


def test_a_training_set_stays_whole_with_its_manifest(root: Path) -> None:
    before = files(root / "dataset")
    found = plan(root)
    assert found.runs == ("negatives",)
    assert "training sets stay" in found.kept_runs["dataset"]
    carry_out(open_storage(str(root)), found)
    assert files(root / "dataset") == before
    assert {"run.json", "summary.json", "plan.json", "coco/README.md"} <= set(before)


@pytest.mark.parametrize("job", JOBS)
def test_without_records_nothing_goes(root: Path, job: str) -> None:
    shutil.rmtree(root / job / "commits")
    before = files(root / job)
    found = plan(root)
    assert not [each.path for each in found.delete if each.path.startswith(f"{job}/")]
    assert found.kept_runs[job] == "no commit record of its recipe vouches for its files"
    carry_out(open_storage(str(root)), found)
    assert files(root / job) == before


def test_a_killed_run_is_not_touched(root: Path) -> None:
    (root / "negatives" / "summary.json").unlink()
    before = files(root)
    found = plan(root)
    assert "it is not finished" in found.kept_runs["negatives"]
    carry_out(open_storage(str(root)), found)
    assert files(root) == before


@pytest.mark.parametrize("table", ["negatives", "commits"])
def test_a_file_that_somebody_changed_stays(root: Path, table: str) -> None:
    path = sorted((root / "negatives" / table).iterdir())[0]
    path.write_bytes(path.read_bytes().replace(b'"shard"', b'"sherd"') + b" ")
    found = plan(root)
    assert f"negatives/{table}/{path.name}" not in {each.path for each in found.delete}
    carry_out(open_storage(str(root)), found)
    assert path.exists()
