"""Instances of single images counted: by hand, and equal to pycocotools over what a run says."""

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ovsops.errors import ConfigError, OutputError, ShapeError
from ovsops.masks.rle import Rle, mask_to_rle, rle_area
from ovsops.metrics.bootstrap import BootstrapConfig, bootstrap, draw_times
from ovsops.metrics.concepts import cg_f1
from ovsops.metrics.objects import TrueObjects
from pipelines.evaluation.blocks import Blocks
from pipelines.evaluation.classes import Classes, TruthClass
from pipelines.evaluation.labelled import LabelledImage, paint
from pipelines.evaluation.object_counts import (
    ObjectCounter,
    ObjectsConfig,
    RunObjects,
    found_instances,
    things_alone,
)
from pipelines.evaluation.object_figures import ObjectResults, samples

BALL, KEY, SAND = 3, 10, 700
CLASSES = Classes(
    classes=(
        TruthClass(id=BALL, name="ball", kind="thing"),
        TruthClass(id=KEY, name="key", kind="thing"),
        TruthClass(id=SAND, name="sand", kind="stuff"),
    ),
    has_background=False,
)
SIDE = 100
Box = tuple[int, int, int, int]


def box_mask(box_xyxy: Box) -> Rle:
    x0, y0, x1, y1 = box_xyxy
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y0:y1, x0:x1] = True
    return mask_to_rle(mask)


def region(
    category_id: int, box_xyxy: Box, score: float, *, detector: str | None = "d", **fields: Any
) -> dict[str, Any]:
    x0, y0, x1, y1 = box_xyxy
    xywh = [x0, y0, x1 - x0, y1 - y0]
    return {
        "instance_uid": f"{category_id}@{box_xyxy}",
        "category_id": category_id,
        "bbox": [float(v) for v in xywh],
        "bbox_detector": None,
        "segmentation": box_mask(box_xyxy).to_coco(),
        "area": xywh[2] * xywh[3],
        "score": score,
        "score_calibrated": None,
        "detector": detector,
    } | fields


def image(*regions: dict[str, Any], **fields: Any) -> LabelledImage:
    plain: dict[str, Any] = {
        "image_uid": "u",
        "shard": "s.tar",
        "index": 0,
        "key": "k",
        "sha256": None,
        "size_hw": (SIDE, SIDE),
        "sidecar": None,
        "status": "labelled",
        "error": "",
        "regions": regions,
    }
    return LabelledImage(**plain | fields)


def truth(*objects: tuple[int, Box], crowds: tuple[bool, ...] = (), **fields: Any) -> TrueObjects:
    masks = tuple(box_mask(box) for _, box in objects)
    return TrueObjects(
        labels=np.array([CLASSES.place_of(i) for i, _ in objects], np.int64),
        boxes_xyxy=np.array([box for _, box in objects], np.float64).reshape(-1, 4),
        masks=masks,
        is_crowd=np.array(crowds or [False] * len(objects), bool),
        areas=np.array([rle_area(mask) for mask in masks], np.float64),
        **fields,
    )


Pair = tuple[LabelledImage, TrueObjects]


def run_of(pairs: list[Pair], *, max_blocks: int = 2048, **fields: Any) -> tuple[RunObjects, ObjectCounter]:
    config = ObjectsConfig(**fields)
    counter = ObjectCounter(CLASSES, config, num_bins=10, has_masks=True)
    run = RunObjects(blocks=Blocks(counter.layout.size, max_blocks=max_blocks), max_found=config.max_found)
    for labelled, true in pairs:
        run.add(labelled, counter, found_instances(labelled, CLASSES), things_alone(true, counter.things))
    return run, counter


def figures(pairs: list[Pair], **fields: Any) -> dict[str, float]:
    run, counter = run_of(pairs, **fields)
    ones = np.ones((1, len(run.blocks.states)), np.int64)
    found = samples(run, run.detections(), CLASSES, counter.layout, ones)
    return {name: float(values[0]) for name, values in found.items()}


