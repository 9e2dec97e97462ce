"""Failed rows once more: what changes, what must not, and what a kill leaves behind."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.ledger import Ledger
from pipelines.retry import run_retry
from pipelines.runner import InlineEngine, RayConfig, RayEngine
from pipelines.storage import open_storage
from tests.pipelines.test_label_job import make_job, run_inline, table_hashes
from tests.tiny.segmenters import ColourFactory
from tests.tiny.shards import draw_image, encode, write_tar

ODD_WIDTH = 80
"""The sick device of these tests has no memory for images this wide."""


@pytest.fixture
def pattern(tmp_path: Path) -> str:
    """Two shards; images 2 and 5 of each are wide, image 3 is cut in half for good."""
    for s in range(2):
        members = []
        for i in range(7):
            data = encode(draw_image(10 * s + i, width=ODD_WIDTH if i in (2, 5) else 64))
            members.append((f"{i:03d}.jpg", data[: len(data) // 2] if i == 3 else data))
        write_tar(tmp_path / "in" / f"s{s}.tar", members)
    return str(tmp_path / "in" / "*.tar")


def sick(pattern: str, out: Path) -> Any:
    return make_job([pattern], out, annotator=ColourFactory(refuse_width=ODD_WIDTH))


def test_failed_rows_come_right_and_the_rest_stays_as_a_run_without_failures_writes_it(
    pattern: str, tmp_path: Path
) -> None:
    first = run_inline(sick(pattern, tmp_path / "out"))
    assert first["failures_by_code"] == {"E_MODEL": 4, "E_TRUNCATED": 2}
    healthy = make_job([pattern], tmp_path / "out")
    summary = run_retry(healthy, InlineEngine(healthy.storage), run="again")
    run_inline(make_job([pattern], tmp_path / "reference"))
    assert summary["failures_by_code"] == {"E_TRUNCATED": 2}
    assert summary["images"]["invariant_holds"]
    assert summary["this_run"]["retried_images"] == 6
    assert table_hashes(tmp_path / "out") == table_hashes(tmp_path / "reference")
    assert not (tmp_path / "out" / "_parts").exists()


def test_only_rows_with_the_code_are_tried(pattern: str, tmp_path: Path) -> None:
    run_inline(sick(pattern, tmp_path / "out"))
    before = table_hashes(tmp_path / "out")
    healthy = make_job([pattern], tmp_path / "out")
    summary = run_retry(healthy, InlineEngine(healthy.storage), run="again", codes=frozenset({"E_TIMEOUT"}))
    assert summary["this_run"]["retried_images"] == 0
    assert table_hashes(tmp_path / "out") == before


def test_what_fails_again_makes_no_new_generation(pattern: str, tmp_path: Path) -> None:
    run_inline(sick(pattern, tmp_path / "out"))
    before = table_hashes(tmp_path / "out")
    job = sick(pattern, tmp_path / "out")
    summary = run_retry(job, InlineEngine(job.storage), run="again")
    assert summary["failures_by_code"] == {"E_MODEL": 4, "E_TRUNCATED": 2}
    assert table_hashes(tmp_path / "out") == before
    assert len(list((tmp_path / "out" / "commits").iterdir())) == 2


def test_a_replaced_shard_is_refused_and_its_labels_stay(pattern: str, tmp_path: Path) -> None:
    run_inline(sick(pattern, tmp_path / "out"))
    before = table_hashes(tmp_path / "out")
    write_tar(tmp_path / "in" / "s0.tar", [("000.jpg", encode(draw_image(99)))])
    healthy = make_job([pattern], tmp_path / "out")
    summary = run_retry(healthy, InlineEngine(healthy.storage), run="again")
    assert "no longer those that were labelled" in summary["shards"]["failed"]["s0.tar"]
    after = table_hashes(tmp_path / "out")
    assert {path for path in after if after[path] != before[path]} == {
        path for path in after if "/s1-" in path
    }


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_killed_between_commit_and_publish_rolls_forward(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    run_inline(sick(pattern, tmp_path / "out"))
    healthy = make_job([pattern], tmp_path / "out")
    storage = open_storage(healthy.output, healthy.storage)
    moves = []

    def stop_after(src: str, dst: str) -> None:
        if len(moves) == moved:
            raise KeyboardInterrupt
        moves.append(dst)
        type(storage).move(storage, src, dst)

    opened = open_storage(healthy.output, healthy.storage)
    monkeypatch.setattr(opened, "move", stop_after, raising=False)
    monkeypatch.setattr("pipelines.retry.open_storage", lambda *_: opened)
    if moved < 2:
        with pytest.raises(KeyboardInterrupt):
            run_retry(healthy, InlineEngine(healthy.storage), run="killed")
    monkeypatch.undo()
    run_retry(healthy, InlineEngine(healthy.storage), run="again")
    run_inline(make_job([pattern], tmp_path / "reference"))
    assert table_hashes(tmp_path / "out") == table_hashes(tmp_path / "reference")
    for commit in Ledger(storage).read_all():
        commit.check_invariant()
        rows = pq.read_table(tmp_path / "out" / str(commit.tables["images"]["published"]))
        assert rows.num_rows == commit.read == 7


@pytest.mark.ray
def test_ray_retries_to_the_same_bytes(pattern: str, tmp_path: Path, local_ray: None) -> None:
    run_inline(sick(pattern, tmp_path / "out"))
    healthy = make_job([pattern], tmp_path / "out")
    with RayEngine(RayConfig(), healthy.storage) as engine:
        run_retry(healthy, engine, run="again")
    run_inline(make_job([pattern], tmp_path / "reference"))
    assert table_hashes(tmp_path / "out") == table_hashes(tmp_path / "reference")
