"""Boxes with names: by hand on a tiny case, and the assignment against every assignment there is."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from ovsops.losses.labelled_boxes import (
    FOCAL_ALPHA,
    BoxWeights,
    LabelledBoxes,
    focal_loss,
    labelled_box_losses,
    match_boxes,
)
from ovsops.losses.set_prediction import Matches, corners, generalized_iou

WEIGHTS = BoxWeights()
LEFT, RIGHT, WHOLE = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]


def case() -> tuple[Tensor, Tensor, LabelledBoxes]:
    """Two pictures, three queries, two names; the second picture holds nothing that the prompt asks for."""
    logits = torch.tensor([[[0.0, 0.0], [2.0, -2.0], [-1.0, 1.0]], [[-3.0, -3.0]] * 3])
    boxes = torch.tensor([[WHOLE, RIGHT, LEFT], [LEFT, RIGHT, WHOLE]])
    targets = LabelledBoxes(
        boxes=torch.tensor([[LEFT, RIGHT], [WHOLE, WHOLE]]),
        is_named=torch.tensor([[[False, True], [True, False]], [[False, False]] * 2]),
        is_there=torch.tensor([[True, True], [False, False]]),
    )
    return logits, boxes, targets


def triples(found: Matches) -> set[tuple[int, int, int]]:
    return set(zip(found.pairs.tolist(), found.queries.tolist(), found.targets.tolist(), strict=True))


def test_queries_meet_the_boxes_and_names_that_they_gave() -> None:
    assert triples(match_boxes(*case(), weights=WEIGHTS)) == {(0, 2, 0), (0, 1, 1)}


def test_a_name_decides_between_equal_boxes() -> None:
    logits, boxes, targets = case()
    boxes[0] = torch.tensor(WHOLE)
    targets = LabelledBoxes(
        boxes=torch.tensor(WHOLE).expand(2, 2, 4), is_named=targets.is_named, is_there=targets.is_there
    )
    assert triples(match_boxes(logits, boxes, targets, weights=WEIGHTS)) == {(0, 2, 0), (0, 1, 1)}


def test_each_target_gets_as_many_queries_as_asked_for_and_no_query_two_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(1, 12, 2, generator=generator) / 2
    boxes = torch.cat([first, first + 0.1 + torch.rand(1, 12, 2, generator=generator) / 3], dim=2)
    targets = LabelledBoxes(
        boxes=boxes[:, :3].clone(),
        is_named=torch.eye(3, dtype=torch.bool)[None],
        is_there=torch.tensor([[True, True, False]]),
    )
    logits = torch.randn(1, 12, 3, generator=generator)
    found = match_boxes(logits, boxes, targets, weights=WEIGHTS, queries_per_target=4)
    assert sorted(found.targets.tolist()) == [0] * 4 + [1] * 4
    assert len(set(found.queries.tolist())) == 8
    scarce = match_boxes(logits[:, :3], boxes[:, :3], targets, weights=WEIGHTS, queries_per_target=4)
    assert sorted(scarce.queries.tolist()) == [0, 1, 2]  # fewer queries than there are to give


def test_no_other_assignment_is_cheaper() -> None:
    generator = torch.Generator().manual_seed(1)
    first = torch.rand(1, 4, 2, generator=generator) / 2
    boxes = torch.cat([first, first + 0.3], dim=2)
    logits = torch.randn(1, 4, 2, generator=generator)
    targets = LabelledBoxes(
        boxes=torch.tensor([[LEFT, RIGHT]]),
        is_named=torch.tensor([[[True, False], [True, True]]]),
        is_there=torch.ones(1, 2, dtype=torch.bool),
    )

    def cost(query: int, target: int) -> float:
        names = targets.is_named[0, target]
        right = focal_loss(logits[0, query], torch.ones(2)) - focal_loss(logits[0, query], torch.zeros(2))
        l1 = (boxes[0, query] - targets.boxes[0, target]).abs().sum()
        giou = generalized_iou(boxes[0, query], targets.boxes[0, target])
        return float(WEIGHTS.score * right[names].mean() + WEIGHTS.box_l1 * l1 - WEIGHTS.box_giou * giou)

    best = min(
        itertools.permutations(range(4), 2), key=lambda chosen: cost(chosen[0], 0) + cost(chosen[1], 1)
    )
    assert triples(match_boxes(logits, boxes, targets, weights=WEIGHTS)) == {(0, best[0], 0), (0, best[1], 1)}


def test_losses_by_hand() -> None:
    logits, boxes, targets = case()
    matches = Matches(pairs=torch.tensor([0, 0]), queries=torch.tensor([0, 1]), targets=torch.tensor([0, 1]))
    losses = labelled_box_losses(logits, boxes, targets, matches)

    def focal(logit: float, *, right: bool) -> float:
        share = 1 / (1 + math.exp(-logit))
        return -0.25 * (1 - share) ** 2 * math.log(share) if right else -0.75 * share**2 * math.log(1 - share)

    true = focal(0.0, right=True) + focal(2.0, right=True)
    false = focal(0.0, right=False) + focal(-2.0, right=False) + focal(-1.0, right=False)
    false += focal(1.0, right=False) + 6 * focal(-3.0, right=False)
    assert float(losses["scores"]) == pytest.approx((true + false) / 2, rel=1e-5)
    assert float(losses["box_l1"]) == pytest.approx(0.5 / 2)  # the whole picture for its left half
    assert float(losses["box_giou"]) == pytest.approx(0.5 / 2)


def test_pictures_without_targets_teach_scores_alone() -> None:
    logits, boxes, targets = case()
    logits.requires_grad_()
    empty = LabelledBoxes(
        boxes=targets.boxes, is_named=targets.is_named, is_there=torch.zeros(2, 2, dtype=torch.bool)
    )
    losses = labelled_box_losses(logits, boxes, empty, match_boxes(logits, boxes, empty, weights=WEIGHTS))
    assert float(losses["box_l1"].detach()) == float(losses["box_giou"].detach()) == 0
    losses["scores"].backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def test_focal_loss_is_weighted_cross_entropy_where_nothing_is_known() -> None:
    found = focal_loss(torch.zeros(2), torch.tensor([1.0, 0.0]))
    expected = torch.tensor([FOCAL_ALPHA, 1 - FOCAL_ALPHA]) * 0.25 * math.log(2)
    torch.testing.assert_close(found, expected)


def test_corners_of_a_centre_and_sides() -> None:
    torch.testing.assert_close(
        corners(torch.tensor([0.5, 0.4, 0.2, 0.6])), torch.tensor([0.4, 0.1, 0.6, 0.7])
    )


def test_a_name_that_a_picture_does_not_show_teaches_nothing_there_unless_told() -> None:
    logits, boxes, targets = case()
    targets.is_named[0] = torch.tensor([[False, True], [False, True]])
    logits.requires_grad_()
    matches = match_boxes(logits, boxes, targets, weights=WEIGHTS)
    told = {
        flag: torch.autograd.grad(
            labelled_box_losses(logits, boxes, targets, matches, told_absent=flag)["scores"], logits
        )[0]
        for flag in (True, False)
    }
    assert bool((told[True] != 0).all())
    assert told[False][0, :, 1].tolist() == told[True][0, :, 1].tolist(), "what is shown"
    assert not bool(told[False][0, :, 0].any()), "a name of nothing in this picture"
    assert not bool(told[False][1].any()), "a picture of nothing that was asked for"
