"""The evaluate job by its recipe and command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.evaluate_recipe import CocoInstancesTruthConfig, EvaluateRecipe, is_evaluate_setting
from jobs.recipe import load_recipe, recipe_from_plain, recipe_schema
from ovsops.errors import ConfigError
from pipelines.evaluation.object_counts import ObjectsConfig
from tests.jobs.conftest import plain_recipe
from tests.tiny.world import SEEDS, write_world

Command = Callable[..., tuple[int, str, str]]


def plain(**changes: Any) -> dict[str, Any]:
    return {"job": "evaluate", "labels": "run", "truth": {"kind": "world"}, "output": "e"} | changes


def recipe(**changes: Any) -> EvaluateRecipe:
    made = recipe_from_plain(plain(**changes), where="recipe r")
    assert isinstance(made, EvaluateRecipe)
    return made


def test_one_word_says_what_is_computed_of_objects() -> None:
    assert recipe().objects.compute == "auto"
    assert recipe(objects="boxes").objects.compute == "boxes"
    assert recipe(objects=False).objects.compute == "off", "YAML reads off as false"
    assert recipe(objects={"compute": True, "min_score": 0.5}).objects == ObjectsConfig(
        compute="on", min_score=0.5
    )
    made = recipe(truth={"kind": "coco_instances", "annotations": "a.json"})
    assert made.truth == CocoInstancesTruthConfig(annotations="a.json")


def test_one_run_needs_no_name_and_several_keep_their_order() -> None:
    assert recipe().labels == {"labels": "run"}
    assert list(recipe(labels={"b": "x", "a": "y"}).labels) == ["b", "a"]
    assert recipe(truth={"kind": "world", "shards": "t/*.tar"}).truth.shards == ("t/*.tar",)


@pytest.mark.parametrize(
    ("truth", "benchmark"),
    [
        ({"kind": "voc2012"}, "voc_21"),
        ({"kind": "voc2012", "background": False}, "voc_20"),
        ({"kind": "context"}, "context_60"),
        ({"kind": "context", "background": False}, "context_59"),
        ({"kind": "coco_stuff"}, "coco_stuff_171"),
        ({"kind": "coco_object"}, "coco_object_81"),
        ({"kind": "ade20k"}, "ade20k_150"),
        ({"kind": "cityscapes"}, "cityscapes_19"),
    ],
)
def test_every_published_truth_has_its_evaluation(truth: dict[str, Any], benchmark: str) -> None:
    assert recipe(truth=truth | {"root": "d"}).truth.benchmark == benchmark


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"truth": {"kind": "vok2012", "root": "d"}}, "did you mean 'voc2012'"),
        ({"truth": {"kind": "voc2012"}}, "root is missing"),
        ({"truth": {"kind": "world", "rot": "d"}}, "truth.rot is not a known field"),
        ({"labels": {}}, "labels is empty"),
        ({"labels": {"a/b": "x"}}, "a run's name becomes a file name"),
        ({"counts": {"grid": 0}}, "counts.grid is 0"),
        ({"objects": "boxs"}, "objects.compute is 'boxs'|objects.compute"),
        ({"objects": {"min_scor": 0}}, "did you mean 'min_score'"),
        ({"truth": {"kind": "coco_instances"}}, "annotations is missing"),
        ({"lables": "x"}, "did you mean 'labels'"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**changes)


def test_what_decides_figures_and_what_does_not() -> None:
    for path in (
        "labels.a",
        "output",
        "title",
        "pictures.worst",
        "truth.root",
        "truth.shards",
        "truth.annotations",
        "objects.max_found",
        "limits.x",
    ):
        assert is_evaluate_setting(path), path
    for path in (
        "truth.kind",
        "truth.split",
        "truth.background",
        "counts.grid",
        "objects.compute",
        "objects.min_score",
        "bootstrap.seed",
        "decode.max_side",
    ):
        assert not is_evaluate_setting(path), path


def test_the_schema_describes_every_truth() -> None:
    schema = recipe_schema("evaluate")
    assert {"WorldTruthConfig", "VocTruthConfig", "CityscapesTruthConfig"} <= set(schema["$defs"])
    assert schema["additionalProperties"] is False


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "in", SEEDS[:2])
    return folder


def test_a_run_is_scored_by_its_recipe(
    world: Path, checkpoints: Path, tmp_path: Path, ovsops: Command
) -> None:
    changes = {"input": {"shards": str(world / "in")}, "output": str(tmp_path / "run")}
    label = tmp_path / "label.yaml"
    label.write_text(yaml.safe_dump(plain_recipe(world, checkpoints, vocabulary="world", **changes)))
    assert ovsops("run", label, "--engine", "inline")[0] == 0
    path = tmp_path / "e.yaml"
    path.write_text(
        yaml.safe_dump(
            plain(labels=str(tmp_path / "run"), output=str(tmp_path / "e"), bootstrap={"num_resamples": 50})
        )
    )
    code, _, err = ovsops("run", path)
    assert code == 0, err
    assert "mIoU, all classes" in err
    assert f"{tmp_path / 'e'}/index.html" in err
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    manifest = json.loads((tmp_path / "e" / "run.json").read_text())
    labels = json.loads((tmp_path / "run" / "run.json").read_text())
    assert metrics["recipe_hash"] == manifest["recipe_hash"]
    assert metrics["command"] == f"ovsops run {path}"
    assert metrics["labelled_runs"]["labels"]["recipe_hash"] == labels["recipe_hash"]
    assert len(list((tmp_path / "e" / "pictures").iterdir())) == 2
    assert ovsops("run", path)[0] == 0  # again: the same recipe may write the same figures
    code, _, err = ovsops("run", path, "--set", "bootstrap.seed=1")
    assert (code, "bootstrap.seed: 0 -> 1" in err) == (5, True)
    code, _, err = ovsops(
        "run", path, "--set", f"output={tmp_path / 'f'}", "--set", f"labels={tmp_path / 'nowhere'}"
    )
    assert code == 2
    assert f"labels.labels: {tmp_path / 'nowhere'} holds no run.json" in err
    assert not (tmp_path / "f").exists()
    code, _, err = ovsops(
        "run", path, "--set", f"output={tmp_path / 'f'}", "--set", f"labels={tmp_path / 'e'}"
    )
    assert (code, "it was not written by a label job" in err) == (2, True)


def test_another_vocabulary_is_a_usage_error(
    write_recipe: Callable[..., Path], tmp_path: Path, ovsops: Command
) -> None:
    assert ovsops("run", write_recipe(), "--engine", "inline")[0] == 0
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(plain(labels=str(tmp_path / "out"), output=str(tmp_path / "e"))))
    code, _, err = ovsops("run", path)
    assert code == 2
    assert "id 1 is 'red thing' in the run and 'ball' in the truth" in err
    assert not (tmp_path / "e").exists()


def test_the_shipped_recipe_names_its_fields() -> None:
    path = Path(__file__).parents[2] / "jobs" / "recipes" / "evaluate_miniature.yaml"
    loaded = load_recipe(path)
    assert isinstance(loaded.recipe, EvaluateRecipe)
    assert loaded.recipe.counts.grid == 16
    assert loaded.recipe.objects == ObjectsConfig()
