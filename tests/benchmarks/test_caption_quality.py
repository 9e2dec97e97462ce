"""Figures of captions by hand, and the whole benchmark on a checkpoint that knows nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.caption_quality import main, share
from ovsops.backbones.untrained_fgclip2 import write_untrained_fgclip2


def test_shares_by_hand() -> None:
    states = np.array([[4, 2, 1, 2], [4, 2, 0, 2]])
    assert share(states, 1, 0) == {"value": 0.5, "low": 0.5, "high": 0.5}
    of_said = share(states, 2, 1)
    assert of_said is not None
    assert of_said["value"] == 0.25
    assert share(states * 0, 2, 1) is None
    assert share(states * [1, 0, 0, 1], 1, 0) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_who_knows_nothing_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_untrained_fgclip2(tmp_path / "fgclip2")
    figures = tmp_path / "figures.json"
    words = ["--checkpoint", str(folder), "--tune", "8", "--scenes", "5", "--json", str(figures)]
    assert main(words) == 0
    rows = json.loads(figures.read_text("utf-8"), parse_constant=pytest.fail)
    assert {row["said"]["value"] for row in rows if row["captions"] == "fitted"} == {0.0}
    guessed = [row for row in rows if row["captions"] == "no margin" and row["type"] == "colour"]
    assert all(row["wrong of said"]["value"] > 0.5 for row in guessed)
    silent = [row for row in rows if row["said"]["value"] == 0]
    assert {row["wrong of said"] for row in silent} == {None}
    said = capsys.readouterr().out
    assert "| fitted | zh | colour |" in said
    assert said.count("| none said |") == len(silent) > 0
    assert "nan" not in said
    assert "margin 3: never said, as on the " in said


def test_a_checkpoint_that_is_not_there_is_skipped_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--checkpoint", "miniature:nothing"]) == 0
    assert "skipped: there is no miniature checkpoint 'nothing'" in capsys.readouterr().out
