"""From boxes and masks to instances: suppression, agreement, what a mask is suspected of, nothing lost."""

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovsops.backbones.detections import Detections, no_detections
from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.regions import CAPPED, HOLES_FILLED, ISLANDS_JOINED, OVER_CAP, TOO_SMALL, Region
from ovsops.masks.rle import mask_to_rle
from ovsops.regions import reasons
from ovsops.regions.box_masks import BoxMasks, box_to_rle, masks_from_class_map
from ovsops.regions.instances import FoundInstances, InstanceConfig, build_instances
from ovsops.regions.reasons import CARRIED, LEFT_OUT
from tests.ovsops.regions.pictures import CLASSES, boxed, drawn, masked, shown

QUIET = InstanceConfig(tiny_pixels=0, border_pixels=0, filled_share=1.0, huge_share=1.0)


def given_masks(*pictures: str | None, score: float = float("nan")) -> BoxMasks:
    rles = [None if picture is None else masked(picture) for picture in pictures]
    sizes = {rle.size_hw for rle in rles if rle is not None}
    return BoxMasks(
        size_hw=sizes.pop(),
        rles=tuple(rles),
        scores=np.full(len(rles), score),
        reasons=tuple(("R_NO_MASK",) if rle is None else () for rle in rles),
    )


def built(detections: Detections, masks: BoxMasks, **fields: Any) -> FoundInstances:
    return build_instances(detections, masks, CLASSES, replace(QUIET, **fields))


def test_an_instance_says_where_it_comes_from() -> None:
    masks = given_masks(".##. .##. ....", score=0.25)
    [found] = built(boxed(((1, 0, 4, 2), 0.5, 2)), masks).instances
    assert isinstance(found, Region)
    assert (found.category_id, found.label, found.detection) == (5, 2, 0)
    assert (found.bbox_xywh, found.box_xyxy, found.area) == ((1, 0, 2, 2), (1, 0, 3, 2), 4)
    assert (found.score, found.mask_score, found.detector_box_xyxy) == (0.5, 0.25, (1, 0, 4, 2))
    assert found.agreement == pytest.approx(4 / 6)
    assert found.mask_agreement is None
    assert shown(found.rle) == ".##. .##. ...."
    assert found.reasons == ("R_FILLS_BOX",)


def test_a_mask_without_a_score_has_none() -> None:
    [found] = built(boxed(((0, 0, 2, 1), 0.5, 0)), given_masks("##.")).instances
    assert found.mask_score is None


def codes(picture: str, box: Any = None, **fields: Any) -> set[str]:
    size = (len(picture.split()), len(picture.split()[0]))
    config = {"hollow_share": 0.0} | fields
    found = built(boxed((box or (0, 0, size[1], size[0]), 0.5, 0)), given_masks(picture), **config)
    return set(found.instances[0].reasons)


@pytest.mark.parametrize(
    ("code", "picture", "fields", "innocent"),
    [
        ("R_TINY", ".... .##. .#..", {"tiny_pixels": 4}, {"tiny_pixels": 3}),
        ("R_TOUCHES_BORDER", ".... ..## ..#.", {"border_pixels": 1}, {"border_pixels": 0}),
        ("R_TOUCHES_BORDER", "..... ..#.. .....", {"border_pixels": 2}, {"border_pixels": 1}),
        ("R_FRAGMENTED", "#.#. .... #.#.", {"max_parts": 3}, {"max_parts": 4}),
        ("R_FRAGMENTED", "##.. ..## ....", {"max_parts": 1, "connectivity": 4}, {"max_parts": 1}),
        ("R_FRAGMENTED", "##.. ##.# ....", {"max_parts": 1}, {"max_parts": 1, "min_part_share": 0.3}),
        ("R_FILLS_BOX", ".##. .##. .#..", {"filled_share": 0.83}, {"filled_share": 0.84}),
        ("R_HOLLOW", "#... .... ...#", {"hollow_share": 0.17}, {"hollow_share": 0.16}),
        ("R_HUGE", "#### ####", {"huge_share": 1.0, "filled_share": 1.0}, {}),
    ],
)
def test_what_a_mask_is_suspected_of(
    code: str, picture: str, fields: dict[str, Any], innocent: dict[str, Any]
) -> None:
    assert code in codes(picture, **fields)
    if innocent:
        assert code not in codes(picture, **innocent)


def test_agreement_is_that_of_the_box_within_the_image_and_the_masks_box() -> None:
    picture, box = "##.. ##.. ....", (-4.0, -3.0, 3.0, 2.0)  # cut: 3 x 2, tight: 2 x 2
    [found] = built(boxed((box, 0.5, 0)), given_masks(picture)).instances
    assert found.agreement == pytest.approx(4 / 6)
    assert "R_LOW_AGREEMENT" in codes(picture, box, min_agreement=0.67)
    assert "R_LOW_AGREEMENT" not in codes(picture, box, min_agreement=0.66)


def test_masks_of_two_sources_are_compared() -> None:
    detections = boxed(((0, 0, 4, 1), 0.9, 0), ((0, 1, 4, 2), 0.8, 0), ((0, 2, 4, 3), 0.7, 0))
    first = given_masks("###. .... ....", ".... ##.. ....", ".... .... ##..")
    second = given_masks(".##. .... ....", ".... #### ....", None)
    found = build_instances(detections, first, CLASSES, QUIET, second=second).instances
    assert [i.mask_agreement for i in found] == pytest.approx([2 / 3, 0.5, 0.0])
    assert ["R_SEGMENTERS_DISAGREE" in i.reasons for i in found] == [False, False, True]


