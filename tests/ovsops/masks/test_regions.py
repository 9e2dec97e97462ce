import math
from dataclasses import dataclass, replace
from time import process_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.class_map import ClassMap
from ovsops.masks.regions import RegionConfig, class_map_to_regions, count_things, find_regions
from ovsops.masks.rle import mask_to_rle, rle_area, rle_box_xywh, rle_to_mask


@dataclass(frozen=True)
class NamedClass:
    id: int
    kind: str


CLASSES = [NamedClass(7, "thing"), NamedClass(3, "stuff"), NamedClass(5, "thing")]
EVERYTHING = RegionConfig(min_region_share=0.0)
SHARPS = ndimage.generate_binary_structure(2, 2)


def drawn(picture: str, scores: float | np.ndarray = 0.5) -> ClassMap:
    """Digits are labels, dots background; a picture's rows are words."""
    labels = np.array([[0 if c == "." else int(c) for c in row] for row in picture.split()], np.uint16)
    return ClassMap(
        labels=labels, scores=np.broadcast_to(np.float32(scores), labels.shape).astype(np.float32)
    )


def pictures(regions, size_hw: tuple[int, int]) -> list[str]:
    masks = [rle_to_mask(region.rle) for region in regions]
    assert all(mask.shape == size_hw for mask in masks)
    return [" ".join("".join("#" if on else "." for on in row) for row in mask) for mask in masks]


LABELS = st.tuples(st.integers(1, 10), st.integers(1, 10)).flatmap(
    lambda size: arrays(np.uint16, size, elements=st.integers(0, 3))
)
CONFIGS = st.builds(
    RegionConfig,
    min_region_share=st.sampled_from([0.0, 0.02, 0.1]),
    connectivity=st.sampled_from([4, 8]),
    islands=st.sampled_from(["drop", "join"]),
    max_hole_pixels=st.sampled_from([0, 2, 100]),
    max_regions=st.sampled_from([2, 100]),
)


def test_things_come_apart_and_stuff_stays_whole() -> None:
    class_map = drawn("11.22 ....2 1.2.3 2....")
    found = class_map_to_regions(class_map, CLASSES, EVERYTHING)
    assert [region.category_id for region in found] == [7, 7, 3, 5]
    assert pictures(found, (4, 5)) == [
        "##... ..... ..... .....",
        "..... ..... #.... .....",
        "...## ....# ..#.. #....",
        "..... ..... ....# .....",
    ]
    assert [region.area for region in found] == [2, 1, 5, 1]
    assert found[2].bbox_xywh == (0.0, 0.0, 5.0, 4.0)
    assert all(region.reasons == () for region in found)


@given(labels=LABELS, config=CONFIGS)
def test_things_are_counted_as_they_would_be_found(labels: np.ndarray, config: RegionConfig) -> None:
    things = np.where(labels == 2, 0, labels).astype(np.uint16)
    class_map = ClassMap(labels=things, scores=np.ones(things.shape, np.float32))
    assert count_things(things, config) == len(find_regions(class_map, CLASSES, config).regions)


def test_order_is_class_then_largest_then_top_then_left() -> None:
    class_map = drawn("1.1.3 ..... 11.11 ..... 1...3")
    found = class_map_to_regions(class_map, CLASSES, EVERYTHING)
    assert [(r.category_id, r.bbox_xywh[:2]) for r in found] == [
        (7, (0, 2)),
        (7, (3, 2)),
        (7, (0, 0)),
        (7, (2, 0)),
        (7, (0, 4)),
        (5, (4, 0)),
        (5, (4, 4)),
    ]


def test_regions_of_one_box_and_area_still_have_an_order() -> None:
    found = class_map_to_regions(
        drawn("1.1 .1. 1.1".replace(" ", " ")), CLASSES, replace(EVERYTHING, connectivity=4)
    )
    assert [r.bbox_xywh[:2] for r in found] == [(0, 0), (2, 0), (1, 1), (0, 2), (2, 2)]


def test_connectivity_decides_about_corners() -> None:
    class_map = drawn("1.. .1. ..1")
    assert len(class_map_to_regions(class_map, CLASSES, replace(EVERYTHING, connectivity=8))) == 1
    assert len(class_map_to_regions(class_map, CLASSES, replace(EVERYTHING, connectivity=4))) == 3