ONE, TWO, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)


def test_a_scene_by_hand() -> None:
    """Two balls and a key. Found in order: a ball, a ball where none is, the other ball; a key called ball before all.

    Balls: wrong, right, wrong, right: precision 1/2 up to recall 0.5 (1/2 is best from there on, 2/4 at the end).
    """
    labelled = image(
        region(BALL, FAR, 0.9, score_calibrated=0.3),
        region(BALL, ONE, 0.8, score_calibrated=0.7),
        region(BALL, (70, 70, 90, 90), 0.7),
        region(BALL, TWO, 0.6),
        region(SAND, (0, 60, 40, 90), 0.99),
        presence={BALL: 0.9, KEY: 0.4},
        verified_absent=(KEY,),
    )
    found = figures([(labelled, truth((BALL, ONE), (BALL, TWO), (KEY, FAR)))])
    assert found["class_box_ap/1"] == pytest.approx(0.5)
    assert found["class_box_ap/2"] == 0
    assert found["box_ap"] == found["mask_ap"] == found["fixed_ap"] == pytest.approx(0.25)
    assert found["box_ar100"] == 0.5
    # without names: right, right, wrong, right
    assert found["agnostic_ap50"] == pytest.approx((67 + 34 * 3 / 4) / 101)
    assert found["agnostic_ar100"] == 1.0
    # pairs: ball is there and found; key is there and not found
    assert math.isnan(found["il_mcc"]), "all classes are there: nothing to correlate with"
    assert found["pm_f1"] == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert found["verified_absent_right"] == 0
    # 0.9 wrong, 0.8 right, 0.7 wrong, 0.6 right
    assert found["instance_ece"] == pytest.approx((0.9 + 0.2 + 0.7 + 0.4) / 4, abs=1e-6)
    assert found["instance_ece_calibrated"] == pytest.approx(0.3, abs=1e-6)
    assert math.isnan(found["detector_box_ap"])


def test_the_detectors_boxes_are_told_from_the_tight_ones() -> None:
    loose = [0.0, 0, 10, 20]  # IoU 0.5 with ONE
    found = figures([(image(region(BALL, ONE, 0.9, bbox_detector=loose)), truth((BALL, ONE)))])
    assert (found["box_ap"], found["detector_box_ap50"]) == (1.0, 1.0)
    assert found["detector_box_ap"] == pytest.approx(0.1)


def test_a_score_is_judged_by_the_detectors_box() -> None:
    """A mask that covers half of what the detector saw is poor; the detector was right all the same."""
    half = (0, 0, 10, 4)
    found = figures(
        [(image(region(BALL, half, 0.9, bbox_detector=[0.0, 0, 10, 10])), truth((BALL, (0, 0, 10, 10))))]
    )
    assert (found["box_ap50"], found["detector_box_ap50"]) == (0.0, 1.0)
    assert found["instance_ece"] == pytest.approx(0.1, abs=1e-6)


def test_presence_by_hand() -> None:
    """Said and there, said and not there, not said though there, not said and not there: the four cells."""
    pairs = [
        (image(presence={BALL: 0.5, KEY: 0.9}), truth((BALL, ONE))),
        (image(presence={BALL: 0.4, KEY: 0.1}, verified_absent=(BALL, KEY)), truth((BALL, ONE))),
        (image(presence={BALL: 0.8}), truth((BALL, ONE))),
    ]
    found = figures(pairs)
    both, alone, neither, missed = 2, 1, 1, 1
    expected = (both * neither - alone * missed) / math.sqrt(3 * 3 * 2 * 2)
    assert found["presence_il_mcc"] == pytest.approx(expected)
    assert found["verified_absent_right"] == 0.5


