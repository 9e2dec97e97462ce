import numpy as np
import pycocotools.mask
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.polygons import (
    PolygonConfig,
    coco_polygons_to_mask,
    mask_to_coco_polygons,
    mask_to_polygons,
    polygons_to_coco,
    polygons_to_mask,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MASKS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda size: arrays(np.bool_, size))
EXACT = PolygonConfig()


def blob(size: int, seed: int) -> np.ndarray:
    """A few discs with a hole in each."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:size, :size]
    mask = np.zeros((size, size), bool)
    for _ in range(4):
        y, x, r = rng.uniform(0.2, 0.8) * size, rng.uniform(0.2, 0.8) * size, rng.uniform(0.08, 0.2) * size
        distance = np.hypot(yy - y, xx - x)
        mask |= distance < r
        mask &= ~(distance < 0.4 * r)
    return mask


def test_a_square_with_a_hole_has_the_corners_of_its_pixels() -> None:
    mask = np.zeros((40, 40), bool)
    mask[10:30, 5:25] = True
    mask[15:25, 10:20] = False
    polygons = mask_to_polygons(mask)
    assert polygons.area == 300
    (polygon,) = polygons.geoms
    assert polygon.bounds == (5, 10, 25, 30)
    assert sorted(polygon.exterior.coords[:-1]) == [(5, 10), (5, 30), (25, 10), (25, 30)]
    assert [sorted(ring.coords[:-1]) for ring in polygon.interiors] == [
        [(10, 15), (10, 25), (20, 15), (20, 25)]
    ]


def test_coco_rings_leave_the_hole_out() -> None:
    mask = np.zeros((40, 40), bool)
    mask[10:30, 5:25] = True
    mask[15:25, 10:20] = False
    found = mask_to_coco_polygons(mask, EXACT)
    assert found.iou == 1.0
    rles = pycocotools.mask.frPyObjects(found.rings, 40, 40)
    assert pycocotools.mask.area(pycocotools.mask.merge(rles)) == 300
    assert sum(shapely.Polygon(np.reshape(ring, (-1, 2))).area for ring in found.rings) == 300


@given(MASKS)
def test_the_outline_of_a_mask_gives_the_mask(mask: np.ndarray) -> None:
    polygons = mask_to_polygons(mask)
    assert polygons.is_valid
    assert polygons.area == mask.sum()
    np.testing.assert_array_equal(polygons_to_mask(polygons, mask.shape), mask)


@given(MASKS)
def test_coco_rings_give_the_mask_here_and_in_pycocotools(mask: np.ndarray) -> None:
    found = mask_to_coco_polygons(mask, EXACT)
    assert found.iou == 1.0
    np.testing.assert_array_equal(coco_polygons_to_mask(found.rings, mask.shape), mask)
    assert all(len(ring) >= 8 and shapely.Polygon(np.reshape(ring, (-1, 2))).is_valid for ring in found.rings)
    if mask.any():
        rles = pycocotools.mask.frPyObjects(found.rings, *mask.shape)
        np.testing.assert_array_equal(pycocotools.mask.decode(pycocotools.mask.merge(rles)), mask)


def test_eight_parts_and_three_holes_are_lossless() -> None:
    mask = np.zeros((60, 90), bool)
    for part in range(8):
        y, x = 4 + 26 * (part // 4), 3 + 21 * (part % 4)
        mask[y : y + 20, x : x + 15] = True
        if part < 3:
            mask[y + 5 : y + 9, x + 4 : x + 8] = False
    polygons = mask_to_polygons(mask)
    assert (len(polygons.geoms), sum(len(p.interiors) for p in polygons.geoms)) == (8, 3)
    assert len(polygons_to_coco(polygons)) == 11
    np.testing.assert_array_equal(polygons_to_mask(polygons, mask.shape), mask)
    assert mask_to_coco_polygons(mask, EXACT).iou == 1.0


def test_one_pixel_the_whole_image_and_nothing() -> None:
    assert mask_to_coco_polygons(np.ones((1, 1), bool), EXACT).iou == 1.0
    assert mask_to_polygons(np.ones((3, 4), bool)).bounds == (0, 0, 4, 3)
    nothing = mask_to_coco_polygons(np.zeros((3, 4), bool), EXACT)
    assert (nothing.rings, nothing.iou) == ([], 1.0)


@pytest.mark.parametrize(("tolerance", "least_iou"), [(0.5, 0.99), (1.0, 0.95), (2.0, 0.9)])
def test_simplifying_saves_corners_and_says_what_it_costs(tolerance: float, least_iou: float) -> None:
    mask = blob(200, seed=5)
    exact = mask_to_coco_polygons(mask, EXACT)
    simple = mask_to_coco_polygons(mask, PolygonConfig(simplify_tolerance_px=tolerance))
    assert sum(map(len, simple.rings)) < sum(map(len, exact.rings))
    drawn = coco_polygons_to_mask(simple.rings, mask.shape)
    assert simple.iou == (mask & drawn).sum() / (mask | drawn).sum() >= least_iou


@settings(max_examples=40)
@given(MASKS, st.sampled_from([0.5, 1.0, 5.0]))
def test_simplified_rings_are_polygons_of_a_mask_that_is_still_there(
    mask: np.ndarray, tolerance: float
) -> None:
    found = mask_to_coco_polygons(mask, PolygonConfig(simplify_tolerance_px=tolerance))
    assert bool(found.rings) == bool(mask.any())
    assert all(len(ring) >= 6 for ring in found.rings)
    assert 0 <= found.iou <= 1


def test_slanted_edges_take_the_pixels_whose_centres_they_hold() -> None:
    triangle = [0.0, 0.0, 4.0, 0.0, 0.0, 4.0]
    expected = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(coco_polygons_to_mask([triangle], (4, 4)), expected)


def test_rings_are_a_union_and_are_cut_at_the_image() -> None:
    big, small = [-9.0, -9.0, 2.0, -9.0, 2.0, 9.0, -9.0, 9.0], [0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    expected = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], bool)
    np.testing.assert_array_equal(coco_polygons_to_mask([big, small], (2, 4)), expected)


@pytest.mark.parametrize(
    "ring", [[], [0.0, 0.0, 1.0, 1.0], [0.0] * 7, [0.0, 0.0, 1.0, 1.0, float("nan"), 2.0]]
)
def test_what_is_no_ring_is_refused(ring: list[float]) -> None:
    with pytest.raises(ShapeError, match="COCO polygon 0 has"):
        coco_polygons_to_mask([ring], (4, 4))


def test_config_refuses_nonsense() -> None:
    with pytest.raises(ConfigError, match="simplify_tolerance_px -1"):
        PolygonConfig(simplify_tolerance_px=-1.0)