def test_score_is_the_mean_of_the_winning_scores() -> None:
    scores = np.array([[0.25, 0.75, 0.9], [0.1, 0.1, 0.5]], np.float32)
    found = class_map_to_regions(drawn("11. ..3", scores), CLASSES, EVERYTHING)
    assert [region.score for region in found] == pytest.approx([0.5, 0.5])


def test_small_regions_are_dropped_and_counted() -> None:
    class_map = drawn("11..1 11... 2...3")
    config = RegionConfig(min_region_share=2 / 15)
    found = find_regions(class_map, CLASSES, config)
    assert pictures(found.regions, (3, 5)) == ["##... ##... ....."]
    assert found.dropped == {"R_TOO_SMALL": 3}
    assert (
        find_regions(class_map, CLASSES, RegionConfig(min_region_share=0.0, min_region_pixels=5)).regions
        == ()
    )


def test_islands_join_the_nearest_region_of_their_class() -> None:
    class_map = drawn("11....1.11 11......11 ...3......")
    config = RegionConfig(min_region_pixels=4, min_region_share=0.0, islands="join")
    found = find_regions(class_map, CLASSES, config)
    assert pictures(found.regions, (3, 10)) == [
        "......#.## ........## ..........",
        "##........ ##........ ..........",
    ]
    assert [region.reasons for region in found.regions] == [("R_ISLANDS_JOINED",), ()]
    assert found.dropped == {"R_TOO_SMALL": 1}, "class 5 has no region to join"
    assert found.regions[0].bbox_xywh == (6, 0, 4, 2)


def test_small_holes_are_filled_and_do_not_count_in_the_score() -> None:
    scores = np.full((5, 7), 0.5, np.float32)
    scores[1, 1] = 1.0
    class_map = drawn("1111111 1.11111 111..11 1111111 .111111", scores)
    found = class_map_to_regions(class_map, CLASSES, replace(EVERYTHING, max_hole_pixels=1))
    assert pictures(found, (5, 7)) == ["####### ####### ###..## ####### .######"]
    assert found[0].reasons == ("R_HOLES_FILLED",)
    assert (found[0].area, found[0].score) == (32, 0.5)
    filled = class_map_to_regions(class_map, CLASSES, replace(EVERYTHING, max_hole_pixels=2))
    assert pictures(filled, (5, 7)) == ["####### ####### ####### ####### .######"]


def test_a_hole_with_a_region_in_it_stays() -> None:
    class_map = drawn("1111 13.1 1111")
    found = class_map_to_regions(class_map, CLASSES, replace(EVERYTHING, max_hole_pixels=9))
    assert pictures(found, (3, 4)) == ["#### #..# ####", ".... .#.. ...."]
    without = class_map_to_regions(class_map, CLASSES, RegionConfig(min_region_pixels=2, max_hole_pixels=9))
    assert pictures(without, (3, 4)) == ["#### #### ####"]


def test_the_cap_keeps_the_largest_and_says_so() -> None:
    class_map = drawn("11.1. ..... 333.1")
    found = find_regions(class_map, CLASSES, replace(EVERYTHING, max_regions=2))
    assert [(region.category_id, region.area) for region in found.regions] == [(7, 2), (5, 3)]
    assert all(region.reasons == ("R_CAPPED",) for region in found.regions)
    assert found.dropped == {"R_OVER_CAP": 2}


@given(LABELS, CONFIGS)
def test_no_region_overlaps_and_each_is_true_to_its_mask(labels: np.ndarray, config: RegionConfig) -> None:
    scores = np.linspace(0, 1, labels.size, dtype=np.float32).reshape(labels.shape)
    found = find_regions(ClassMap(labels=labels, scores=scores), CLASSES, config)
    taken = np.zeros(labels.shape, int)
    for region in found.regions:
        mask = rle_to_mask(region.rle)
        taken += mask
        assert region.rle == mask_to_rle(mask)
        assert region.area == rle_area(region.rle) >= max(1, math.ceil(config.min_region_share * labels.size))
        assert region.bbox_xywh == rle_box_xywh(region.rle)
        label = [c.id for c in CLASSES].index(region.category_id) + 1
        won = mask & (labels == label)
        assert region.score == pytest.approx(scores[won].mean(), abs=1e-6)
        assert ("R_HOLES_FILLED" in region.reasons) == bool((mask & ~won).any())
        assert ("R_CAPPED" in region.reasons) == ("R_OVER_CAP" in found.dropped)
    assert taken.max(initial=0) <= 1
    assert len(found.regions) <= config.max_regions


