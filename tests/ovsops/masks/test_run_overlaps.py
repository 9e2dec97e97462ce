"""What masks share and how many parts they have, against masks that are drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from ovsops.errors import ShapeError
from ovsops.masks import run_overlaps as module
from ovsops.masks.components import Connectivity
from ovsops.masks.rle import Rle, mask_to_rle
from ovsops.masks.run_overlaps import count_parts, pixels_in, run_overlaps, runs_of_rles
from ovsops.masks.runs import label_runs

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
MASKS = SIZES.flatmap(lambda size: arrays(np.bool_, (3, *size)))


def parts(masks: np.ndarray, connectivity: Connectivity = 8, share: float = 0.0) -> list[int]:
    runs = runs_of_rles([mask_to_rle(mask) for mask in masks])
    found = count_parts(runs, len(masks), masks.shape[1], connectivity=connectivity, min_part_share=share)
    return found.tolist()


@given(MASKS, st.sampled_from([4, 8]))
def test_parts_are_those_of_scipy(masks: np.ndarray, connectivity: Connectivity) -> None:
    structure = ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1)
    assert parts(masks, connectivity) == [ndimage.label(mask, structure)[1] for mask in masks]


def test_parts_in_small_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = np.random.default_rng(0).random((20, 12, 15)) > 0.6
    whole = parts(masks)
    monkeypatch.setattr(module, "_PIECES_AT_ONCE", 40)
    assert parts(masks) == whole


def test_specks_do_not_count_and_the_largest_part_always_does() -> None:
    mask = np.zeros((6, 12), np.bool_)
    mask[:5, :4] = True  # 20 pixels
    mask[0, 6] = mask[2, 8] = mask[4, 10] = True
    assert parts(mask[None]) == [4]
    assert parts(mask[None], share=0.05) == [4]  # a pixel is exactly the share
    assert parts(mask[None], share=0.06) == [1]
    assert parts(np.zeros((1, 3, 3), np.bool_), share=1.0) == [0]


@given(MASKS)
def test_pixels_in_ranges_are_shared_pixels(masks: np.ndarray) -> None:
    one, two = (runs_of_rles([mask_to_rle(mask)]) for mask in masks[:2])
    assert pixels_in(one, two.starts, two.ends).sum() == (masks[0] & masks[1]).sum()


@given(MASKS, st.data())
def test_overlaps_with_a_label_map_are_its_counts(masks: np.ndarray, data: st.DataObject) -> None:
    labels = data.draw(arrays(np.int64, masks.shape[1:], elements=st.integers(0, 3)))
    mine, theirs, shared = run_overlaps(
        runs_of_rles([mask_to_rle(mask) for mask in masks]), label_runs(labels)
    )
    found = np.zeros((3, 3), np.int64)
    np.add.at(found, (mine, theirs), shared)
    expected = [[(mask & (labels == label)).sum() for label in (1, 2, 3)] for mask in masks]
    assert found.tolist() == expected
    assert (shared > 0).all()


def test_no_masks_and_masks_of_two_sizes() -> None:
    assert len(runs_of_rles([])) == 0
    with pytest.raises(ShapeError, match="one image has one"):
        runs_of_rles([Rle((2, 3), "6"), Rle((3, 2), "6")])
