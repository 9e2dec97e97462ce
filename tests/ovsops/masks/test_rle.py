import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovsops.errors import ShapeError
from ovsops.masks.rle import (
    Rle,
    counts_to_rle,
    crops_to_rles,
    label_map_to_rles,
    mask_to_rle,
    masks_to_rles,
    merge_rles,
    rle_area,
    rle_box_xywh,
    rle_from_coco,
    rle_to_counts,
    rle_to_mask,
)

# pycocotools 2.0.11 hands numpy its own array type without the copy keyword
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def oracle_counts(mask: np.ndarray) -> str:
    return pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode("ascii")


SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
MASKS = SIZES.flatmap(lambda size: arrays(np.bool_, size))
STACKS = st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda s: arrays(np.bool_, s)
)
LABELS = SIZES.flatmap(lambda size: arrays(np.uint16, size, elements=st.integers(0, 5)))


@pytest.mark.parametrize(
    ("rows", "counts", "text", "box"),
    [
        # worked out by hand: column by column, unset run first, 48 added to each group of five bits
        (["...", "..."], [6], "6", (0, 0, 0, 0)),
        (["###", "###"], [0, 6], "06", (0, 0, 3, 2)),
        (["#..", "..."], [0, 1, 5], "015", (0, 0, 1, 1)),
        (["...", "..#"], [5, 1], "51", (2, 1, 1, 1)),
        ([".#.", ".#."], [2, 2, 2], "222", (1, 0, 1, 2)),
        # a run that goes on at the head of the next column; the fourth count is stored as 1 - 2 = -1
        (["..#", "#.#", "#.#"], [1, 2, 3, 3], "1231", (0, 0, 3, 3)),
    ],
)
def test_runs_are_column_major_and_begin_unset(rows, counts, text, box) -> None:
    mask = np.array([[c == "#" for c in row] for row in rows])
    rle = mask_to_rle(mask)
    assert rle_to_counts(rle).tolist() == counts
    assert (rle.size_hw, rle.counts) == (mask.shape, text)
    assert rle_box_xywh(rle) == box
    assert rle_area(rle) == mask.sum()


@given(MASKS)
def test_every_mask_comes_back_and_equals_pycocotools(mask: np.ndarray) -> None:
    rle = mask_to_rle(mask)
    assert rle.counts == oracle_counts(mask)
    np.testing.assert_array_equal(rle_to_mask(rle), mask)
    assert rle_area(rle) == pycocotools.mask.area(rle.to_coco())
    assert rle_box_xywh(rle) == tuple(pycocotools.mask.toBbox(rle.to_coco()))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("density", [0.0, 0.001, 0.5, 0.999, 1.0])
def test_long_runs_equal_pycocotools(density: float, order: str) -> None:
    mask = np.asarray(np.random.default_rng(3).random((701, 1203)) < density, order=order)
    rle = mask_to_rle(mask)
    assert rle.counts == oracle_counts(mask)
    np.testing.assert_array_equal(rle_to_mask(rle), mask)


@given(STACKS)
def test_a_stack_is_its_masks_one_by_one(masks: np.ndarray) -> None:
    assert masks_to_rles(masks) == [mask_to_rle(mask) for mask in masks]


@given(LABELS, st.integers(5, 7))
def test_a_label_map_is_its_labels_one_by_one(labels: np.ndarray, num_labels: int) -> None:
    assert label_map_to_rles(labels, num_labels) == [
        mask_to_rle(labels == j) for j in range(1, num_labels + 1)
    ]


