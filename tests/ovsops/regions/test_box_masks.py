"""Masks of boxes: hand-worked pictures, who gets a pixel, what stands in, what is left out."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovsops.backbones.detections import Detections, no_detections
from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.class_map import ClassMap
from ovsops.masks.rle import Rle, rle_area, rle_to_mask
from ovsops.regions.box_masks import (
    BoxMasks,
    ClassMapMaskConfig,
    masks_from_boxes,
    masks_from_class_map,
    pixel_boxes,
)
from tests.ovsops.regions.pictures import CLASSES, boxed, drawn, shown

BY_SCORE: dict[str, Any] = {"overlap": "score", "double_iou": None}


def made(class_map: ClassMap, detections: Detections, **fields: Any) -> BoxMasks:
    return masks_from_class_map(detections, class_map, CLASSES, ClassMapMaskConfig(**fields))


def test_a_mask_is_the_pixels_of_the_box_that_show_its_class() -> None:
    class_map = drawn("11.22 11.33 1..33", scores=np.arange(15).reshape(3, 5) / 15)
    found = made(class_map, boxed(((0, 0, 3, 2), 0.9, 0), ((2, 0, 5, 3), 0.8, 2)))
    assert [shown(rle) for rle in found.rles] == ["##... ##... .....", "..... ...## ...##"]
    np.testing.assert_allclose(found.scores, [(0 + 1 + 5 + 6) / 60, (8 + 9 + 13 + 14) / 60], rtol=1e-6)
    assert found.reasons == ((), ())


def test_a_pixel_lies_in_a_box_when_its_centre_does() -> None:
    boxes = torch.tensor([[0.5, 0.4, 2.5, 1.6], [0.6, 0.6, 0.9, 3.0], [-9, -9, 99, 99], [3, 1, 2, 2]])
    expected = [[0, 0, 2, 2], [0, 0, 0, 0], [0, 0, 4, 3], [0, 0, 0, 0]]
    assert pixel_boxes(boxes, (3, 4)).tolist() == expected
    assert pixel_boxes(torch.tensor([[1.0, 1.0, 3.0, 2.0]]), (3, 4), margin=0.5).tolist() == [[0, 0, 4, 2]]


CROWD = drawn("111111")
LEFT, RIGHT = ((0.0, 0.0, 4.0, 1.0), 0.5, 0), ((2.0, 0.0, 6.0, 1.0), 0.9, 0)


@pytest.mark.parametrize(
    ("overlap", "left", "right"),
    [
        ("score", "##....", "..####"),
        ("smallest", "##....", "..####"),  # of one size: the better one
        ("nearest", "###...", "...###"),
        ("share", "####..", "..####"),
    ],
)
def test_who_gets_the_pixels_of_two_boxes(overlap: str, left: str, right: str) -> None:
    found = made(CROWD, boxed(LEFT, RIGHT), overlap=overlap)
    assert [shown(rle) for rle in found.rles] == [left, right]


def test_the_smaller_box_keeps_its_pixels_inside_a_better_one() -> None:
    inside = boxed(((0, 0, 6, 1), 0.9, 0), ((2, 0, 4, 1), 0.5, 0))
    assert [shown(r) for r in made(CROWD, inside, overlap="smallest").rles] == ["##..##", "..##.."]
    by_score = made(CROWD, inside, overlap="score")
    assert [shown(r) for r in by_score.rles] == ["######", None]
    assert by_score.reasons[1] == ("R_DOUBLE",)


def test_a_rim_is_no_instance() -> None:
    wide = boxed(((0, 0, 5, 1), 0.9, 0), ((0, 0, 6, 1), 0.5, 0))
    assert shown(made(CROWD, wide, min_kept_share=0.0, **BY_SCORE).rles[1]) == ".....#"
    found = made(CROWD, wide, min_kept_share=0.2, **BY_SCORE)
    assert (found.rles[1], found.reasons[1]) == (None, ("R_DOUBLE",))
    nearest = made(CROWD, wide, double_iou=None, min_kept_share=0.4)
    assert [shown(r) for r in nearest.rles] == ["###...", "...###"]
    strict = made(CROWD, wide, double_iou=None, min_kept_share=0.55)  # the second would get 3 of 6
    assert [shown(r) for r in strict.rles] == ["#####.", None]


def test_doubles_do_not_share_out_one_thing() -> None:
    twice = boxed(((0, 0, 5, 1), 0.5, 0), ((0, 0, 6, 1), 0.9, 0), ((0, 0, 6, 1), 0.4, 2))
    found = made(CROWD, twice, double_iou=0.8)  # IoU 5 / 6; the third has another class
    assert [shown(r) for r in found.rles] == [None, "######", None]
    assert found.reasons == (("R_DOUBLE",), (), ("R_NO_MASK",))
    assert [shown(r) for r in made(CROWD, twice, double_iou=0.9).rles[:2]] == ["###...", "...###"]


STRANGERS = drawn("333.. 333.1 222..")
PLAIN = boxed(((0, 0, 3, 3), 0.9, 0))


def test_a_box_without_its_class_is_left_out_or_stood_in_for() -> None:
    dropped = made(STRANGERS, PLAIN)
    assert (dropped.rles, dropped.reasons) == ((None,), (("R_NO_MASK",),))
    part = made(STRANGERS, PLAIN, no_mask="component")
    assert (shown(part.rles[0]), part.reasons) == ("###.. ###.. .....", (("R_NO_MASK",),))
    box = made(STRANGERS, PLAIN, no_mask="box")
    assert (shown(box.rles[0]), box.reasons) == ("###.. ###.. ###..", (("R_BOX_MASK", "R_NO_MASK"),))
    assert all(np.isnan(found.scores).all() for found in (dropped, part, box))


def test_stuff_does_not_stand_in() -> None:
    found = made(drawn("222"), boxed(((0, 0, 3, 1), 0.9, 0)), no_mask="component")
    assert (found.rles, found.reasons) == ((None,), (("R_NO_MASK",),))


@pytest.mark.parametrize("no_mask", ["drop", "component", "box"])
def test_boxes_without_area_or_outside_are_left_out(no_mask: str) -> None:
    outside = boxed(((9, 9, 12, 12), 0.9, 0), ((1, 1, 1, 3), 0.9, 0), ((3, 2, 1, 1), 0.9, 0))
    for found in (made(STRANGERS, outside, no_mask=no_mask), masks_from_boxes(outside, (3, 5))):
        assert found.rles == (None, None, None)
        assert set(found.reasons) == {("R_NO_AREA",)}


def test_boxes_as_their_own_masks() -> None:
    found = masks_from_boxes(boxed(((1, 0, 3, 2), 0.9, 0), ((0, 0, 4, 2), 0.5, 0)), (2, 4))
    assert [shown(rle) for rle in found.rles] == [".##. .##.", "#### ####"]
    assert found.reasons == (("R_BOX_MASK",), ("R_BOX_MASK",))


def test_no_detections_and_no_vocabulary() -> None:
    assert len(masks_from_class_map(no_detections(), drawn("..."), [])) == 0
    assert len(masks_from_boxes(no_detections(), (2, 2))) == 0


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"labels 3\.\.3 of 3 classes"):
        made(STRANGERS, boxed(((0, 0, 1, 1), 0.5, 3)))
    with pytest.raises(ShapeError, match="of 0 classes"):
        masks_from_class_map(PLAIN, drawn("."), [])
    with pytest.raises(ShapeError, match="label 4 of 3"):
        made(drawn("4"), PLAIN)
    with pytest.raises(ShapeError, match=r"boxes \[0\] are not finite"):
        made(STRANGERS, boxed(((0, 0, float("nan"), 1), 0.5, 0)))
    with pytest.raises(ShapeError, match="score is not finite"):
        made(STRANGERS, boxed(((0, 0, 1, 1), float("nan"), 0)))
    with pytest.raises(ShapeError, match="one of each a box"):
        BoxMasks(size_hw=(1, 1), rles=(None,), scores=np.zeros(2), reasons=(("R_NO_MASK",),))
    with pytest.raises(ShapeError, match="no mask and 0 reasons"):
        BoxMasks(size_hw=(1, 1), rles=(None,), scores=np.zeros(1), reasons=((),))
    with pytest.raises(ShapeError, match="is of size"):
        BoxMasks(size_hw=(1, 1), rles=(Rle((2, 2), "4"),), scores=np.zeros(1), reasons=((),))
    with pytest.raises(ConfigError, match="box_margin"):
        ClassMapMaskConfig(box_margin=-0.1)
    with pytest.raises(ConfigError, match="min_kept_share"):
        ClassMapMaskConfig(min_kept_share=1.1)


MAPS = st.tuples(st.integers(1, 8), st.integers(1, 8)).flatmap(
    lambda size: arrays(np.uint16, size, elements=st.integers(0, 3))
)
CORNERS = st.integers(-2, 20).map(lambda x: x / 2)
FOUND = st.tuples(
    st.tuples(CORNERS, CORNERS, CORNERS, CORNERS), st.sampled_from([0.25, 0.5, 0.75]), st.integers(0, 2)
)
RULES = st.builds(
    ClassMapMaskConfig,
    overlap=st.sampled_from(["score", "smallest", "nearest", "share"]),
    no_mask=st.sampled_from(["drop", "component", "box"]),
    double_iou=st.sampled_from([None, 0.0, 0.5]),
    min_kept_share=st.sampled_from([0.0, 0.2, 1.0]),
    box_margin=st.sampled_from([0.0, 0.25]),
)


@given(MAPS, st.lists(FOUND, max_size=6), RULES, st.randoms())
def test_masks_lie_in_their_boxes_and_apart_in_any_order(
    labels: np.ndarray, found: list[Any], rule: ClassMapMaskConfig, random: Any
) -> None:
    class_map = ClassMap(labels=labels, scores=np.full(labels.shape, 0.5, np.float32))
    detections = boxed(*found)
    masks = masks_from_class_map(detections, class_map, CLASSES, rule)
    boxes = pixel_boxes(detections.boxes_xyxy, labels.shape, margin=rule.box_margin)
    taken = np.zeros(labels.shape, np.int64)
    for rle, why, (x0, y0, x1, y1), (_, _, label) in zip(
        masks.rles, masks.reasons, boxes, found, strict=True
    ):
        if rle is None:
            continue
        mask = rle_to_mask(rle).copy()
        assert mask.any()
        if not why:
            assert (labels[mask] == label + 1).all()
            taken += mask
        mask[y0:y1, x0:x1] = False
        assert not mask.any()
    if rule.overlap != "share":
        assert taken.max(initial=0) <= 1

    order = list(range(len(found)))
    random.shuffle(order)
    again = masks_from_class_map(boxed(*[found[i] for i in order]), class_map, CLASSES, rule)
    name = lambda i, masks, k: (str(found[i]), str(masks.rles[k]), masks.reasons[k])  # noqa: E731
    assert sorted(name(i, masks, i) for i in order) == sorted(name(i, again, k) for k, i in enumerate(order))


def test_a_thousand_masks_hold_no_plane_each() -> None:
    """Memory: planes of the image and the runs, not a mask a box."""
    rng = np.random.default_rng(0)
    side, num = 512, 1000
    labels = rng.integers(0, 4, (side // 16, side // 16), dtype=np.uint16).repeat(16, 0).repeat(16, 1)
    class_map = ClassMap(labels=labels, scores=np.full((side, side), 0.5, np.float32))
    corners = torch.from_numpy(rng.integers(0, side - 64, (num, 2)).astype(np.float32))
    detections = Detections(
        boxes_xyxy=torch.cat([corners, corners + 64], dim=1),
        scores=torch.from_numpy(rng.random(num).astype(np.float32)),
        labels=torch.from_numpy(rng.integers(0, 3, num)),
    )
    tracemalloc.start()
    masks = masks_from_class_map(detections, class_map, CLASSES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6, "1,000 bool masks of this image would be 262 MB"
    assert sum(rle_area(rle) for rle in masks.rles if rle is not None) <= side * side
