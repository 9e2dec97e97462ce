"""Set prediction: by hand on a tiny case, and the assignment against every assignment there is."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from ovsops.losses.set_prediction import (
    Matches,
    SetTargets,
    SetWeights,
    dice_loss,
    generalized_iou,
    match_queries,
    set_prediction_losses,
)

WEIGHTS = SetWeights()


def case() -> tuple[Tensor, Tensor, Tensor, SetTargets]:
    """Two pairs, three queries, masks of 2 x 2; the second pair is false."""
    left, right, whole = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]
    boxes = torch.tensor([[whole, right, left], [left, right, whole]])
    logits = torch.tensor([[0.0, 2.0, -1.0], [1.0, 1.0, 1.0]])
    masks = torch.zeros(2, 3, 2, 2)
    targets = SetTargets(
        boxes=torch.tensor([[left, right], [whole, whole]]),
        masks=torch.tensor([[[[1.0, 0], [1, 0]], [[0, 1.0], [0, 1]]], [[[0.0, 0], [0, 0]]] * 2]),
        is_there=torch.tensor([[True, True], [False, False]]),
    )
    return logits, boxes, masks, targets


def test_queries_meet_the_boxes_that_they_drew() -> None:
    found = match_queries(*case(), weights=WEIGHTS)
    triples = set(zip(found.pairs.tolist(), found.queries.tolist(), found.targets.tolist(), strict=True))
    assert triples == {(0, 2, 0), (0, 1, 1)}


def test_losses_by_hand() -> None:
    logits, boxes, masks, targets = case()
    matches = Matches(pairs=torch.tensor([0, 0]), queries=torch.tensor([0, 1]), targets=torch.tensor([0, 1]))
    losses = set_prediction_losses(logits, boxes, masks, targets, matches)
    scores = [math.log1p(math.exp(-0.0)), math.log1p(math.exp(-2.0)), math.log1p(math.exp(-1.0))]
    assert float(losses["scores"]) == pytest.approx(sum(scores) / 3)  # the false pair takes no part
    assert float(losses["box_l1"]) == pytest.approx(0.5 / 2)  # the whole picture for its left half
    assert float(losses["box_giou"]) == pytest.approx(0.5 / 2)
    assert float(losses["masks"]) == pytest.approx(math.log(2))
    assert float(losses["dice"]) == pytest.approx(1 - 3 / 5)  # overlap 1, areas 2 and 2


def test_nothing_true_costs_nothing() -> None:
    logits, boxes, masks, targets = case()
    logits.requires_grad_()
    nothing = SetTargets(
        boxes=targets.boxes, masks=targets.masks, is_there=torch.zeros(2, 2, dtype=torch.bool)
    )
    matches = match_queries(logits, boxes, masks, nothing, weights=WEIGHTS)
    losses = set_prediction_losses(logits, boxes, masks, nothing, matches)
    assert len(matches.pairs) == 0
    assert {float(value.detach()) for value in losses.values()} == {0.0}
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert not logits.grad.any()  # type: ignore[union-attr]


def _cost(pick: tuple[int, ...], logits: Tensor, boxes: Tensor, masks: Tensor, targets: SetTargets) -> float:
    """Of pair 0, by the losses themselves: the sum over its matches."""
    total = 0.0
    for target, query in enumerate(pick):
        one = Matches(pairs=torch.tensor([0]), queries=torch.tensor([query]), targets=torch.tensor([target]))
        each = set_prediction_losses(logits, boxes, masks, targets, one)
        total += WEIGHTS.box_l1 * float(each["box_l1"]) + WEIGHTS.box_giou * float(each["box_giou"])
        total += WEIGHTS.mask * float(each["masks"]) + WEIGHTS.dice * float(each["dice"])
        total -= WEIGHTS.score * float(logits[0, query].sigmoid())
    return total


@pytest.mark.parametrize("seed", range(5))
def test_no_assignment_is_cheaper(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(1, 6, 2, 2, generator=generator).sort(dim=2).values.flatten(2)
    masks = torch.randn(1, 4, 3, 3, generator=generator)
    targets = SetTargets(
        boxes=corners[:, 4:],
        masks=torch.rand(1, 2, 3, 3, generator=generator),
        is_there=torch.ones(1, 2, dtype=torch.bool),
    )
    given = (torch.randn(1, 4, generator=generator), corners[:, :4], masks, targets)
    found = match_queries(*given, weights=WEIGHTS)
    pick = tuple(int(found.queries[found.targets == k]) for k in range(2))
    dearest_first = sorted(_cost(other, *given) for other in itertools.permutations(range(4), 2))
    assert _cost(pick, *given) == pytest.approx(dearest_first[0], abs=1e-5)


def test_of_more_targets_than_queries_some_go_without() -> None:
    logits, boxes, masks, targets = case()
    found = match_queries(logits[:, :1], boxes[:, :1], masks[:, :1], targets, weights=WEIGHTS)
    assert len(found.pairs) == 1


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0.0, 0.0, 1.0, 1.0), 1.0),
        ((0.0, 0.0, 0.5, 1.0), 0.5),
        ((1.0, 0.0, 2.0, 1.0), 0.0),  # side by side: nothing shared, nothing left out
        ((2.0, 0.0, 3.0, 1.0), -1 / 3),  # a gap of one between them
    ],
)
def test_generalized_iou_by_hand(other: tuple[float, ...], expected: float) -> None:
    unit = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert float(generalized_iou(unit, torch.tensor(other))) == pytest.approx(expected)


def test_dice_of_a_perfect_mask_is_nothing() -> None:
    mask = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    assert float(dice_loss((mask - 0.5) * 100, mask)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(mask[:0], mask[:0])) == 0
    assert float(dice_loss((0.5 - mask) * 100, mask)) == pytest.approx(1 - 1 / 5, abs=1e-6)
