import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from ovsops.masks.components import connected_components, fill_holes, nearest_owner

LABELS = arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2))
NEIGHBOURS = {4: ndimage.generate_binary_structure(2, 1), 8: ndimage.generate_binary_structure(2, 2)}


@given(LABELS, st.sampled_from([4, 8]))
def test_parts_are_those_of_each_label_alone(labels: np.ndarray, connectivity: int) -> None:
    parts = connected_components(labels, connectivity)
    assert ((parts == 0) == (labels == 0)).all()
    num_parts = 0
    for label in (1, 2):
        expected, n = ndimage.label(labels == label, structure=NEIGHBOURS[connectivity])
        num_parts += n
        pairs = {*zip(parts[labels == label].tolist(), expected[labels == label].tolist(), strict=True)}
        assert len(pairs) == n
    assert len(np.unique(parts[parts > 0])) == num_parts == parts.max(initial=0)


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.sampled_from([4, 8]))
def test_holes_of_one_region_are_those_that_scipy_fills(mask: np.ndarray, connectivity: int) -> None:
    filled = fill_holes(mask.astype(np.uint32), max_hole_pixels=99, connectivity=connectivity)
    around = NEIGHBOURS[12 - connectivity]
    np.testing.assert_array_equal(filled > 0, ndimage.binary_fill_holes(mask, structure=around))


@pytest.mark.parametrize(("connectivity", "is_filled"), [(4, False), (8, True)])
def test_a_diagonal_gap_leaks_only_where_regions_do_not_hold_at_corners(
    connectivity: int, is_filled: bool
) -> None:
    ring = np.array([[0, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]], np.uint32)
    filled = fill_holes(ring, max_hole_pixels=4, connectivity=connectivity)
    assert bool((filled[1:3, 1:3] == 1).all()) == is_filled


def test_a_gap_between_two_regions_is_no_hole() -> None:
    regions = np.array([[1, 1, 2, 2], [1, 0, 0, 2], [1, 1, 2, 2]], np.uint32)
    np.testing.assert_array_equal(fill_holes(regions, max_hole_pixels=9, connectivity=8), regions)


def test_islands_go_to_the_pixel_nearest_to_any_of_theirs() -> None:
    islands = np.array(
        [[0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0]], np.uint32
    )
    owners = np.zeros_like(islands)
    owners[0, 0], owners[0, 7] = 8, 9
    numbers, nearest = nearest_owner(islands, owners)
    assert (numbers.tolist(), nearest.tolist()) == ([1, 2], [9, 8])