def test_only_what_the_truth_speaks_of_is_judged() -> None:
    """LVIS: nobody looked for keys, so a found one is neither right nor wrong anywhere."""
    labelled = image(region(BALL, ONE, 0.5), region(KEY, FAR, 0.9))
    federated = truth((BALL, ONE), verified_absent=frozenset[int]())
    found = figures([(labelled, federated)])
    assert found["box_ap"] == found["agnostic_ap50"] == found["pm_f1"] == 1.0
    assert found["instance_ece"] == pytest.approx(0.5, abs=1e-6)
    absent = truth((BALL, ONE), verified_absent=frozenset({CLASSES.place_of(KEY)}))
    assert figures([(labelled, absent)])["agnostic_ap50"] == pytest.approx(0.5)


def test_pairs_with_a_crowd_say_nothing_about_how_many_were_found() -> None:
    labelled = image(region(BALL, ONE, 0.9))
    crowd = truth((BALL, (0, 0, 40, 40)), crowds=(True,))
    run, counter = run_of([(labelled, crowd)])
    concepts = counter.layout.part(run.blocks.states[0], "concepts")
    assert concepts[:, 0].sum() == 1, "the pair of the key alone"
    assert counter.layout.part(run.blocks.states[0], "raw").sum() == 0, "a find in a crowd is not judged"


def test_the_least_score_holds_for_concepts_alone() -> None:
    labelled = image(region(BALL, ONE, 0.9), region(KEY, FAR, 0.3))
    pairs = [(labelled, truth((BALL, ONE))), (image(), truth((KEY, FAR)))]
    low, high = (figures(pairs, min_score=least) for least in (0.0, 0.5))
    assert low["box_ap"] == high["box_ap"]
    assert (low["pm_f1"], high["pm_f1"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert low["il_mcc"] == pytest.approx(0)
    assert high["il_mcc"] == pytest.approx(1 / math.sqrt(3))


def test_nothing_at_all() -> None:
    found = figures([(image(), truth()), (image(status="failed"), truth())])
    assert all(math.isnan(value) for value in found.values())
    missed = figures([(image(status="failed", error="E_MAGIC: x", size_hw=None), truth((BALL, ONE)))])
    assert missed["box_ap"] == missed["mask_ap"] == missed["agnostic_ar100"] == 0


def random_pairs(seed: int, num_images: int = 12) -> list[Pair]:
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> list[Box]:
        corner = rng.integers(0, 60, (count, 2))
        far = corner + rng.integers(3, 40, (count, 2))
        return [(int(x), int(y), int(u), int(v)) for (x, y), (u, v) in zip(corner, far, strict=True)]

    pairs = []
    for _ in range(num_images):
        true = [(int(rng.choice([BALL, KEY])), box) for box in boxes(int(rng.integers(0, 6)))]
        found = []
        for category_id, (x0, y0, x1, y1) in true * 2 + [(BALL, box) for box in boxes(3)]:
            dx, dy = rng.integers(-2, 3, 2).tolist()
            moved = (max(x0 + dx, 0), max(y0 + dy, 0), x1 + max(dx, 0), y1 + max(dy, 0))
            name = category_id if rng.random() < 0.8 else BALL + KEY - category_id
            found.append(region(name, moved, float(rng.random())))
        crowds = tuple(bool(v) for v in rng.random(len(true)) < 0.15)
        pairs.append((image(*found), truth(*true, crowds=crowds)))
    return pairs


@pytest.mark.parametrize(("kind", "theirs"), [("box", "bbox"), ("mask", "segm")])
def test_a_run_equals_pycocotools(kind: str, theirs: str) -> None:
    pairs = random_pairs(3)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, (labelled, true) in enumerate(pairs):
        assert true.masks is not None
        assert true.is_crowd is not None
        for place, box, mask, crowd in zip(
            true.labels, true.boxes_xyxy, true.masks, true.is_crowd, strict=True
        ):
            x0, y0, x1, y1 = box.tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": CLASSES.ids[place],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": rle_area(mask),
                    "segmentation": mask.to_coco(),
                    "iscrowd": int(crowd),
                }
            )
        results += [
            {"image_id": number}
            | {k: r[k] for k in ("category_id", "score", "bbox" if kind == "box" else "segmentation")}
            for r in labelled.regions
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(len(pairs))],
            "annotations": annotations,
            "categories": [{"id": BALL}, {"id": KEY}],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), theirs)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    found = figures(pairs)
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100")
    ours = [found[f"{kind}_{name}"] for name in names]
    stats = np.array(evaluation.stats)[[0, 1, 2, 3, 4, 5, 8]]
    np.testing.assert_allclose(ours, np.where(stats == -1, np.nan, stats), rtol=0, atol=1e-9)