@given(MASKS, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_a_crop_is_the_mask_that_it_lies_in(
    crop: np.ndarray, top: int, left: int, below: int, right: int
) -> None:
    mask = np.pad(crop, ((top, below), (left, right)))
    assert crops_to_rles([crop], [(top, left)], mask.shape) == [mask_to_rle(mask)]


@given(MASKS)
def test_uncompressed_counts_go_both_ways(mask: np.ndarray) -> None:
    rle = mask_to_rle(mask)
    counts = rle_to_counts(rle).tolist()
    assert counts_to_rle(counts, rle.size_hw) == rle
    assert rle_from_coco({"size": list(mask.shape), "counts": counts}) == rle
    assert rle_from_coco(rle.to_coco()) == rle
    assert rle_from_coco({"size": mask.shape, "counts": rle.counts.encode("ascii")}) == rle


@given(STACKS.filter(len), st.booleans())
def test_merging_equals_the_masks_logic(masks: np.ndarray, intersect: bool) -> None:
    expected = masks.all(axis=0) if intersect else masks.any(axis=0)
    assert merge_rles(masks_to_rles(masks), intersect=intersect) == mask_to_rle(expected)


def test_empty_runs_inside_mean_the_same_mask() -> None:
    assert counts_to_rle([2, 1, 0, 2, 1, 0], (2, 3)) == counts_to_rle([2, 3, 1], (2, 3))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("5 1", "byte 1 is 32"),
        ("5é", "byte 1 is 195"),
        ("5\ud800", "byte 1 is 237"),
        ("5\x00", "byte 1 is 0"),
        ("6P", "ends inside a number"),
        ("P" * 50 + "0", "a number has 51 groups"),
        ("oooooo?", "more than the mask's pixels"),
        ("O5", "count 0 is -1"),
        ("5", "cover 5 pixels, expected 6"),
        ("061", "cover 7 pixels, expected 6"),
        ("02222", "cover 12 pixels, expected 6"),
        ("011N", "count 3 is -1"),
    ],
)
def test_hostile_counts_are_refused(text: str, why: str) -> None:
    rle = Rle((2, 3), text)
    for read in (rle_to_counts, rle_to_mask, rle_area, rle_box_xywh):
        with pytest.raises(ShapeError, match=why):
            read(rle)


@given(st.text(max_size=12), SIZES)
def test_any_string_is_a_mask_or_a_shape_error(text: str, size_hw: tuple[int, int]) -> None:
    try:
        mask = rle_to_mask(Rle(size_hw, text))
    except ShapeError:
        return
    assert mask.shape == size_hw


@settings(max_examples=200)
@given(st.lists(st.integers(48, 111), max_size=9).map(bytes), SIZES)
def test_what_is_accepted_reads_as_pycocotools_reads_it(data: bytes, size_hw: tuple[int, int]) -> None:
    rle = Rle(size_hw, data.decode("ascii"))
    try:
        mask = rle_to_mask(rle)
    except ShapeError:
        return
    np.testing.assert_array_equal(mask, pycocotools.mask.decode(rle.to_coco()).astype(bool))


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ([-1, 7], "count 0 is -1"),
        ([2**40, 6], "more than the mask"),
        ([2**70], "not whole"),
        ([], "cover 0 pixels"),
    ],
)
def test_uncompressed_counts_are_checked(counts: list[int], why: str) -> None:
    with pytest.raises(ShapeError, match=why):
        counts_to_rle(counts, (2, 3))


@pytest.mark.parametrize("size_hw", [(0, 3), (3, 0), (-2, -3), (100_000, 100_000)])
def test_sizes_are_checked_before_anything_is_allocated(size_hw: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match="RLE size"):
        Rle(size_hw, "0")


@pytest.mark.parametrize(
    "segmentation", [{}, {"counts": "6"}, {"size": [2], "counts": "6"}, {"size": "ab", "counts": "6"}]
)
def test_what_is_not_rle_is_named(segmentation: dict) -> None:
    with pytest.raises(ShapeError, match="COCO segmentation needs"):
        rle_from_coco(segmentation)


def test_labels_outside_the_range_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"labels 0\.\.7: expected 0\.\.6"):
        label_map_to_rles(np.array([[0, 7]], np.uint16), 6)


def test_a_crop_outside_the_image_is_refused() -> None:
    with pytest.raises(ShapeError, match="leaves the 4x4 image"):
        crops_to_rles([np.ones((2, 2), np.bool_)], [(3, 0)], (4, 4))


def test_crops_of_several_sizes_stay_apart() -> None:
    crops = [np.ones((1, 3), np.bool_), np.zeros((2, 2), np.bool_), np.ones((4, 1), np.bool_)]
    corners = [(3, 1), (0, 0), (0, 3)]
    masks = np.zeros((3, 4, 4), np.bool_)
    masks[0, 3, 1:], masks[2, :, 3] = True, True
    assert crops_to_rles(crops, corners, (4, 4)) == masks_to_rles(masks)


def test_merging_needs_one_size() -> None:
    with pytest.raises(ShapeError, match="one size"):
        merge_rles([Rle((2, 3), "6"), Rle((3, 2), "6")])
