"""The evaluate job over instances whose answers are known: perfect, none, loose, wrong, overlapping."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovsops.annotators.annotation import ImagePresence
from ovsops.errors import ConfigError
from ovsops.masks.rle import mask_to_rle, rle_area, rle_box_xywh
from ovsops.metrics.bootstrap import BootstrapConfig
from ovsops.miniature.attributes import CLASS_IDS, NOUN_WORDS
from ovsops.miniature.scene import draw_scene
from pipelines.evaluate import EvaluatedRun, EvaluateJob, run_evaluate
from pipelines.evaluation.coco_truth import CocoInstancesTruth
from pipelines.evaluation.object_counts import ObjectsConfig
from pipelines.evaluation.pictures import ImageSource, PicturesConfig
from pipelines.evaluation.truths import WorldTruth
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.storage import open_storage
from pipelines.truth.coco_instances import CocoReading
from tests.tiny.world import SEEDS, SMALL, label_world, write_world
from tests.tiny.world_boxes import BoxAnswer, SceneAnswer, label_boxes

NUM_THINGS = 12
BALL = 0


def perfect(answer: SceneAnswer) -> SceneAnswer:
    """All things, and a gate that knows which of them are there."""
    there = {thing.label for thing in answer.things}
    gate = ImagePresence(
        scores=tuple((label, 0.8 if label in there else 0.1) for label in range(NUM_THINGS)),
        verified_absent=tuple(label for label in range(NUM_THINGS) if label not in there),
    )
    return SceneAnswer(things=answer.things, presence=gate)


def nothing(answer: SceneAnswer) -> SceneAnswer:
    return SceneAnswer(things=())


def misnamed(answer: SceneAnswer) -> SceneAnswer:
    return SceneAnswer(
        things=tuple(replace(thing, label=(thing.label + 1) % NUM_THINGS) for thing in answer.things)
    )


def overlapping(answer: SceneAnswer) -> SceneAnswer:
    """The true things, and a ball of low score over the upper left quarter of the picture."""
    quarter = np.zeros((48, 48), bool)
    quarter[:24, :24] = True
    ball = replace(
        answer.things[0], label=BALL, box_xyxy=(0.0, 0.0, 24.0, 24.0), mask=mask_to_rle(quarter), score=0.2
    )
    return SceneAnswer(things=(*answer.things, ball))


BOXES: dict[str, BoxAnswer] = {
    "perfect": perfect,
    "nothing": nothing,
    "misnamed": misnamed,
    "overlapping": overlapping,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards in `in`, a run for each answer, and one of a segmenter that is right about every pixel."""
    folder = tmp_path_factory.mktemp("boxes")
    write_world(folder / "in")
    for name, answer in BOXES.items():
        label_boxes(folder / "in", folder / name, answer)
    label_world(folder / "in", folder / "map", lambda truth: truth)
    label_world(folder / "in", folder / "stuff", lambda truth: np.where(truth > NUM_THINGS, truth, 0))
    return folder


