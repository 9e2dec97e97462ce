"""Counts of one image: numbers worked out by hand, and equality with the metrics they are made of."""

from typing import Any

import numpy as np
import pytest

from ovsops.errors import ConfigError, OutputError, ShapeError
from ovsops.masks.rle import mask_to_rle
from ovsops.metrics.calibration import PIXEL_UNIT, SAMPLE_UNIT, calibration_error
from ovsops.metrics.segmentation import ConfusionCounts, background_table, mean_iou
from pipelines.evaluation.blocks import Blocks
from pipelines.evaluation.classes import IGNORED, Classes, TruthClass
from pipelines.evaluation.counting import CountConfig, Counter
from pipelines.evaluation.labelled import LabelledImage

CLASSES = Classes(
    classes=(
        TruthClass(id=3, name="ball", kind="thing"),
        TruthClass(id=10, name="key", kind="thing"),
        TruthClass(id=700, name="sand", kind="stuff"),
        TruthClass(id=701, name="sky", kind="stuff"),
    ),
    has_background=False,
)


def image(labels: np.ndarray, *, scores: dict[int, float] | None = None, **changes: Any) -> LabelledImage:
    """A labelled image with one region an id."""
    regions = [
        {
            "instance_uid": f"r{i}",
            "category_id": i,
            "segmentation": mask_to_rle(labels == i).to_coco(),
            "score": (scores or {}).get(i, 0.5),
            "score_calibrated": None,
        }
        for i in np.unique(labels[labels > 0]).tolist()
    ]
    fields = {
        "image_uid": "u",
        "shard": "s.tar",
        "index": 0,
        "key": "k",
        "sha256": None,
        "size_hw": labels.shape,
        "sidecar": None,
        "status": "labelled",
        "error": "",
        "regions": tuple(regions),
    }
    return LabelledImage(**fields | changes)


def count(counter: Counter, labelled: LabelledImage, truth_ids: np.ndarray) -> dict[str, np.ndarray]:
    places = CLASSES.places(truth_ids)
    state = counter.count(labelled, places, counter.ceiling(places)).state
    return {name: counter.layout.part(state, name) for name in counter.layout.shapes}


def test_areas_and_the_merged_background_by_hand() -> None:
    truth = np.array([[3, 3, 700, 700], [3, 10, 701, 701]])
    predicted = np.array([[3, 700, 700, 701], [0, 10, 701, 3]])
    areas = count(Counter(CLASSES, CountConfig()), image(predicted), truth)["areas"]
    # places: nothing, ball, key, sand, sky, then sand + sky + nothing as one
    assert areas.tolist() == [
        [0, 1, 1, 1, 1, 3],  # (0,2) and (0,3) and (1,2) are background in both
        [0, 3, 1, 2, 2, 4],
        [1, 2, 1, 2, 2, 5],
    ]


def test_the_merged_background_is_that_of_remapped_labels() -> None:
    rng = np.random.default_rng(0)
    ids = np.array([3, 10, 700, 701])
    truth, predicted = ids[rng.integers(0, 4, (20, 30))], np.array([0, *ids])[rng.integers(0, 5, (20, 30))]
    areas = count(Counter(CLASSES, CountConfig()), image(predicted), truth)["areas"]
    table = background_table(5, (1, 2))
    expected = ConfusionCounts.zeros(3).update(
        table[CLASSES.places(truth)],
        table[CLASSES.places(predicted)],
    )
    assert areas[:, [5, 1, 2]].tolist() == expected.areas.tolist()
    assert mean_iou(areas, (1, 2, 5)) == pytest.approx(expected.compute().mean_iou)


