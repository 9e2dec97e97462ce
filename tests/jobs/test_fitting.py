"""Whose boxes a fit learns from: drawn scenes by any names, a COCO file; files that do not fit are refused."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from jobs.fitting import Fit, fit_truth, print_fit, true_boxes
from jobs.label_recipe import is_setting
from jobs.truth_recipe import CocoInstancesTruthConfig, WorldTruthConfig
from ovsops.annotators.config import ExpertConfig
from ovsops.annotators.fit_support import FitSupport
from ovsops.annotators.fitting import FittedExpert
from ovsops.backbones.checkpoint import Checkpoint
from ovsops.errors import ConfigError, RowError
from ovsops.miniature.samples import scene_truth
from ovsops.miniature.scene import draw_scene
from ovsops.regions.calibration import ScoreCalibrator, ScoreMap
from ovsops.regions.tuning import Tuned
from ovsops.text.vocabulary import Vocabulary
from ovsops.training.box_quality import box_scenes, colour_noun_vocabulary
from ovsops.training.shipping import world_vocabulary
from pipelines.evaluation.labelled import LabelledImage
from pipelines.storage import StorageOptions

ANIMALS = Vocabulary.from_mapping(
    {
        "name": "animals",
        "languages": ["en"],
        "templates": {"en": "plain"},
        "classes": [{"id": 17, "name": "dog"}, {"id": 3, "name": "cat"}],
    }
)


def image(key: str, *, sidecar: str | None = None, size_hw: tuple[int, int] = (40, 60)) -> LabelledImage:
    return LabelledImage(
        image_uid="",
        shard="val.tar",
        index=0,
        key=key,
        sha256=None,
        size_hw=size_hw,
        sidecar=sidecar,
        status="",
        error="",
        regions=(),
    )


def recipe(truth: WorldTruthConfig | CocoInstancesTruthConfig) -> Any:
    return SimpleNamespace(truth=truth, storage=StorageOptions())


def write_coco(folder: Path, **of_image: Any) -> CocoInstancesTruthConfig:
    """A cat, a single dog and a crowd of dogs."""
    square = [10.0, 10, 20, 10, 20, 20, 10, 20]
    crowd = {"size": [40, 60], "counts": [0, 400, 2000]}
    whole = {"image_id": 7, "iscrowd": 0}
    document = {
        "images": [{"id": 7, "file_name": "val/one.jpg", "height": 40, "width": 60, **of_image}],
        "categories": [
            {"id": i, "name": name, "synonyms": [name], "frequency": "f"}
            for i, name in ((3, "cat"), (17, "dog"))
        ],
        "annotations": [
            whole
            | {"id": 1, "category_id": 3, "bbox": [10, 10, 10, 10], "area": 100, "segmentation": [square]},
            whole
            | {"id": 2, "category_id": 17, "bbox": [10, 10, 10, 10], "area": 100, "segmentation": [square]},
            whole
            | {
                "id": 3,
                "category_id": 17,
                "bbox": [0, 0, 10, 40],
                "area": 400,
                "segmentation": crowd,
                "iscrowd": 1,
            },
        ],
    }
    (folder / "instances.json").write_text(json.dumps(document), "utf-8")
    return CocoInstancesTruthConfig(annotations=str(folder / "instances.json"))


def test_a_coco_file_gives_boxes_by_name_of_the_image_and_labels_of_the_vocabulary(tmp_path: Path) -> None:
    truth = fit_truth(recipe(write_coco(tmp_path)), ANIMALS)
    found = true_boxes(truth, image("a/one"), ANIMALS)
    assert found.boxes_xyxy.tolist() == [[10, 10, 20, 20]] * 2
    assert found.labels.tolist() == [1, 0], "places in the vocabulary; the crowd is no object"
    with pytest.raises(RowError, match="has no image 'two'"):
        true_boxes(truth, image("two"), ANIMALS)


def test_a_file_of_other_classes_and_one_that_marks_only_some_are_refused(tmp_path: Path) -> None:
    other = Vocabulary.from_mapping({**ANIMALS.to_mapping(), "classes": [{"id": 3, "name": "cow"}]})
    with pytest.raises(ConfigError, match="id 3 is 'cow' in the run and 'cat' in the truth"):
        fit_truth(recipe(write_coco(tmp_path)), other)
    some = write_coco(tmp_path, neg_category_ids=[], not_exhaustive_category_ids=[])
    document = json.loads(Path(some.annotations).read_text("utf-8"))
    document["annotations"] = document["annotations"][:2]
    Path(some.annotations).write_text(json.dumps(document), "utf-8")
    with pytest.raises(ConfigError, match="marks only some classes in each image"):
        fit_truth(recipe(some), ANIMALS)


@pytest.mark.parametrize(
    "vocabulary", [world_vocabulary(), colour_noun_vocabulary()], ids=["nouns", "colours"]
)
def test_drawn_scenes_have_the_boxes_that_they_are_measured_by(vocabulary: Vocabulary) -> None:
    truth = fit_truth(recipe(WorldTruthConfig()), vocabulary)
    for seed in range(200_000, 200_004):
        scene = draw_scene(seed)
        [measured] = box_scenes([scene], vocabulary)
        seen = image("x", sidecar=json.dumps(scene_truth(scene)), size_hw=scene.image.shape[:2])  # type: ignore[arg-type]
        found = true_boxes(truth, seen, vocabulary)
        assert torch.equal(found.boxes_xyxy, measured.truth.boxes_xyxy)
        assert torch.equal(found.labels, measured.truth.labels)
    assert np.isfinite(found.boxes_xyxy.numpy()).all()


def test_what_a_fit_learns_from_decides_no_label() -> None:
    assert is_setting("truth.annotations")
    assert is_setting("truth.kind")


def fitted(support: FitSupport) -> Fit:
    line = ScoreMap(scores=(0.0, 1.0), chances=(0.0, 1.0), num_samples=60)
    expert = FittedExpert(
        config=ExpertConfig(fgclip2=Checkpoint(source="nowhere")),
        tuned=Tuned(config=None, precision=0.5, detector_precision=0.5, tried=()),
        verdict=None,
    )
    calibrator = ScoreCalibrator(
        fingerprint="these models", kind="isotonic", source="truth", pooled=line, by_group={}
    )
    return Fit(
        expert=expert,
        calibrator=calibrator,
        num_images=support.num_images,
        num_skipped={},
        error_before=0.2,
        error_after=0.1,
        support=support,
    )


def test_a_fit_on_little_says_so_in_its_file_and_at_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    little = FitSupport(num_images=12, boxes_of_group={"animal": 30}, without_map=frozenset())
    found = fitted(little)
    plain = json.loads(json.dumps(found.as_plain()))
    assert plain["true_boxes"] == {"animal": 30}
    assert plain["warnings"] == list(little.warnings())
    assert len(plain["warnings"]) == 2
    print_fit(found, tmp_path, Console())
    said = capsys.readouterr().out
    for warning in plain["warnings"]:
        assert f"warning: {warning}\n" in said
    enough = replace(
        found, support=FitSupport(num_images=400, boxes_of_group={"animal": 900}, without_map=frozenset())
    )
    assert enough.as_plain()["warnings"] == []
    print_fit(enough, tmp_path, Console())
    assert "warning" not in capsys.readouterr().out
