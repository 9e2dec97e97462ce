"""The tables of FG-CLIP 2's figures, from a tiny model that knows nothing: all of them, and a judgement."""

import json
from pathlib import Path

import pytest

from benchmarks import fgclip2_quality
from ovsops.backbones.miniature import write_word_tokenizer
from ovsops.training.fgclip2_module import FgClip2Embedder
from ovsops.training.fgclip2_stage1 import FGCLIP2_WORDS
from tests.ovsops.training.fgclip2_world import tiny_model


def test_all_tables_of_two_checkpoints_and_a_judgement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_word_tokenizer(tmp_path / "words", FGCLIP2_WORDS)
    FgClip2Embedder(tiny_model(), tmp_path / "words", device="cpu").export(tmp_path / "tiny")
    place, told = str(tmp_path / "tiny"), tmp_path / "figures.json"
    words = ["--checkpoint", place, "--before", place, "--against", place, "--scenes", "6"]
    assert fgclip2_quality.main([*words, "--json", str(told)]) == 0
    tables = json.loads(told.read_text("utf-8"))
    assert [len(rows) for rows in tables.values()] == [4, 8, 4, 4]
    gain = [row for row in tables["hard negatives"] if row["weights"].startswith("gain")]
    assert [row["11-way"]["value"] for row in gain] == [0.0, 0.0]
    assert "0 figures outside the interval" in capsys.readouterr().out
