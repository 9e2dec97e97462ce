"""Pruning deletes what a run wrote and nothing else, whatever lies beside it."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.lock import LOCK
from pipelines.nightly_prune import DAY_S
from pipelines.prune import carry_out, plan_prune
from pipelines.storage import Storage, open_storage
from tests.pipelines.made_runs import Made, Picture, write_run

END = 1_000_000.0


def old_run(root: Path, name: str, ended: float = END) -> Path:
    folder = write_run(
        root / name, {"s.tar": [Picture(name, (Made(1),))], "t.tar": [Picture("2")]}, ended=ended
    )
    for path in folder.rglob("*"):
        os.utime(path, (ended, ended))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two runs, `old` and `new`; nobody asks for `new`."""
    old_run(tmp_path, "old")
    old_run(tmp_path, "new", END + 50 * DAY_S)
    return tmp_path


def storage_of(root: Path) -> Storage:
    return open_storage(str(root))


def test_a_run_goes_whole_and_another_stays(root: Path) -> None:
    own = {path.relative_to(root).as_posix() for path in (root / "old").rglob("*") if path.is_file()}
    plan = plan_prune(storage_of(root), ["old"])
    assert {file.path for file in plan.delete} == own
    assert len(own) == 8
    assert plan.delete[-1].path == "old/run.json"
    assert plan.kept_runs == {}
    assert plan.num_bytes == sum(path.stat().st_size for path in (root / "old").rglob("*") if path.is_file())
    assert "1 runs may go: 8 files" in next(plan.lines())
    assert (root / "old").exists()  # a plan changes nothing
    done = carry_out(storage_of(root), plan)
    assert set(done.deleted) == own
    assert not done.skipped
    assert sorted(path.name for path in root.iterdir()) == ["new"]
    assert len(list((root / "new").rglob("*.parquet"))) == 4


def test_foreign_files_stay_with_their_folders(root: Path) -> None:
    for place in (
        "old/notes.txt",
        "old/images/mine.parquet",
        "old/commits/readme.json",
        "old/deep/x/run.json",
    ):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text("{}")
        os.utime(root / place, (END, END))
    plan = plan_prune(storage_of(root), ["old"])
    assert set(plan.kept_files) == {
        "old/notes.txt",
        "old/images/mine.parquet",
        "old/commits/readme.json",
        "old/deep/x/run.json",
    }
    carry_out(storage_of(root), plan)
    left = {path.relative_to(root / "old").as_posix() for path in (root / "old").rglob("*") if path.is_file()}
    assert left == {"notes.txt", "images/mine.parquet", "commits/readme.json", "deep/x/run.json"}


def test_a_table_that_somebody_changed_stays(root: Path) -> None:
    table = next((root / "old" / "images").iterdir())
    data = bytearray(table.read_bytes())
    data[10] ^= 1
    table.write_bytes(data)
    os.utime(table, (END, END))
    plan = plan_prune(storage_of(root), ["old"])
    assert plan.kept_files == {f"old/images/{table.name}": "its bytes are not those that the run recorded"}


def test_links_are_neither_deleted_nor_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = old_run(tmp_path_factory.mktemp("outside"), "other")
    (root / "linked").symlink_to(outside)
    table = next((root / "old" / "images").iterdir())
    elsewhere = tmp_path_factory.mktemp("moved") / table.name
    table.rename(elsewhere)
    table.symlink_to(elsewhere)
    os.utime(elsewhere, (END, END))
    plan = plan_prune(storage_of(root), ["old"])
    assert plan.kept_files == {f"old/images/{table.name}": "a symbolic link"}
    carry_out(storage_of(root), plan)
    assert elsewhere.exists()
    assert table.is_symlink()
    assert (outside / "run.json").exists()
    assert (root / "linked").is_symlink()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("KEEP", "", "it has a file KEEP"),
        (LOCK, "{}", "it is locked"),
        ("summary.json", '{"state": "interrupted"}', "it is not finished"),
        ("summary.json", "[]", "it is not finished"),
        (
            "summary.json",
            '{"state": "done", "this_run": {"started_unix": true, "seconds": "x"}}',
            "it is not finished",
        ),
        ("run.json", '{"schema_version": "2", "recipe": {}}', "is not one of ours"),
        (
            "summary.json",
            '{"state": "done", "this_run": {"started_unix": NaN, "seconds": 1}}',
            "it is not finished",
        ),
        ("run.json", "no json", "is not one of ours"),
    ],
)
def test_runs_that_are_not_touched(root: Path, name: str, content: str, reason: str) -> None:
    (root / "old" / name).write_text(content)
    os.utime(root / "old" / name, (END, END))
    plan = plan_prune(storage_of(root), ["old"])
    assert not plan.delete
    assert reason in plan.kept_runs["old"]


def test_a_run_that_somebody_works_on_stays(root: Path) -> None:
    (root / "old" / "analysis.ipynb").write_text("new")
    plan = plan_prune(storage_of(root), ["old"])
    assert not plan.delete
    assert "analysis.ipynb is newer than the run's end" in plan.kept_runs["old"]


def test_what_is_no_run_is_left_out(root: Path) -> None:
    (root / "mine").mkdir()
    (root / "mine" / "file").write_text("x")
    plan = plan_prune(storage_of(root), ["mine", "nowhere"])
    assert (plan.delete, plan.runs, plan.kept_runs) == ((), (), {})