@given(LABELS)
def test_every_labelled_pixel_is_in_one_region_when_nothing_is_too_small(labels: np.ndarray) -> None:
    class_map = ClassMap(labels=labels, scores=np.ones(labels.shape, np.float32))
    found = class_map_to_regions(class_map, CLASSES, EVERYTHING)
    again = np.zeros_like(labels)
    for region in found:
        again[rle_to_mask(region.rle)] = [c.id for c in CLASSES].index(region.category_id) + 1
    np.testing.assert_array_equal(again, labels)
    num_parts = {j: ndimage.label(labels == j, structure=SHARPS)[1] for j in (1, 3)}
    assert sum(r.category_id == 7 for r in found) == num_parts[1]
    assert sum(r.category_id == 5 for r in found) == num_parts[3]


def test_an_image_without_objects_has_no_regions() -> None:
    found = find_regions(drawn("... ..."), CLASSES, EVERYTHING)
    assert (found.regions, dict(found.dropped)) == ((), {})


def test_five_thousand_objects_are_kept_exactly_or_capped_with_a_flag() -> None:
    labels = np.zeros((200, 400), np.uint16)
    labels[::4, ::4] = 1  # 50 x 100 objects of one pixel
    labels[1::4, ::4] = 1
    class_map = ClassMap(labels=labels, scores=np.full(labels.shape, 0.5, np.float32))
    every = find_regions(class_map, CLASSES, replace(EVERYTHING, max_regions=5000))
    assert len(every.regions) == 5000
    assert sum(region.area for region in every.regions) == 10_000
    assert dict(every.dropped) == {}
    capped = find_regions(class_map, CLASSES, EVERYTHING)
    assert len(capped.regions) == 1000
    assert capped.dropped == {"R_OVER_CAP": 4000}
    assert {region.reasons for region in capped.regions} == {("R_CAPPED",)}


def test_one_pixel_and_the_whole_image_are_exact() -> None:
    (pixel,) = class_map_to_regions(drawn("... .1. ..."), CLASSES, EVERYTHING)
    assert (pixel.area, pixel.bbox_xywh) == (1, (1, 1, 1, 1))
    (whole,) = class_map_to_regions(drawn("222 222"), CLASSES, EVERYTHING)
    assert (whole.area, whole.bbox_xywh, whole.rle.counts) == (6, (0, 0, 3, 2), "06")


def test_eight_parts_and_three_holes_are_lossless() -> None:
    labels = np.zeros((60, 90), np.uint16)
    for part in range(8):
        y, x = 4 + 26 * (part // 4), 3 + 21 * (part % 4)
        labels[y : y + 20, x : x + 15] = 2
        if part < 3:
            labels[y + 5 : y + 9, x + 4 : x + 8] = 0
    class_map = ClassMap(labels=labels, scores=np.ones(labels.shape, np.float32))
    (region,) = class_map_to_regions(class_map, CLASSES, EVERYTHING)
    np.testing.assert_array_equal(rle_to_mask(region.rle), labels == 2)
    assert region.area == 8 * 300 - 3 * 16


def test_a_map_with_a_handful_of_regions_takes_milliseconds() -> None:
    labels = np.zeros((240, 320), np.uint16)
    yy, xx = np.mgrid[:240, :320]
    for j, (y, x, r) in enumerate(
        [(60, 60, 40), (120, 200, 60), (200, 80, 30), (40, 280, 25), (180, 280, 20)]
    ):
        labels[(yy - y) ** 2 + (xx - x) ** 2 < r * r] = 1 + j % 3
    class_map = ClassMap(labels=labels, scores=np.full(labels.shape, 0.5, np.float32))
    seconds = []
    for _ in range(20):
        start = process_time()
        class_map_to_regions(class_map, CLASSES, RegionConfig())
        seconds.append(process_time() - start)
    assert min(seconds) < 0.006, "with type checks on; 1 ms without"


def test_labels_beyond_the_vocabulary_are_refused() -> None:
    with pytest.raises(ShapeError, match="label 9 of 3 classes"):
        class_map_to_regions(drawn("9"), CLASSES, EVERYTHING)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_region_share", 1.5),
        ("min_region_pixels", 0),
        ("max_hole_pixels", -1),
        ("max_regions", 0),
    ],
)
def test_config_refuses_nonsense(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"regions: {field}"):
        RegionConfig(**{field: value})
