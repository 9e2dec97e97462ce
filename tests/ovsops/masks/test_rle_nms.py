"""Suppression of RLE masks equals that of drawn masks, and compares few of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovsops.masks import rle_nms as module
from ovsops.masks.nms import mask_nms
from ovsops.masks.rle import mask_to_rle
from ovsops.masks.rle_nms import rle_nms

MASKS = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda size: arrays(np.bool_, size)
)
LIMITS = st.sampled_from([None, 0.0, 0.25, 0.5, 0.9, 1.0])


@given(MASKS, LIMITS, LIMITS, st.booleans(), st.data())
def test_equals_suppression_of_drawn_masks(
    masks: np.ndarray, iou: float | None, containment: float | None, has_groups: bool, data: st.DataObject
) -> None:
    scores = data.draw(arrays(np.float64, len(masks), elements=st.sampled_from([0.25, 0.5, 0.75])))
    groups = data.draw(arrays(np.int64, len(masks), elements=st.integers(0, 1))) if has_groups else None
    expected = mask_nms(
        torch.from_numpy(masks),
        torch.from_numpy(scores),
        iou=iou,
        containment=containment,
        groups=None if groups is None else torch.from_numpy(groups),
    )
    rles = [mask_to_rle(mask) for mask in masks]
    found = rle_nms(rles, scores, iou=iou, containment=containment, groups=groups)
    assert found.tolist() == expected.tolist()


def test_no_masks() -> None:
    assert len(rle_nms([], np.zeros(0), iou=0.5)) == 0


def test_masks_apart_are_never_compared_run_by_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty by twenty squares that touch nothing: boxes alone decide."""
    masks = np.zeros((400, 80, 80), np.bool_)
    for i, mask in enumerate(masks):
        y, x = divmod(i, 20)
        mask[4 * y : 4 * y + 3, 4 * x : 4 * x + 3] = True
    gathered: list[int] = []
    plain = module.pixels_in

    def counted(one, starts, ends):
        gathered.append(len(starts))
        return plain(one, starts, ends)

    monkeypatch.setattr(module, "pixels_in", counted)
    assert len(rle_nms([mask_to_rle(mask) for mask in masks], np.linspace(1, 0, 400), iou=0.1)) == 400
    assert sum(gathered) == 0