def test_what_changed_since_the_plan_is_skipped(root: Path) -> None:
    plan = plan_prune(storage_of(root), ["old"])
    commit = next(file.path for file in plan.delete if "/commits/" in file.path)
    (root / commit).write_text("changed")
    table = next(file.path for file in plan.delete if "/images/" in file.path)
    (root / table).unlink()
    done = carry_out(storage_of(root), plan)
    assert done.skipped == {commit: "it changed since the plan was made", table: "it is gone"}
    assert (root / commit).exists()


def test_a_run_that_is_locked_meanwhile_is_left(root: Path) -> None:
    plan = plan_prune(storage_of(root), ["old"])
    (root / "old" / LOCK).write_text("{}")
    done = carry_out(storage_of(root), plan)
    assert not done.deleted
    assert len(done.skipped) == 8


def add_record(run: Path, shard: str, published: str, **changes: object) -> Path:
    """A record of another job in an old run, of its recipe, and the file that it names where that is in the run."""
    table = {"num_bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest(), "published": published}
    recipe_hash = json.loads((run / "run.json").read_text())["recipe_hash"]
    record = {"shard": shard, "retry": 0, "recipe_hash": recipe_hash, "tables": {"regions": table}}
    path = run / "commits" / f"{shard}.json"
    path.write_text(json.dumps(record | changes))
    if ".." not in published:
        (run / published).parent.mkdir(parents=True, exist_ok=True)
        (run / published).write_bytes(b"abc")
    for each in run.rglob("*"):
        os.utime(each, (END, END))
    return path


def test_records_of_other_jobs_vouch_for_their_tables(root: Path) -> None:
    """Whatever the folder of a table is called, if the record is of the recipe that the manifest names."""
    add_record(root / "old", "ours", "regions/ours.parquet")
    add_record(root / "old", "other", "regions/other.parquet", recipe_hash="of another recipe")
    plan = plan_prune(storage_of(root), ["old"])
    assert {"old/regions/ours.parquet", "old/commits/ours.json"} <= {file.path for file in plan.delete}
    assert set(plan.kept_files) == {"old/commits/other.json", "old/regions/other.parquet"}


@pytest.mark.parametrize("published", ["../new/run.json", "notes.txt", "regions/elsewhere.parquet"])
def test_a_run_whose_record_names_other_files_than_tables_stays_whole(root: Path, published: str) -> None:
    add_record(root / "old", "odd", published)
    plan = plan_prune(storage_of(root), ["old"])
    assert not plan.delete
    assert "commits/odd.json names files that are no tables" in plan.kept_runs["old"]


@pytest.mark.parametrize("left", ["nothing", "of another recipe"])
def test_a_run_without_records_keeps_manifest_and_summary(root: Path, left: str) -> None:
    """Nothing proves then that what is there is its own."""
    for path in (root / "old" / "commits").iterdir():
        if left == "nothing":
            path.unlink()
        else:
            path.write_text(path.read_text().replace('"recipe_hash": "', '"recipe_hash": "x'))
        os.utime(path.parent, (END, END))
    for path in (root / "old" / "commits").iterdir():
        os.utime(path, (END, END))
    before = sorted((root / "old").rglob("*"))
    plan = plan_prune(storage_of(root), ["old"])
    assert plan.kept_runs["old"] == "no commit record of its recipe vouches for its files"
    carry_out(storage_of(root), plan)
    assert sorted((root / "old").rglob("*")) == before


NAMES = st.sampled_from(
    [
        "run.json",
        "summary.json",
        "images",
        "instances",
        "commits",
        "x.parquet",
        "s-tar-1.json",
        ".hidden",
        "a b",
        "日",
        "_parts",
    ]
)


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `root` holds, to be copied."""
    folder = tmp_path_factory.mktemp("two")
    old_run(folder, "old")
    old_run(folder, "new", END + 50 * DAY_S)
    return folder


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    foreign=st.lists(
        st.tuples(st.lists(NAMES, min_size=1, max_size=3), st.binary(max_size=20), st.booleans()), max_size=8
    )
)
def test_no_foreign_file_is_ever_in_the_plan(
    two_runs: Path, tmp_path_factory: pytest.TempPathFactory, foreign: list[tuple[list[str], bytes, bool]]
) -> None:
    root = tmp_path_factory.mktemp("prune") / "runs"
    shutil.copytree(two_runs, root)  # with their times
    folder = root / "old"
    own = {path.relative_to(root).as_posix() for path in folder.rglob("*") if path.is_file()}
    target = root / "new" / "run.json"
    made = set()
    for parts, data, is_link in foreign:
        path = folder.joinpath(*parts)
        if path.exists() or any(parent.is_file() for parent in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_link:
            path.symlink_to(target)
        else:
            path.write_bytes(data)
            os.utime(path, (END, END))
        made.add(path)
    os.utime(target, (END, END))
    plan = plan_prune(storage_of(root), ["old"])
    assert {file.path for file in plan.delete} <= own
    carry_out(storage_of(root), plan)
    assert all(path.is_symlink() or path.exists() for path in made)
    assert target.exists()