def test_runs_are_drawn_with_the_same_images_as_maps_are() -> None:
    """cgF1 adds up, so the general bootstrap over its counts must give the very interval."""
    pairs = random_pairs(4)
    config = BootstrapConfig(num_resamples=80, seed=3)
    one, counter = run_of(pairs)
    worse = [(image(*labelled.regions[1:]), true) for labelled, true in pairs]
    runs = {"one": one, "two": run_of(worse)[0]}
    results = ObjectResults.of(runs, CLASSES, counter.layout, config=counter.config, bootstrap=config)
    concepts = counter.layout.part(one.blocks.states, "concepts")
    expected = bootstrap(concepts, cg_f1, config=config)
    found = results.estimates["one"]["cg_f1"]
    assert (found.value, found.low, found.high) == (
        pytest.approx(float(expected.value)),
        pytest.approx(float(expected.low)),
        pytest.approx(float(expected.high)),
    )
    times = draw_times(len(pairs), config)
    both = [samples(run, run.detections(), CLASSES, counter.layout, times)["box_ap"] for run in runs.values()]
    low, high = np.nanquantile(both[1] - both[0], [0.025, 0.975])
    difference = results.differences["two"]["box_ap"]
    assert (difference.low, difference.high) == (pytest.approx(low), pytest.approx(high))
    for name, estimate in results.estimates["one"].items():
        assert math.isnan(estimate.value) or estimate.low <= estimate.high, name


def test_many_images_share_blocks_and_keep_their_figures() -> None:
    pairs = random_pairs(5, num_images=9)
    whole, shared = figures(pairs), figures(pairs, max_blocks=4)
    assert shared == pytest.approx(whole, nan_ok=True)
    run, counter = run_of(pairs, max_blocks=4)
    assert run.columns.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    drawn = samples(run, run.detections(), CLASSES, counter.layout, np.array([[0, 1, 1]]))
    without = figures(pairs[4:])
    assert drawn["box_ap"][0] == pytest.approx(without["box_ap"])


def test_instances_that_overlap_are_painted_by_score() -> None:
    wide, narrow = region(BALL, (0, 0, 20, 10), 0.4), region(KEY, (10, 0, 30, 10), 0.6)
    painted = paint(image(narrow, wide), (SIDE, SIDE))
    assert painted.num_contested == 100
    assert painted.labels[0, [5, 15, 25, 35]].tolist() == [BALL, KEY, KEY, 0]
    same = paint(image(region(BALL, (0, 0, 20, 20), 0.5), region(KEY, ONE, 0.5)), (SIDE, SIDE))
    assert same.labels[0, 0] == KEY, "of equal scores the smaller is on top"
    with pytest.raises(OutputError, match="no detector found it"):
        paint(image(*({**each, "detector": None} for each in (narrow, wide))), (SIDE, SIDE))


def test_what_cannot_be_counted() -> None:
    with pytest.raises(ConfigError, match=r"up to here the run has 2 instances"):
        run_of([(image(region(BALL, ONE, 0.5), region(KEY, ONE, 0.5)), truth())], max_found=1)
    with pytest.raises(ShapeError, match=r"has the score 1\.5"):
        found_instances(image(region(BALL, ONE, 1.5)), CLASSES)
    with pytest.raises(ConfigError, match=r"objects\.min_score"):
        ObjectsConfig(min_score=2.0)