Evaluate = Callable[..., tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture
def evaluate(world: Path, tmp_path: Path) -> Evaluate:
    """Summary and `metrics.json` of runs."""

    def run(*names: str, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        source = ImageSource(shards=tuple(expand_inputs([str(world / "in" / "*.tar")])))
        fields: dict[str, Any] = {
            "output": str(tmp_path / "e"),
            "runs": {n: EvaluatedRun(storage=open_storage(str(world / n)), source=source) for n in names},
            "truth": WorldTruth(),
            "manifest": {
                "schema_version": SCHEMA_VERSION,
                "recipe": {"runs": list(names)},
                "recipe_hash": "h",
            },
            "pictures": PicturesConfig(first=0, worst=0),
            "bootstrap": BootstrapConfig(num_resamples=60),
        }
        summary = run_evaluate(EvaluateJob(**fields | changes))
        return summary, json.loads((tmp_path / "e" / "metrics.json").read_text())

    return run


def figures(metrics: dict[str, Any], run: str) -> dict[str, float | None]:
    return {name: found["value"] for name, found in metrics["runs"][run]["objects"]["figures"].items()}


def test_a_perfect_detector_scores_one_everywhere(evaluate: Evaluate) -> None:
    _, metrics = evaluate("perfect")
    found = figures(metrics, "perfect")
    assert found.pop("cg_f1") == pytest.approx(100)
    assert found.pop("instance_ece") == pytest.approx(0.1, abs=1e-6)
    assert found.pop("instance_ece_calibrated") is None
    large = {name for name in found if name.endswith("_large")}
    assert {found.pop(name) for name in large} == {None}, "48 pixels hold no large object"
    assert all(value in (None, pytest.approx(1.0)) for value in found.values()), found
    assert found["box_ap"] == found["mask_ap"] == 1.0
    assert found["presence_il_mcc"] == pytest.approx(1.0)
    classes = metrics["runs"]["perfect"]["objects"]["classes"]
    assert sum(each["true"] for each in classes) == sum(each["found"] for each in classes) > 0
    assert all(each["box_ap"]["value"] in (None, 1.0) for each in classes)


def test_nothing_found_is_zero_where_it_is_asked_for(evaluate: Evaluate) -> None:
    _, metrics = evaluate("nothing", objects=ObjectsConfig(compute="on"))
    found = figures(metrics, "nothing")
    assert found["box_ap"] == found["mask_ap"] == found["agnostic_ap50"] == found["pm_f1"] == 0
    assert found["instance_ece"] is None


def test_wrong_names_cost_the_named_figures_alone(evaluate: Evaluate) -> None:
    summary, metrics = evaluate("perfect", "misnamed")
    found = figures(metrics, "misnamed")
    assert found["agnostic_ap50"] == found["agnostic_ar100"] == 1.0
    assert found["box_ap50"] < 0.2
    difference = metrics["object_differences_to_first"]["misnamed"]
    assert difference["agnostic_ap50"] == {"value": 0, "low": 0, "high": 0}
    assert difference["box_ap50"]["value"] == pytest.approx(found["box_ap50"] - 1)
    assert (
        difference["box_ap50"]["low"] <= difference["box_ap50"]["value"] <= difference["box_ap50"]["high"] < 0
    )
    assert summary["instances"]["figures"]["misnamed"]["agnostic_ap50"]["value"] == 1.0


def test_overlapping_instances_are_painted_by_score_and_said_to_be(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    _, metrics = evaluate("perfect", "overlapping")
    runs = metrics["runs"]
    assert runs["perfect"]["contested_pixels"] == 0
    assert runs["overlapping"]["contested_pixels"] > 0
    for name in ("star", "fish", "key"):  # things keep their pixels: the ball's score is lower
        one, two = (
            next(c for c in runs[run]["classes"] if c["name"] == name)["accuracy"]["value"]
            for run in ("perfect", "overlapping")
        )
        assert one == two
    text = (tmp_path / "e" / "metrics.md").read_text()
    assert "of those with a label) lie in more than one region" in text


def test_runs_of_maps_stand_in_the_same_table(evaluate: Evaluate, tmp_path: Path) -> None:
    _, metrics = evaluate("map", "perfect", pictures=PicturesConfig(first=1, worst=0))
    found = figures(metrics, "map")
    assert 0.3 < found["box_ap"] <= 1.0
    assert found["detector_box_ap"] is None, "no detector drew a box"
    assert "detector_box_ap" in metrics["object_differences_to_first"]["perfect"]
    page = (tmp_path / "e" / "index.html").read_text()
    for text in ("<h2>Instances</h2>", "AP, boxes", "AP, masks", "cgF1", "Instances by class", "dashed"):
        assert text in page, text
    assert (tmp_path / "e" / "plots" / "instance-reliability.png").exists()


def test_boxes_over_pictures(evaluate: Evaluate, tmp_path: Path) -> None:
    evaluate("misnamed", pictures=PicturesConfig(first=1, worst=0), objects=ObjectsConfig(compute="off"))
    (plain,) = (tmp_path / "e" / "pictures").iterdir()
    without = np.asarray(Image.open(plain))
    evaluate("misnamed", pictures=PicturesConfig(first=1, worst=0))
    assert (np.asarray(Image.open(plain)) != without).any()


class MapTruth(WorldTruth):
    """A truth that tells no objects apart."""

    has_objects = False


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"objects": ObjectsConfig(compute="off")}, "the recipe says so"),
        ({"truth": MapTruth()}, "a map of classes, which does not tell objects apart"),
    ],
)
def test_what_is_left_out_is_said(
    evaluate: Evaluate, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    summary, metrics = evaluate("perfect", **changes)
    assert why in summary["instances"]["left_out"]
    assert why in metrics["objects"]["left_out"]
    assert metrics["runs"]["perfect"]["objects"] is None
    for file in ("index.html", "metrics.md"):
        assert why in (tmp_path / "e" / file).read_text()


def test_a_run_of_stuff_alone_has_no_instances(evaluate: Evaluate) -> None:
    summary, _ = evaluate("stuff")
    assert summary["instances"]["left_out"] == "no run has an instance of a thing"


def test_objects_that_must_be_and_are_not(evaluate: Evaluate) -> None:
    with pytest.raises(ConfigError, match=r"objects\.compute is on, but the truth world is a map"):
        evaluate("perfect", truth=MapTruth(), objects=ObjectsConfig(compute="on"))
    with pytest.raises(ConfigError, match=r"more than objects\.max_found = 3; raise it"):
        evaluate("perfect", objects=ObjectsConfig(max_found=3))


def test_boxes_alone(evaluate: Evaluate) -> None:
    _, metrics = evaluate("perfect", objects=ObjectsConfig(compute="boxes"))
    found = figures(metrics, "perfect")
    assert (found["box_ap"], found["mask_ap"]) == (1.0, None)


def coco_document() -> dict[str, Any]:
    """The scenes as a COCO file."""
    annotations: list[dict[str, Any]] = []
    for seed in SEEDS:
        scene = draw_scene(seed, SMALL)
        for number, thing in enumerate(scene.things, 1):
            rle = mask_to_rle(scene.instances == number)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": seed,
                    "category_id": CLASS_IDS[thing.noun],
                    "bbox": list(rle_box_xywh(rle)),
                    "area": rle_area(rle),
                    "iscrowd": 0,
                    "segmentation": rle.to_coco(),
                }
            )
    return {
        "images": [{"id": s, "file_name": f"val/{s:08d}.png", "height": 48, "width": 48} for s in SEEDS],
        "categories": [
            {"id": i, "name": name, "isthing": int(name in NOUN_WORDS)} for name, i in CLASS_IDS.items()
        ],
        "annotations": annotations,
    }


