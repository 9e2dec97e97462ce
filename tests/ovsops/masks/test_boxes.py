import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovsops.masks.boxes import boxes_xywh_to_xyxy, boxes_xyxy_to_xywh, mask_to_box_xyxy


def test_corners_and_sizes_are_two_names_of_one_box() -> None:
    corners = np.array([[1, 2, 4, 8], [0, 0, 0, 0]])
    np.testing.assert_array_equal(boxes_xyxy_to_xywh(corners), [[1, 2, 3, 6], [0, 0, 0, 0]])
    np.testing.assert_array_equal(boxes_xywh_to_xyxy(boxes_xyxy_to_xywh(corners)), corners)


def test_one_box_and_no_box_convert_too() -> None:
    assert boxes_xyxy_to_xywh(np.array([1.5, 2.0, 4.0, 8.0])).tolist() == [1.5, 2.0, 2.5, 6.0]
    assert boxes_xywh_to_xyxy(np.zeros((0, 4))).shape == (0, 4)


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_the_box_of_a_mask_is_tight(mask: np.ndarray) -> None:
    box = mask_to_box_xyxy(mask)
    if box is None:
        assert not mask.any()
        return
    x0, y0, x1, y1 = box
    inside = mask[y0:y1, x0:x1]
    assert inside.sum() == mask.sum()
    assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
