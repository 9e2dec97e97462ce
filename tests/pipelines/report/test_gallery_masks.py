"""Masks of the report's gallery: as they are, smaller with the picture, coarser where their runs are too long."""

import numpy as np

from ovsops.masks.rle import Rle, mask_to_rle, rle_to_mask
from pipelines.report.gallery import _MAX_RLE_CHARS, _mask


def shown(mask: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    height, width, counts = _mask(mask_to_rle(mask).to_coco(), size_wh)
    assert len(counts) <= _MAX_RLE_CHARS
    return rle_to_mask(Rle(size_hw=(height, width), counts=counts))


def test_a_mask_stays_what_it_is() -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:20, 10:50] = True
    assert np.array_equal(shown(mask, (60, 40)), mask)
    assert shown(mask, (30, 20)).shape == (20, 30)


def test_a_mask_of_too_many_runs_is_shown_coarser_and_not_left_out() -> None:
    grain = np.random.default_rng(0).random((480, 640)) < 0.5
    grain[:, :320] = True
    assert len(mask_to_rle(grain).counts) > _MAX_RLE_CHARS
    found = shown(grain, (640, 480))
    assert found[:, : found.shape[1] // 2].mean() > 0.98
    assert 0.3 < found[:, found.shape[1] // 2 :].mean() < 0.7


def test_a_damaged_mask_is_its_box() -> None:
    assert _mask({"size": [400, 400], "counts": "\x01"}, (20, 20)) == [0, 0, ""]
