"""AP of boxes and masks: pycocotools as the oracle, cases by hand, adding in any order, LVIS' rules."""

import contextlib
import io
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.boxes import boxes_xyxy_to_xywh
from ovsops.masks.rle import masks_to_rles, rle_area
from ovsops.metrics.bootstrap import BootstrapConfig
from ovsops.metrics.detection import (
    LVIS_FIXED,
    DetectionConfig,
    DetectionCounts,
    ap_interval,
    figure_intervals,
)
from ovsops.metrics.matching import box_ious
from ovsops.metrics.objects import FoundObjects, TrueObjects

Image = tuple[FoundObjects, TrueObjects]


def found(boxes: list[list[float]], scores: list[float], labels: list[int] | None = None) -> FoundObjects:
    return FoundObjects(
        labels=np.array(labels or [1] * len(boxes), np.int64),
        scores=np.array(scores, np.float64),
        boxes_xyxy=np.array(boxes, np.float64).reshape(-1, 4),
    )


def true(boxes: list[list[float]], labels: list[int] | None = None, **more: object) -> TrueObjects:
    return TrueObjects(
        labels=np.array(labels or [1] * len(boxes), np.int64),
        boxes_xyxy=np.array(boxes, np.float64).reshape(-1, 4),
        **more,
    )


def counted(images: list[Image], config: DetectionConfig | None = None) -> DetectionCounts:
    states = [DetectionCounts.of_image(i, one, two, config=config) for i, (one, two) in enumerate(images)]
    return DetectionCounts.of_parts(states)


