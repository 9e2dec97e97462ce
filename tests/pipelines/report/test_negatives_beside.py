"""Negatives that lie beside a run: each region once, those of other labels not at all, fifty of them to read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.report.negatives_beside import NUM_TO_READ, FoundNegatives, find_negatives
from pipelines.report.negatives_section import negatives
from pipelines.report.run_report import RunReport
from pipelines.report.texts import clean
from tests.pipelines.report.made_page import MadePage

COLOURS = ("blue", "green", "black", "white", "pink", "grey", "brown", "orange", "purple", "yellow")


def write_table(folder: Path, uids: list[str], *, positive: str = "a red ball") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    texts = [positive.replace("red", colour) for colour in COLOURS]
    rows = {
        "instance_uid": uids,
        "positive": [positive] * len(uids),
        "negatives": [texts] * len(uids),
        "types": [["colour"] * 10] * len(uids),
    }
    pq.write_table(pa.table(rows), folder / "s.parquet")


def write_set(folder: Path, uids: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    regions = [
        {
            "region_uid": uid,
            "flag_short_neg": 1,
            "short_expr": "a red ball",
            "short_expr_negs": [f"a {colour} ball" for colour in COLOURS],
            "neg_types": ["colour"] * 10,
        }
        for uid in uids
    ]
    pq.write_table(pa.table({"short_caption": ["x"], "regions": [regions]}), folder / "t.parquet")


def find(*folders: Path, **changes: Any) -> FoundNegatives:
    asked: dict[str, Any] = {"recipe_hash": "abc", "regions": frozenset(), "shards": ()}
    return find_negatives(folders, **asked | changes)


def manifest(labels: str) -> bytes:
    return json.dumps({"recipe": {"made_of": {"labels_recipe_hash": labels}}}).encode()


def test_a_region_that_is_in_a_table_and_in_sets_counts_once(tmp_path: Path) -> None:
    uids = [f"region-{i}" for i in range(7)]
    write_table(tmp_path / "negatives", uids)
    write_set(tmp_path / "set" / "finehard-parquet", uids[:5])
    write_set(tmp_path / "set" / "hf", uids[2:])
    found = find(tmp_path / "negatives", tmp_path / "set")
    assert found.num_regions == 7
    assert len(found.to_read) == 7
    assert found.sources == (str(tmp_path / "negatives"), str(tmp_path / "set"))


def test_negatives_of_other_labels_are_passed_by(tmp_path: Path) -> None:
    write_table(tmp_path / "ours" / "negatives", ["a"])
    write_table(tmp_path / "theirs" / "negatives", ["b"])
    (tmp_path / "ours" / "run.json").write_bytes(manifest("abc"))
    (tmp_path / "theirs" / "run.json").write_bytes(manifest("other"))
    found = find(tmp_path)
    assert found.num_regions == 1
    (tmp_path / "theirs" / "run.json").write_bytes(b"{not json")  # says nothing
    assert find(tmp_path).num_regions == 2
    assert find(tmp_path, strangers={tmp_path}).num_regions == 1


def test_fifty_are_drawn_and_the_order_of_files_does_not_matter(tmp_path: Path) -> None:
    uids = [f"region-{i}" for i in range(200)]
    write_table(tmp_path / "one", uids)
    write_table(tmp_path / "two" / "a", uids[:90])
    write_table(tmp_path / "two" / "b", uids[90:])
    found = find(tmp_path / "one")
    assert len(found.to_read) == NUM_TO_READ
    assert found.to_read == find(tmp_path / "two").to_read
    assert len({negative for _, negative, _ in found.to_read}) > 5  # not the same place of every ten
    assert all(negative != positive for positive, negative, _ in found.to_read)


@pytest.fixture
def report(made_page: MadePage) -> RunReport:
    return made_page.report


def test_the_page_marks_what_was_changed_and_takes_no_word_for_markup(report: RunReport) -> None:
    hostile = 'a red <img src=x onerror=alert(1)> "ball"'
    rows = tuple((hostile, hostile.replace("red", "blue"), "colour") for _ in range(12))
    found = FoundNegatives(num_regions=1234, to_read=rows)
    page = negatives(with_negatives(report, found))
    assert "<img" not in page
    assert page.count("<mark>blue</mark>") == 12
    assert "1,234" in page
    assert "2 more" in clean(page, 100_000)


def test_without_negatives_there_is_no_section(report: RunReport) -> None:
    assert negatives(with_negatives(report, FoundNegatives())) == ""


def with_negatives(report: RunReport, found: FoundNegatives) -> RunReport:
    return replace(report, beside=replace(report.beside, negatives=found))
