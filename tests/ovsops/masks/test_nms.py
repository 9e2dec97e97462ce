"""Mask suppression on hand-worked masks."""

import pytest
import torch
from torch import Tensor

from ovsops.masks.nms import mask_nms


def bars(*spans: tuple[int, int]) -> Tensor:
    """Masks of one row of 20 cells, set from a to b."""
    masks = torch.zeros(len(spans), 1, 20, dtype=torch.bool)
    for mask, (a, b) in zip(masks, spans, strict=True):
        mask[0, a:b] = True
    return masks


SCORES = torch.tensor([0.5, 0.9, 0.7])


def test_of_two_that_overlap_the_better_stays() -> None:
    masks = bars((0, 10), (0, 8), (12, 20))  # IoU 0.8
    assert mask_nms(masks, SCORES, iou=0.79).tolist() == [1, 2]
    assert mask_nms(masks, SCORES, iou=0.8).tolist() == [1, 2, 0]  # strictly above
    assert mask_nms(masks, SCORES, iou=None).tolist() == [1, 2, 0]


def test_what_is_suppressed_suppresses_nothing() -> None:
    masks = bars((0, 10), (4, 14), (8, 18))  # neighbours share 6 of 14 and 6 of 14, ends 2 of 18
    assert mask_nms(masks, torch.tensor([0.9, 0.8, 0.7]), iou=0.4).tolist() == [0, 2]


def test_containment_takes_the_part_of_a_better_whole_and_not_the_whole() -> None:
    masks = bars((0, 4), (0, 16), (10, 14))
    assert mask_nms(masks, SCORES, iou=0.5, containment=0.9).tolist() == [1]
    small_is_better = torch.tensor([0.9, 0.5, 0.7])
    assert mask_nms(masks, small_is_better, iou=0.5, containment=0.9).tolist() == [0, 2, 1]


def test_groups_leave_each_other_alone() -> None:
    masks = bars((0, 10), (0, 10), (0, 10))
    assert mask_nms(masks, SCORES, iou=0.5, groups=torch.tensor([0, 1, 1])).tolist() == [1, 0]


def test_empty_masks_and_no_masks() -> None:
    assert mask_nms(bars((3, 3), (0, 2), (5, 5)), SCORES, iou=0.5).tolist() == [1]
    assert mask_nms(bars(), torch.zeros(0), iou=0.5).tolist() == []


@pytest.mark.parametrize("iou", [None, 0.5])
def test_equal_scores_keep_their_order(iou: float | None) -> None:
    masks = bars((0, 2), (5, 7), (10, 12))
    assert mask_nms(masks, torch.full((3,), 0.5), iou=iou).tolist() == [0, 1, 2]
