"""Several segmenters on the same shards, in one table, by one command."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.compare import EVALUATION, MINIATURES, Comparison, main, run_name
from jobs.named_settings import RECIPES, named_segmenter
from ovsops.errors import ConfigError

FEW = ("clip_miniature", "cass_miniature", "fused_miniature")
WORDS = ("--scenes", "3", "--engine", "inline")


def few(tmp_path: Path) -> str:
    """An evaluate recipe with few resamples."""
    plain = yaml.safe_load((RECIPES / "evaluate_miniature.yaml").read_text())
    plain["bootstrap"]["num_resamples"] = 20
    plain["pictures"] = {"first": 0, "worst": 0}
    path = tmp_path / "evaluate.yaml"
    path.write_text(yaml.safe_dump(plain))
    return str(path)


def test_several_segmenters_stand_in_one_table(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a folder, with: marks"
    own = tmp_path / "own.yaml"
    own.write_text(
        "kind: clip\nclip: {source: 'miniature:clip'}\nshort_side: 128\nwindow: 128\nlast_block: values\n"
    )
    names = [*FEW, str(own)]
    words = ["--out", str(out), *WORDS, "--evaluate", few(tmp_path), "--segmenters", *names]
    assert main(words) == 0, capfd.readouterr().err
    metrics: dict[str, Any] = json.loads((out / EVALUATION / "metrics.json").read_text())
    assert list(metrics["runs"]) == [*FEW, "own"]
    assert metrics["num_images"] == 3
    values = {name: run["figures"]["mean_iou"]["value"] for name, run in metrics["runs"].items()}
    assert values["fused_miniature"] > values["clip_miniature"] > 0  # it was taught on patches
    kinds = [
        json.loads((out / name / "run.json").read_text())["recipe"]["segmenter"]["kind"]
        for name in metrics["runs"]
    ]
    assert kinds == ["clip", "cass", "fused", "clip"]
    capfd.readouterr()
    assert main(words) == 0  # goes on where it stopped: nothing is left to do
    assert "own" in capfd.readouterr().err
    assert main([*words[:2], "--scenes", "4"]) == 5
    assert "is not of 3 scenes" not in (said := capfd.readouterr().err)
    assert "is not of 4 scenes" in said


def test_what_cannot_run_ends_it_with_its_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), *WORDS, "--segmenters", "clip_miniatur"]) == 2
    assert "did you mean 'clip_miniature'" in capfd.readouterr().err
    assert not (tmp_path / EVALUATION).exists()
    assert main(["--out", str(tmp_path), *WORDS, "--segmenters", "sam3"]) == 4  # its licence


@pytest.mark.parametrize(
    "names", [("clip_miniature", "clip_miniature"), (), (EVALUATION,), ("a/x.yaml", "b/x.yaml")]
)
def test_names_that_cannot_be_told_apart_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="cannot be told apart"):
        Comparison(out=tmp_path, segmenters=names)
    assert run_name("settings/my own.yaml") == "my-own"


def test_what_is_compared_by_default_is_built_in() -> None:
    for name in MINIATURES:
        assert named_segmenter(name).mode == "corrected"


def test_more_scenes_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--scenes 0: give 1 to"):
        Comparison(out=tmp_path, num_scenes=0)
