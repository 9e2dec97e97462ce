"""The demo with checkpoints that know nothing, without Ray: the way is the same."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.demo import DemoConfig, label_recipe
from jobs.recipe import load_recipe
from ovsops.errors import ConfigError
from ovsops.miniature.splits import seeds_of
from ovsops.training.shipping import GEOMETRY

Command = Callable[..., tuple[int, str, str]]


def test_one_command_draws_labels_scores_and_reports(
    checkpoints: Path, tmp_path: Path, ovsops: Command
) -> None:
    out = tmp_path / "a folder, with: marks"
    words = ("demo", "--out", out, "--scenes", "2", "--checkpoints", checkpoints, "--engine", "inline")
    code, said, err = ovsops(*words)
    assert code == 0, err
    assert f"Scores: {out / 'report' / 'index.html'}" in said
    assert "<html" in (out / "run" / "report.html").read_text("utf-8")[:200]
    assert "over 2 held-out scenes" in said
    assert said.count("nothing of photographs") == 1
    assert said.startswith(f"ovsops demo into {out}: loading")
    metrics = json.loads((out / "report" / "metrics.json").read_text())
    value = metrics["runs"]["labels"]["figures"]["mean_iou"]["value"]
    assert f"mIoU {value:.3f} (95 % interval" in said
    assert value < 0.2  # untrained: about 1/20
    assert metrics["num_images"] == 2
    assert metrics["command"] == "ovsops demo --seed 0 --scenes 2"
    page = (out / "report" / "index.html").read_text()
    assert page.count("<figure>") == 4  # 2 first, 2 worst
    for text in (said, page, (out / "report" / "metrics.md").read_text()):
        assert "nothing of photographs" in text
    assert load_recipe(out / "label.yaml").recipe.output == str(out / "run")
    assert load_recipe(out / "evaluate.yaml").recipe.output == str(out / "report")
    keep = out / "mine.txt"
    keep.write_text("a user's own file")
    code, said, err = ovsops(*words, "--seed", "1")
    assert code == 0, err
    assert keep.exists()
    assert json.loads((out / "report" / "metrics.json").read_text())["command"].endswith(
        "--seed 1 --scenes 2"
    )


def test_fitted_constants_reach_the_recipe(checkpoints: Path, tmp_path: Path) -> None:
    shipped = tmp_path / "shipped"
    shipped.symlink_to(checkpoints)
    own = tmp_path / "own"
    own.mkdir()
    for part in checkpoints.iterdir():
        (own / part.name).symlink_to(part)
    (own / "calibration.json").write_text('{"alpha": 0.25, "siglip_scale": 3, "bias": -1.5}')
    segmenter = label_recipe(tmp_path, own).recipe.segmenter
    assert {name: getattr(segmenter, name) for name in GEOMETRY} == GEOMETRY
    assert (segmenter.alpha, segmenter.siglip_scale) == (0.25, 3.0)
    assert label_recipe(tmp_path, shipped).recipe.segmenter.alpha == 0.5


def test_a_folder_with_foreign_files_is_left_alone(
    checkpoints: Path, tmp_path: Path, ovsops: Command
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").touch()
    code, _, err = ovsops("demo", "--out", tmp_path, "--checkpoints", checkpoints, "--engine", "inline")
    assert code == 5
    assert "holds run that no `ovsops demo` wrote" in err
    assert (tmp_path / "run" / "precious").exists()


def test_missing_checkpoints_end_it_before_anything_is_written(tmp_path: Path, ovsops: Command) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = ovsops("demo", "--out", tmp_path / "out", "--checkpoints", tmp_path / "empty")
    assert code == 4
    assert "siglip2, dinov2, mapper not found" in err
    assert not (tmp_path / "out").exists()


def test_seeds_draw_other_held_out_scenes() -> None:
    runs = [DemoConfig(out=Path("o"), seed=seed, num_scenes=48).scene_seeds for seed in (0, 1, 2082)]
    assert all(seed in seeds_of("test") for seeds in runs for seed in seeds)
    assert len({seed for seeds in runs for seed in seeds}) == 3 * 48


@pytest.mark.parametrize(("seed", "scenes"), [(-1, 48), (2083, 48), (0, 0), (0, 100_001), (1, 100_000)])
def test_seeds_beyond_the_held_out_scenes_are_refused(seed: int, scenes: int) -> None:
    with pytest.raises(ConfigError, match="--s"):
        DemoConfig(out=Path("o"), seed=seed, num_scenes=scenes)