def test_scores_by_hand_and_as_the_metric_has_them() -> None:
    truth = np.array([[3, 3, 3, 700], [700, 700, 10, 10]])
    predicted = np.array([[3, 3, 10, 10], [10, 700, 700, 10]])
    scores = {3: 0.95, 10: 0.41, 700: 0.2}
    counter = Counter(CLASSES, CountConfig(num_bins=10))
    counts = count(counter, image(predicted, scores=scores), truth)
    table, by_area = counts["scores"], counts["by_area"]
    # ball is right; key covers ball, sand, sand, key: sand has most; sand covers sand and key: a tie, the lower place
    assert table[0].tolist() == [0, 0, 1, 0, 1, 0, 0, 0, 0, 1]
    assert table[2].tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert table[1].sum() == sum(round(score * SAMPLE_UNIT) for score in scores.values())
    assert calibration_error(table) == pytest.approx((0.05 + 0.41 + 0.2) / 3)
    # 2, 4 and 2 pixels
    assert by_area[0].tolist() == [0, 0, 2, 0, 4, 0, 0, 0, 0, 2]
    assert by_area[2].tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    by_hand = (2 * 0.05 + 4 * 0.41 + 2 * 0.2) / 8
    assert calibration_error(by_area, unit=PIXEL_UNIT) == pytest.approx(by_hand, abs=1e-5)


def test_an_image_without_labels_is_wrong_everywhere() -> None:
    truth = np.full((4, 5), 700)
    empty = image(np.zeros((4, 5), int), status="failed", error="E_MAGIC: no image", size_hw=None, regions=())
    counts = count(Counter(CLASSES, CountConfig()), empty, truth)
    assert counts["areas"].tolist() == [[0, 0, 0, 0, 0, 20], [0, 0, 0, 20, 0, 20], [20, 0, 0, 0, 0, 20]]
    assert counts["scores"].sum() == 0


def test_ignored_pixels_count_nowhere() -> None:
    counter = Counter(CLASSES, CountConfig(grid=2))
    truth = CLASSES.places(np.array([[3, 255], [255, 255]]), ignore=255)
    assert truth.tolist() == [[1, IGNORED], [IGNORED, IGNORED]]
    labelled = image(np.array([[3, 10], [10, 10]]))
    counts = counter.count(labelled, truth, counter.ceiling(truth))
    assert counts.confusion.sum() == 1
    assert counter.layout.part(counts.state, "scores")[0].sum() == 1  # nothing is known of the key


def test_the_ceiling_of_a_grid_of_pixels_is_perfect() -> None:
    truth = np.array([[3, 3, 700, 700], [3, 10, 701, 701], [3, 3, 3, 3], [3, 3, 3, 3]])
    counts = count(Counter(CLASSES, CountConfig(grid=4)), image(truth), truth)
    assert mean_iou(counts["hard"], CLASSES.counted) == 1
    coarse = count(Counter(CLASSES, CountConfig(grid=1)), image(truth), truth)["hard"]
    assert coarse[0].tolist() == [0, 11, 0, 0, 0, 0]  # one patch: all of it is ball


def test_regions_that_overlap_or_have_another_size_are_refused() -> None:
    labelled = image(np.full((4, 4), 3))
    twice = image(np.full((4, 4), 3), regions=labelled.regions * 2)
    counter, truth = Counter(CLASSES, CountConfig()), np.full((4, 4), 3)
    with pytest.raises(OutputError, match=r"s\.tar k: region r3 overlaps another one"):
        count(counter, twice, truth)
    with pytest.raises(OutputError, match=r"4x4 pixels \(h x w\), its image 4x5"):
        count(counter, labelled, np.full((4, 5), 3))
    with pytest.raises(ShapeError, match=r"prediction has ids \[9\]"):
        count(counter, image(np.full((4, 4), 9)), truth)
    with pytest.raises(ShapeError, match=r"score 1\.5"):
        count(counter, image(truth, scores={3: 1.5}), truth)


@pytest.mark.parametrize("fields", [{"num_bins": 0}, {"grid": 0}])
def test_counts_that_mean_nothing_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        CountConfig(**fields)


@pytest.mark.parametrize(
    ("num_images", "per_block", "num_blocks"), [(3, 1, 3), (4, 1, 4), (5, 2, 3), (33, 16, 3)]
)
def test_blocks_keep_the_sum_in_bounded_memory(num_images: int, per_block: int, num_blocks: int) -> None:
    blocks = Blocks(2, max_blocks=4)
    rows = np.arange(2 * num_images).reshape(num_images, 2)
    for row in rows:
        blocks.add(row)
    assert blocks.images_per_block == per_block
    assert blocks.states.shape == (num_blocks, 2)
    assert blocks.states.sum(axis=0).tolist() == rows.sum(axis=0).tolist()
    assert blocks.states[0].tolist() == rows[:per_block].sum(axis=0).tolist()
