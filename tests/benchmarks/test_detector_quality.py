"""The table of a detector, and what is said of a retraining."""

from pathlib import Path

import pytest

from benchmarks import detector_quality
from benchmarks.detector_quality import detector_table, main
from ovsops.backbones.miniature import miniature_llmdet, save_half, write_bert_tokenizer
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.words import WORDS
from ovsops.training.scenes import SceneBank, bank_of


def test_every_figure_of_random_weights_is_near_zero(tmp_path: Path) -> None:
    save_half(miniature_llmdet(WORDS, seed=0), tmp_path)
    write_bert_tokenizer(tmp_path, WORDS)
    rows = detector_table(str(tmp_path), bank_of(draw_scene(seed) for seed in (900_000, 900_001)))
    assert [row["boxes"] for row in rows] == [
        "named, en",
        "class-agnostic, en",
        "named, zh",
        "class-agnostic, zh",
    ]
    for row in rows:
        assert {"AP", "AP50", "AP75", "AP medium", "AR"} < row.keys()
        assert row["AP"]["low"] <= row["AP"]["value"] <= row["AP"]["high"] < 0.1


@pytest.mark.parametrize(("value", "code"), [(0.8, 0), (0.5, 1)])
def test_the_exit_code_says_whether_a_retraining_is_as_good(
    value: float,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def table(source: str, bank: SceneBank) -> list[dict[str, object]]:
        found = value if source == "other" else 0.8
        return [{"boxes": "named, en", "AP50": {"value": found, "low": found - 0.1, "high": found + 0.1}}]

    monkeypatch.setattr(detector_quality, "detector_table", table)
    assert main(["--against", "other", "--scenes", "1"]) == code
    said = capsys.readouterr().out
    assert f"other: {code} figures outside the interval of miniature:llmdet" in said