SAME = boxed(((0, 0, 4, 1), 0.5, 0), ((0, 0, 4, 1), 0.9, 0), ((0, 0, 4, 1), 0.7, 2))
TRIPLE = given_masks("####", "###.", "####")


def test_of_two_masks_of_a_class_the_better_stays() -> None:
    found = built(SAME, TRIPLE)
    assert [(i.detection, i.category_id) for i in found.instances] == [(1, 7), (2, 5)]
    assert found.dropped == {"R_DOUBLE": 1}
    assert [i.detection for i in built(SAME, TRIPLE, nms_scope="image").instances] == [1]
    assert [i.detection for i in built(SAME, TRIPLE, nms_iou=None).instances] == [1, 2, 0]


def test_over_the_cap_the_best_stay_and_say_so() -> None:
    found = built(SAME, TRIPLE, nms_iou=None, max_instances=2)
    assert [i.detection for i in found.instances] == [1, 2]
    assert all("R_CAPPED" in i.reasons for i in found.instances)
    assert found.dropped == {"R_OVER_CAP": 1}


def test_no_detections_whatever_the_vocabulary() -> None:
    none = BoxMasks(size_hw=(3, 3), rles=(), scores=np.zeros(0), reasons=())
    for classes in ([], CLASSES):
        assert build_instances(no_detections(), none, classes) == FoundInstances()


def test_an_empty_mask_is_no_mask() -> None:
    found = built(boxed(((0, 0, 2, 1), 0.5, 0)), given_masks("..."))
    assert (found.instances, found.dropped) == ((), {"R_NO_MASK": 1})


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ShapeError, match="1 masks for 3 boxes"):
        built(SAME, given_masks("####"))
    with pytest.raises(ShapeError, match="2 second masks"):
        build_instances(SAME, TRIPLE, CLASSES, second=given_masks("####", "####"))
    with pytest.raises(ShapeError, match="one image has one size"):
        build_instances(SAME, TRIPLE, CLASSES, second=given_masks("###", "###", "###"))
    with pytest.raises(ShapeError, match="of 2 classes"):
        build_instances(SAME, TRIPLE, CLASSES[:2])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nms_iou": 1.5}, "nms_iou"),
        ({"max_parts": 0}, "max_parts 0"),
        ({"border_pixels": -1}, "border_pixels"),
        ({"hollow_share": 0.9, "filled_share": 0.5}, "hollow and filled"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InstanceConfig(**fields)


LISTS = st.lists(
    st.tuples(
        st.tuples(*[st.integers(0, 6).map(float)] * 4),
        st.sampled_from([0.25, 0.5, 0.75]),
        st.integers(0, 2),
        arrays(np.bool_, (5, 6)),
    ),
    max_size=7,
)


def from_list(found: list[Any]) -> tuple[Detections, BoxMasks]:
    masks = BoxMasks(
        size_hw=(5, 6),
        rles=tuple(mask_to_rle(mask) for *_, mask in found),
        scores=np.full(len(found), 0.5),
        reasons=((),) * len(found),
    )
    return boxed(*[(box, score, label) for box, score, label, _ in found]), masks


@given(LISTS, st.randoms(), st.sampled_from(["class", "image"]), st.sampled_from([2, 100]))
def test_nothing_is_lost_and_order_does_not_matter(
    found: list[Any], random: Any, scope: Any, cap: int
) -> None:
    config = InstanceConfig(nms_scope=scope, max_instances=cap)
    first = build_instances(*from_list(found), CLASSES, config)
    assert len(first.instances) + sum(first.dropped.values()) == len(found)
    assert set(first.dropped) <= set(LEFT_OUT)
    for one in first.instances:
        assert set(one.reasons) <= set(CARRIED)
        assert list(one.reasons) == sorted(one.reasons)
    random.shuffle(found)
    again = build_instances(*from_list(found), CLASSES, config)
    assert again.dropped == first.dropped
    assert [replace(i, detection=0) for i in again.instances] == [
        replace(i, detection=0) for i in first.instances
    ]


def test_every_code_is_described() -> None:
    assert all(
        text.endswith(".") and code.startswith("R_") for code, text in (*CARRIED.items(), *LEFT_OUT.items())
    )
    own = {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
    assert own | {CAPPED, HOLES_FILLED, ISLANDS_JOINED, OVER_CAP, TOO_SMALL} == {*CARRIED, *LEFT_OUT}


def test_from_a_class_map_in_one_go() -> None:
    class_map = drawn("11... 11.33 ...33")
    detections = boxed(((0, 0, 2, 2), 0.9, 0), ((3, 1, 5, 3), 0.8, 2), ((0, 2, 3, 3), 0.7, 0))
    found = built(detections, masks_from_class_map(detections, class_map, CLASSES))
    assert [(i.category_id, shown(i.rle), i.agreement) for i in found.instances] == [
        (7, "##... ##... .....", 1.0),
        (5, "..... ...## ...##", 1.0),
    ]
    assert found.dropped == {"R_NO_MASK": 1}


def test_no_mask_is_drawn() -> None:
    """Forty masks of a picture of 16 million pixels: less memory than one of them as bool."""
    size_hw = (1024, 16384)
    found = [((8.0 * i, 0.0, 8.0 * i + 12, 10.0), 0.5, 0) for i in range(40)]
    rles = tuple(box_to_rle(np.array([8 * i, 0, 8 * i + 12, 10]), size_hw) for i in range(40))
    masks = BoxMasks(size_hw=size_hw, rles=rles, scores=np.zeros(40), reasons=((),) * 40)
    tracemalloc.start()
    instances = build_instances(boxed(*found), masks, CLASSES, second=masks).instances
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(instances) == 40
    assert peak < 2e6
