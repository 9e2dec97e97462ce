"""Few images and few true boxes are told, with numbers; enough of both is silence."""

import numpy as np
import pytest
import torch

from ovsops.annotators.calibrated import class_groups, group_names
from ovsops.annotators.fit_support import ADVISED_BOXES, ADVISED_IMAGES, FitSupport, fit_support
from ovsops.annotators.fitting import Observed, TrueBoxes
from ovsops.regions.calibration import ScoreCalibrator, ScoreMap
from ovsops.text.vocabulary import Vocabulary
from tests.ovsops.annotators.test_fitting import observations

VOCABULARY = Vocabulary.from_mapping(
    {
        "name": "street",
        "languages": ["en"],
        "templates": {"en": "plain"},
        "classes": [
            {"id": 1, "name": "van", "group": "vehicle"},
            {"id": 2, "name": "road", "kind": "stuff"},
            {"id": 3, "name": "dog", "group": "animal"},
            {"id": 4, "name": "cat", "group": "animal"},
            {"id": 5, "name": "lamp"},
        ],
    }
)
MAP = ScoreMap(scores=(0.0, 1.0), chances=(0.0, 1.0), num_samples=60)


def calibrator(*groups: str) -> ScoreCalibrator:
    """With maps of these groups."""
    places = {group_names(VOCABULARY).index(group): MAP for group in groups}
    return ScoreCalibrator(fingerprint="", kind="isotonic", source="truth", pooled=MAP, by_group=places)


def with_labels(*labels: int) -> Observed:
    [made] = observations(1, knows=0.1)
    truth = TrueBoxes(boxes_xyxy=torch.zeros(len(labels), 4), labels=torch.tensor(labels, dtype=torch.int64))
    return Observed(found=made.found, look=made.look, truth=truth)


def support(num_images: int = ADVISED_IMAGES, **boxes: int) -> FitSupport:
    return FitSupport(num_images=num_images, boxes_of_group=boxes, without_map=frozenset())


def test_groups_have_names_in_the_order_of_their_places() -> None:
    assert group_names(VOCABULARY) == ("animal", "stuff", "thing", "vehicle")
    np.testing.assert_array_equal(class_groups(VOCABULARY), [3, 1, 0, 0, 2])


def test_true_boxes_are_counted_by_group_of_things() -> None:
    seen = [with_labels(0, 2, 3), with_labels(), with_labels(3)]
    found = fit_support(seen, VOCABULARY, calibrator("animal"))
    assert found.num_images == 3
    assert found.boxes_of_group == {"animal": 3, "thing": 0, "vehicle": 1}, "stuff has no boxes to fit on"
    assert found.without_map == {"thing", "vehicle"}


def test_what_is_little_is_told_with_numbers_and_what_follows() -> None:
    of_images, of_boxes = fit_support(
        [with_labels(0, 2, 3)] * 40, VOCABULARY, calibrator("animal")
    ).warnings()
    assert of_images.startswith("only 40 images, 100 or more are advised: ")
    assert (
        "the calibrated chances and the figures above come from half of them each and may be luck"
        in of_images
    )
    assert of_boxes.startswith(
        "few true boxes in 3 of 3 groups of classes (thing 0, vehicle 40, animal 80), 100 or more in each are advised"
    )
    assert "their calibrated chances are unsure (2 of 3 take the map of all groups)" in of_boxes


def test_enough_is_silence() -> None:
    assert support(animal=ADVISED_BOXES, vehicle=5000).warnings() == ()
    assert len(support(ADVISED_IMAGES - 1, animal=ADVISED_BOXES).warnings()) == 1
    [few] = support(animal=ADVISED_BOXES - 1, vehicle=5000).warnings()
    assert "in 1 of 2 groups of classes (animal 99), 100" in few
    assert "map of all" not in few


@pytest.mark.parametrize(("num_groups", "said"), [(5, "e 5), 100"), (7, "e 5 and 2 groups more), 100")])
def test_many_groups_are_told_by_the_poorest(num_groups: int, said: str) -> None:
    [few] = support(**dict(zip("gfedcba"[-num_groups:], range(num_groups, 0, -1), strict=True))).warnings()
    assert f"({', '.join(f'{group} {count}' for count, group in enumerate('abcd', 1))}, {said}" in few