def test_a_coco_file_of_the_scenes_gives_the_figures_of_the_scenes(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    (tmp_path / "instances.json").write_text(json.dumps(coco_document()))
    truth = CocoInstancesTruth.open(tmp_path / "instances.json", CocoReading())
    _, of_file = evaluate("misnamed", "overlapping", truth=truth)
    _, of_scenes = evaluate("misnamed", "overlapping")
    for run in ("misnamed", "overlapping"):
        assert of_file["runs"][run]["objects"] == of_scenes["runs"][run]["objects"]
    background = next(c for c in of_file["runs"]["misnamed"]["classes"] if c["id"] == 0)
    assert (background["name"], background["true_pixels"] > 0) == ("background", True)


def test_images_that_the_file_does_not_list_are_not_counted(evaluate: Evaluate, tmp_path: Path) -> None:
    document = coco_document()
    document["images"][0] |= {"height": 40}
    document["images"][1] |= {"file_name": "other.png"}
    (tmp_path / "instances.json").write_text(json.dumps(document))
    truth = CocoInstancesTruth.open(tmp_path / "instances.json", CocoReading())
    summary, metrics = evaluate("perfect", truth=truth)
    assert summary["images"]["without_truth"] == 2
    reasons = " ".join(metrics["images_without_truth"]["named"].values())
    assert f"instances.json has no image '{SEEDS[1]:08d}'" in reasons
    assert "instances.json says 40x48 pixels (h x w), the labelled image has 48x48" in reasons
    assert figures(metrics, "perfect")["box_ap"] == 1.0
