"""Exclusive names: who wins, who is kept as a negative, who is no rival."""

import pytest
import torch

from ovsops.errors import ConfigError
from ovsops.regions.exclusive import ExclusiveConfig, Resolved, resolve_exclusive

WITH, WITHOUT, PERSON, MAYBE = range(4)
GROUPS = torch.tensor([5, 5, -1, 5])


def resolved(scores: list[float], labels: list[int], ious: torch.Tensor | None = None) -> Resolved:
    ious = torch.ones(len(labels), len(labels)) if ious is None else ious
    return resolve_exclusive(torch.tensor(scores), torch.tensor(labels, dtype=torch.int64), ious, GROUPS)


def test_the_loser_is_remembered_with_its_winner() -> None:
    found = resolved([0.6, 0.9, 0.8], [WITH, WITHOUT, PERSON])
    assert found.is_kept.tolist() == [False, True, True]
    assert found.winner.tolist() == [1, -1, -1]
    assert not found.is_contested.any()


def test_a_close_race_is_contested() -> None:
    assert resolved([0.95, 0.9], [WITH, WITHOUT]).is_contested.tolist() == [True, False]
    tie = resolved([0.9, 0.9], [WITH, WITHOUT])
    assert tie.winner.tolist() == [-1, 0]
    assert tie.is_contested.tolist() == [True, False]


def test_boxes_on_other_things_and_of_the_same_class_are_no_rivals() -> None:
    apart = torch.eye(2)
    assert resolved([0.9, 0.5], [WITH, WITHOUT], apart).is_kept.all()
    assert resolved([0.9, 0.5], [WITH, WITH]).is_kept.all()


def test_a_loser_beats_nobody() -> None:
    """1 overlaps both, 0 and 2 lie apart: 0 beats 1, so 2 stays."""
    ious = torch.tensor([[1.0, 0.8, 0.1], [0.8, 1.0, 0.8], [0.1, 0.8, 1.0]])
    assert resolved([0.9, 0.8, 0.7], [WITH, WITHOUT, MAYBE], ious).winner.tolist() == [-1, 0, -1]


def test_no_boxes() -> None:
    assert resolved([], []).is_kept.tolist() == []


def test_settings_that_mean_nothing() -> None:
    with pytest.raises(ConfigError, match=r"iou lies in \(0, 1\]"):
        ExclusiveConfig(iou=0.0)