def random_images(seed: int, *, num: int = 8, round_scores: bool = True) -> list[Image]:
    """Boxes around true ones, wrong names, crowds, equal scores, images without either; masks are ellipses."""
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        corner = rng.uniform(0, 90, (count, 2))
        return np.concatenate([corner, corner + np.exp(rng.uniform(1.5, 4.6, (count, 2)))], axis=1)

    def ellipses(boxes_xyxy: np.ndarray) -> np.ndarray:
        rows, columns = np.mgrid[:200, :200]
        x0, y0, x1, y1 = (boxes_xyxy[:, i, None, None] for i in range(4))
        return ((columns - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((rows - (y0 + y1) / 2) / (y1 - y0)) ** 2 < 0.25

    images = []
    for _ in range(num):
        num_true, num_found = int(rng.integers(0, 7)), int(rng.integers(0, 20))
        truth = boxes(num_true)
        names = rng.integers(1, 4, num_true)
        guesses = boxes(num_found)
        if num_true:
            source = rng.integers(0, num_true, num_found)
            guesses = truth[source] + rng.normal(0, 3, (num_found, 4))
            guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 4)
        labels = rng.integers(1, 4, num_found)
        if num_true:
            labels = np.where(rng.random(num_found) < 0.8, names[source], labels)
        scores = rng.random(num_found)
        images.append(
            (
                FoundObjects(
                    labels=labels.astype(np.int64),
                    scores=scores.round(1) if round_scores else scores,
                    boxes_xyxy=guesses,
                    masks=masks_to_rles(ellipses(guesses)),
                ),
                TrueObjects(
                    labels=names.astype(np.int64),
                    boxes_xyxy=truth,
                    masks=masks_to_rles(ellipses(truth)),
                    is_crowd=rng.random(num_true) < 0.15,
                ),
            )
        )
    return images


def coco_stats(images: list[Image], kind: str, *, with_names: bool = True) -> np.ndarray:
    annotations: list[dict[str, object]] = []
    results: list[dict[str, object]] = []
    for image, (one, two) in enumerate(images):
        assert one.masks is not None
        assert two.masks is not None
        assert two.is_crowd is not None
        for label, box, mask, crowd in zip(two.labels, two.boxes_xyxy, two.masks, two.is_crowd, strict=True):
            xywh = boxes_xyxy_to_xywh(box).tolist()
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": int(label),
                "bbox": xywh,
            }
            annotation |= {"area": xywh[2] * xywh[3], "segmentation": mask.to_coco(), "iscrowd": int(crowd)}
            if kind == "segm":
                annotation["area"] = float(rle_area(mask))
            annotations.append(annotation)
        for label, score, box, mask in zip(one.labels, one.scores, one.boxes_xyxy, one.masks, strict=True):
            result = {"image_id": image, "category_id": int(label), "score": float(score)}
            shape = (
                {"segmentation": mask.to_coco()}
                if kind == "segm"
                else {"bbox": boxes_xyxy_to_xywh(box).tolist()}
            )
            results.append(result | shape)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i, "height": 200, "width": 200} for i in range(len(images))],
            "annotations": annotations,
            "categories": [{"id": i} for i in (1, 2, 3)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.params.useCats = int(with_names)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = np.array(evaluation.stats)[[0, 1, 2, 3, 4, 5, 8]]
    return np.where(stats == -1, np.nan, stats)


def our_stats(counts: DetectionCounts) -> np.ndarray:
    figures = counts.compute()
    return np.array(
        [figures.ap, figures.ap50, figures.ap75, *figures.ap_by_area.values(), figures.average_recall]
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("kind", "theirs"), [("box", "bbox"), ("mask", "segm")])
def test_equals_pycocotools(seed: int, kind: str, theirs: str) -> None:
    images = random_images(seed)
    ours = our_stats(counted(images, DetectionConfig(kind=kind)))
    np.testing.assert_allclose(ours, coco_stats(images, theirs), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(2))
def test_class_agnostic_equals_pycocotools_without_names(seed: int) -> None:
    images = random_images(seed, round_scores=False)
    ours = our_stats(counted(images, DetectionConfig(is_class_agnostic=True)))
    np.testing.assert_allclose(ours, coco_stats(images, "bbox", with_names=False), rtol=0, atol=1e-9)


BOX, OTHER, FAR = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [50.0, 50, 60, 60]


def test_by_hand() -> None:
    """Right, wrong, right of two: precision 1 up to recall 0.5 (51 recalls), 2/3 beyond (50)."""
    counts = counted([(found([BOX, FAR, OTHER], [0.9, 0.8, 0.7]), true([BOX, OTHER]))])
    assert counts.compute().ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert counts.compute().ap == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_second_find_of_the_same_object_is_wrong() -> None:
    twice = counted([(found([BOX, BOX], [0.9, 0.8]), true([BOX, OTHER]))]).compute()
    assert twice.ap50 == pytest.approx(51 / 101)
    assert twice.average_recall == 0.5


def test_the_overlap_decides_at_which_levels_a_find_counts() -> None:
    """IoU 0.8 is right at 0.50 to 0.80: 7 of 10 levels."""
    figures = counted([(found([[0.0, 0, 8, 10]], [0.9]), true([BOX]))]).compute()
    assert (figures.ap, figures.ap50, figures.ap75) == (pytest.approx(0.7), 1.0, 1.0)


def test_a_crowd_takes_many_and_counts_none() -> None:
    crowd = true([[0.0, 0, 40, 40], FAR], is_crowd=np.array([True, False]))
    figures = counted([(found([BOX, OTHER, FAR], [0.9, 0.8, 0.7]), crowd)]).compute()
    assert figures.ap == 1.0


def test_a_constant_scorer_is_worse_than_one_that_knows() -> None:
    boxes = [FAR] * 9 + [BOX]
    assert counted([(found(boxes, [0.5] * 10), true([BOX]))]).compute().ap50 == pytest.approx(0.1)
    assert counted([(found(boxes, [0.1] * 9 + [0.9]), true([BOX]))]).compute().ap50 == 1.0


def test_nothing_found_is_zero_and_nothing_true_is_nan() -> None:
    assert counted([(found([], []), true([BOX]))]).compute().ap == 0.0
    assert math.isnan(counted([(found([BOX], [0.5]), true([]))]).compute().ap)
    assert math.isnan(DetectionCounts.zeros().compute().ap)
    assert counted([(found([BOX], [0.5], [2]), true([BOX]))]).compute().ap_by_label == {1: 0.0}


def test_images_add_up_in_any_order() -> None:
    images = random_images(5)
    states = [DetectionCounts.of_image(i, *image) for i, image in enumerate(images)]
    whole = our_stats(DetectionCounts.of_parts(states))
    order = np.random.default_rng(0).permutation(len(states))
    mixed = DetectionCounts.of_parts([states[i] for i in order[:3]]) + DetectionCounts.of_parts(
        [states[i] for i in order[3:]]
    )
    np.testing.assert_array_equal(our_stats(mixed), whole)
    assert DetectionCounts.of_parts([]).compute().ap_by_label == {}


def test_an_image_drawn_twice_equals_two_images() -> None:
    images = random_images(6, round_scores=False)
    counts = counted(images)
    drawn = np.array([[2, 1, 0, 1, 1, 0, 3, 0]])
    copies = [image for image, times in zip(images, drawn[0], strict=True) for _ in range(times)]
    again = counted(copies).compute()
    np.testing.assert_allclose(
        counts.average_precisions(drawn)[0], [again.ap, again.ap50, again.ap75], rtol=0, atol=1e-12
    )
    interval = ap_interval(counts, config=BootstrapConfig(num_resamples=50))
    assert (interval.low <= interval.value).all()
    assert (interval.value <= interval.high).all()
    assert interval.value[0] == pytest.approx(counts.compute().ap)
    every = [again.ap, again.ap50, again.ap75, *again.ap_by_area.values(), again.average_recall]
    np.testing.assert_allclose(counts.figures(drawn)[0], every, rtol=0, atol=1e-12)
    named = figure_intervals(counts, config=BootstrapConfig(num_resamples=50))
    assert list(named) == ["AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "AR"]
    np.testing.assert_array_equal(
        [named["AP75"].low, named["AP75"].high], [interval.low[2], interval.high[2]]
    )
    assert float(named["AR"].value) == pytest.approx(counts.compute().average_recall)


def test_lvis_judges_a_class_only_where_it_was_annotated() -> None:
    """Image 0 has the object; in image 1 class 1 was never checked: the confident find there is not counted."""
    unchecked = [
        (found([BOX], [0.5]), true([BOX], verified_absent=())),
        (found([BOX], [0.9]), true([], verified_absent=())),
    ]
    assert counted(unchecked, LVIS_FIXED).compute().ap == 1.0
    checked = [unchecked[0], (unchecked[1][0], true([], verified_absent=(1,)))]
    assert counted(checked, LVIS_FIXED).compute().ap == pytest.approx(0.5)


def test_lvis_forgives_more_finds_where_not_all_are_marked() -> None:
    images = [(found([FAR, BOX], [0.9, 0.5]), true([BOX], not_exhaustive=(1,)))]
    assert counted(images, LVIS_FIXED).compute().ap == 1.0


def test_fixed_ap_limits_the_class_not_the_image() -> None:
    many = found([FAR] * 150 + [BOX], [0.9] * 150 + [0.1])
    images = [(many, true([BOX]))]
    assert counted(images).compute().ap == 0.0
    assert counted(images, LVIS_FIXED).compute().ap == pytest.approx(1 / 151)
    short = DetectionConfig(max_per_image=None, max_per_class=150)
    assert counted(images, short).compute().ap == 0.0


def test_groups_of_classes() -> None:
    figures = counted([(found([BOX], [0.9], [2]), true([BOX, BOX], [2, 3]))]).compute()
    assert (figures.ap_of([2]), figures.ap_of([3]), figures.ap_of([2, 3, 4])) == (1.0, 0.0, 0.5)
    assert math.isnan(figures.ap_of([4]))


def test_boxes_without_area_overlap_nothing() -> None:
    assert box_ious(np.array([[1.0, 1, 1, 5]]), np.array([[1.0, 1, 1, 5], [0, 0, 9, 9]])).tolist() == [[0, 0]]


def test_what_cannot_be_counted() -> None:
    with pytest.raises(ShapeError, match="not finite or end before they begin"):
        counted([(found([[5.0, 5, 1, 9]], [0.5]), true([BOX]))])
    with pytest.raises(ShapeError, match="image 0: scores that are not finite"):
        counted([(found([BOX], [math.nan]), true([BOX]))])
    with pytest.raises(ShapeError, match="AP of masks needs the masks of both sides"):
        counted([(found([BOX], [0.5]), true([BOX]))], DetectionConfig(kind="mask"))
    one = DetectionCounts.of_image(0, found([], []), true([BOX]))
    with pytest.raises(ShapeError, match="an image was counted twice"):
        one + one
    with pytest.raises(ShapeError, match="different detection configs"):
        one + DetectionCounts.zeros(LVIS_FIXED)
    with pytest.raises(ShapeError, match="no images to draw from"):
        ap_interval(DetectionCounts.zeros())
    with pytest.raises(ConfigError, match=r"detection\.max_per_image = 0"):
        DetectionConfig(max_per_image=0)
