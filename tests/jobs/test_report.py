"""`ovsops report` as a tired person types it."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.pipelines.report.made_run import write_made_run

Ovsops = Callable[..., tuple[int, str, str]]


def test_the_page_lies_in_the_run(ovsops: Ovsops, tmp_path: Path) -> None:
    out = write_made_run(tmp_path / "run", num_shards=1, images_per_shard=3)
    code, said, _ = ovsops("report", out)
    assert code == 0
    assert said.startswith(f"report: {out}/report.html (0.")
    assert (out / "report.html").read_text("utf-8").startswith("<!doctype html>")
    assert ovsops("status", out)[0] in (0, 1), "the page is no part of the labels"


def test_another_place_and_a_smaller_page(ovsops: Ovsops, tmp_path: Path) -> None:
    out = write_made_run(tmp_path / "run", num_shards=1, images_per_shard=3)
    target = tmp_path / "pages" / "night.html"
    code, said, _ = ovsops("report", out, "--out", target, "--max-mb", "0.6", "--images", "1", "--seed", "4")
    assert code == 0
    assert str(target) in said
    assert "1 of 3 labelled images" in target.read_text("utf-8")


def test_mistakes_say_the_way_out(ovsops: Ovsops, tmp_path: Path) -> None:
    code, _, said = ovsops("report", tmp_path)
    assert (code, "no run of ovsops wrote there" in said) == (2, True)
    out = write_made_run(tmp_path / "run", num_shards=1, images_per_shard=1)
    code, _, said = ovsops("report", out, "--out", tmp_path)
    assert (code, "is a folder; name the file to write" in said) == (2, True)
    code, _, said = ovsops("report", out, "--beside", tmp_path / "nothing")
    assert (code, "there is no such folder" in said) == (2, True)
    (out / "run.json").write_text(json.dumps({"recipe": {}}))
    code, _, said = ovsops("report", out)
    assert (code, "no output of the label job" in said) == (5, True)
