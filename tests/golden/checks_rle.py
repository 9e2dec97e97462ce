"""Golden checks of sam3_rle: masks and their COCO run lengths, written from the format's definition."""

from pathlib import Path

import numpy as np

from ovsops.masks.rle import (
    Rle,
    counts_to_rle,
    label_map_to_rles,
    mask_to_rle,
    rle_area,
    rle_box_xywh,
    rle_to_counts,
    rle_to_mask,
)
from tests.golden.table import Arrays, Check


def check_rle(arrays: Arrays, folder: Path) -> None:
    """Mask to RLE and back, counts, area and box: all exact."""
    num_masks = int(arrays["n"])
    assert num_masks >= 1
    for i in range(num_masks):
        where = f"mask {i}"
        mask = arrays[f"mask_{i}"]
        assert set(np.unique(mask)) <= {0, 1}, where
        expected = Rle((mask.shape[0], mask.shape[1]), arrays[f"string_{i}"].tobytes().decode("ascii"))
        assert mask_to_rle(mask.astype(np.bool_)) == expected, where
        assert label_map_to_rles(mask, 1) == [expected], where
        assert counts_to_rle(arrays[f"counts_{i}"].tolist(), expected.size_hw) == expected, where
        np.testing.assert_array_equal(rle_to_mask(expected), mask.astype(np.bool_), err_msg=where)
        np.testing.assert_array_equal(rle_to_counts(expected), arrays[f"counts_{i}"], err_msg=where)
        assert rle_area(expected) == int(arrays[f"area_{i}"]), where
        np.testing.assert_array_equal(rle_box_xywh(expected), arrays[f"bbox_{i}"], err_msg=where)


CHECKS: dict[str, Check] = {"sam3_rle": check_rle}
