"""Suppression of boxes against hand-worked cases and a plain loop."""

import pytest
import torch
from torch import Tensor

from ovsops.masks.box_nms import box_iou, box_nms


def random_boxes(number: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, 2, generator=generator) * 80
    sides = 5 + torch.rand(number, 2, generator=generator) * 30
    return torch.cat([corners, corners + sides], dim=1), torch.rand(number, generator=generator)


def looped_nms(boxes: Tensor, scores: Tensor, iou: float, groups: Tensor | None = None) -> list[int]:
    kept: list[int] = []
    for place in scores.argsort(descending=True, stable=True).tolist():
        others = [k for k in kept if groups is None or groups[k] == groups[place]]
        if all(float(box_iou(boxes[place : place + 1], boxes[k : k + 1])) <= iou for k in others):
            kept.append(place)
    return kept


def test_iou_by_hand() -> None:
    box = torch.tensor([[0.0, 0, 4, 4]])
    others = torch.tensor([[2.0, 0, 6, 4], [0, 0, 4, 4], [4, 0, 8, 4], [0, 0, 2, 2], [3, 3, 1, 1]])
    torch.testing.assert_close(box_iou(box, others)[0], torch.tensor([8 / 24, 1, 0, 4 / 16, 0]))
    point = torch.tensor([[2.0, 2, 2, 2]])
    assert box_iou(point, point).item() == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_groups", [False, True])
def test_equals_a_plain_loop(seed: int, with_groups: bool) -> None:
    boxes, scores = random_boxes(60, seed)
    groups = torch.arange(60) % 3 if with_groups else None
    kept = box_nms(boxes, scores, iou=0.3, groups=groups)
    assert kept.tolist() == looped_nms(boxes, scores, 0.3, groups)
    assert 3 < len(kept) < 60
    assert box_nms(boxes, scores, iou=0.3, groups=groups, limit=4).tolist() == kept[:4].tolist()


def test_off_it_only_sorts() -> None:
    boxes, scores = random_boxes(9)
    assert box_nms(boxes, scores, iou=None).tolist() == scores.argsort(descending=True).tolist()
    assert len(box_nms(boxes, scores, iou=None, limit=2)) == 2


def test_of_equal_scores_the_first_stays() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4]]).expand(3, -1)
    assert box_nms(boxes, torch.full((3,), 0.5), iou=0.5).tolist() == [0]


def test_no_boxes() -> None:
    assert box_nms(torch.zeros(0, 4), torch.zeros(0), iou=0.5).tolist() == []
    assert box_iou(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)


def test_five_thousand_boxes_pass_without_a_square_matrix() -> None:
    boxes, scores = random_boxes(5000)
    kept = box_nms(boxes, scores, iou=0.5, limit=300)
    assert len(kept) == 300
    assert bool((scores[kept].diff() <= 0).all())
    overlaps = box_iou(boxes[kept], boxes[kept]).fill_diagonal_(0)
    assert overlaps.max() <= 0.5
