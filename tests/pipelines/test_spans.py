"""When stages worked: what commit records keep of it."""

import itertools
from pathlib import Path

import pytest

from pipelines.ledger import Commit, Ledger
from pipelines.spans import MAX_SPANS, add_spans, joined, spans_to_json
from pipelines.storage import open_storage
from tests.tiny.world import label_world, write_world


def test_a_run_stores_when_each_stage_worked(tmp_path: Path) -> None:
    write_world(tmp_path / "in")
    label_world(tmp_path / "in", tmp_path / "out", lambda truth: truth)
    commits = Ledger(open_storage(str(tmp_path / "out"))).read_all()
    for stage in ("segment", "encode", "write"):
        spans = [span for commit in commits for span in commit.spans[stage]]
        assert sum(images for *_, images in spans) == sum(commit.read for commit in commits)
        assert all(ended >= started > 1.7e9 and busy >= 0 for started, ended, busy, _ in spans)
    assert all("ask" not in commit.spans for commit in commits)
    model = sum(span[2] for commit in commits for span in commit.spans["segment"])
    assert model == pytest.approx(sum(commit.seconds["segment_seconds"] for commit in commits), abs=0.01)


def test_joined_spans_keep_sums_and_ends() -> None:
    spans = [[float(i), i + 0.5, 0.25, 2] for i in range(100)]
    found = joined(spans)
    assert len(found) == MAX_SPANS
    assert sum(span[2] for span in found) == pytest.approx(25.0)
    assert sum(span[3] for span in found) == 200
    assert (found[0][0], found[-1][1]) == (0.0, 99.5)
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(found))


def test_a_shard_of_many_parts_keeps_little() -> None:
    known: dict[str, list[list[float]]] = {}
    for i in range(500):
        add_spans(known, spans_to_json({"segment": [float(i), i + 1.0, 0.5, 3]}))
    assert len(known["segment"]) <= 2 * MAX_SPANS
    assert sum(span[3] for span in known["segment"]) == 1500
    add_spans(known, None)
    assert set(known) == {"segment"}


def test_records_of_earlier_versions_have_no_spans(tmp_path: Path) -> None:
    write_world(tmp_path / "in")
    label_world(tmp_path / "in", tmp_path / "out", lambda truth: truth)
    commit = Ledger(open_storage(str(tmp_path / "out"))).read_all()[0]
    plain = {name: value for name, value in vars(commit).items() if name != "spans"}
    assert Commit(**plain).spans == {}
