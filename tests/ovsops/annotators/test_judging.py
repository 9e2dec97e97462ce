"""Boxes with the detector's and the expert's word on them, worked by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ovsops.annotators.config import ExpertConfig, PresenceConfig
from ovsops.annotators.judging import ExpertLook, judge_boxes, unjudged, without_losers
from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.detections import Detections
from ovsops.regions.exclusive import NO_GROUP, ExclusiveConfig
from ovsops.regions.presence import PresenceGate
from ovsops.regions.recalibrate import RecalibrationConfig

CONFIG = ExpertConfig(
    fgclip2=Checkpoint(source="nowhere"),
    recalibration=RecalibrationConfig(mode="competing", alpha=0.5, beta=0.5, scale=1.0),
    min_score=0.0,
)
COMPETING = torch.tensor([0, 0, 1])
"""Classes 0 and 1 compete, 2 stands alone."""


def boxes(*corners: tuple[float, float, float, float], labels: list[int], scores: list[float]) -> Detections:
    return Detections(
        boxes_xyxy=torch.tensor(corners).reshape(-1, 4).float(),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels, dtype=torch.int64),
    )


def look(similarity: Tensor) -> ExpertLook:
    num_boxes, num_classes = similarity.shape
    return ExpertLook(
        similarity=similarity,
        is_empty=torch.zeros(num_boxes, dtype=torch.bool),
        image_scores=torch.full((num_classes,), 0.5),
        joined=torch.zeros(num_classes),
    )


def test_the_expert_renames_within_the_group_and_both_scores_are_kept() -> None:
    found = boxes((0, 0, 10, 10), labels=[0], scores=[0.64])
    judged = judge_boxes(look(torch.tensor([[0.0, 1.0, 1.0]])), found, CONFIG, competing=COMPETING)
    share = math.e / (1 + math.e)
    assert judged.labels.tolist() == [1]
    assert judged.reasons == (("R_RENAMED",),)
    assert float(judged.scores[0]) == pytest.approx(math.sqrt(0.64 * share), rel=1e-5)
    assert float(judged.detector_scores[0]) == pytest.approx(0.64)
    assert judged.alignment_scores is not None
    assert float(judged.alignment_scores[0]) == pytest.approx(share, rel=1e-5)


def test_doubles_after_renaming_go_and_are_counted() -> None:
    found = boxes((0, 0, 10, 10), (0, 0, 10, 10), labels=[0, 1], scores=[0.9, 0.8])
    similarity = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    judged = judge_boxes(look(similarity), found, CONFIG, competing=COMPETING)
    assert judged.labels.tolist() == [0]
    assert judged.dropped == {"R_DOUBLE": 1}


def test_an_empty_region_keeps_the_detectors_name_and_says_so() -> None:
    found = boxes((0, 0, 10, 10), labels=[1], scores=[0.5])
    seen = replace(look(torch.zeros(1, 3)), is_empty=torch.tensor([True]))
    judged = judge_boxes(seen, found, CONFIG, competing=COMPETING)
    assert judged.labels.tolist() == [1]
    assert judged.reasons == (("R_NO_FEATURE",),)


def test_absent_classes_lose_their_boxes_and_nothing_is_lost_silently() -> None:
    """The gate believes the image score alone: class 0 is absent, 1 undecided, 2 present."""
    gate = PresenceGate(
        names=("image", "joined", "region"), weights=(10.0, 0.0, 0.0), bias=-5.0, absent=0.2, present=0.8
    )
    config = replace(CONFIG, recalibration=None, presence=PresenceConfig(gate=gate, keep=0.3, low=0.1))
    found = boxes((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), labels=[0, 1, 1], scores=[0.9, 0.8, 0.2])
    seen = replace(look(torch.zeros(3, 3)), image_scores=torch.tensor([0.1, 0.5, 0.9]))
    judged = judge_boxes(seen, found, config, competing=COMPETING)
    assert judged.labels.tolist() == [1]
    assert judged.dropped == {"R_ABSENT": 1, "R_LOW_SCORE": 1}
    assert len(judged) + sum(judged.dropped.values()) == len(found)
    assert [label for label, _ in judged.presence.scores] == [0, 1, 2]
    assert judged.presence.verified_absent == ()  # it had a box: two witnesses disagree


def test_no_boxes_are_no_boxes() -> None:
    nothing = boxes(labels=[], scores=[])
    judged = judge_boxes(look(torch.zeros(0, 3)), nothing, CONFIG, competing=COMPETING)
    assert len(judged) == 0
    assert len(without_losers(judged, (torch.tensor([0, 0, NO_GROUP]),), ExclusiveConfig())) == 0


def test_a_loser_stays_as_the_winners_rival() -> None:
    found = boxes((0, 0, 10, 10), (0, 0, 10, 10), labels=[0, 1], scores=[0.6, 0.55])
    kept = without_losers(unjudged(found), (torch.tensor([0, 0, NO_GROUP]),), ExclusiveConfig())
    assert kept.labels.tolist() == [0]
    [[rival]] = kept.rivals
    assert (rival.label, rival.score) == (1, pytest.approx(0.55))
    assert kept.reasons == (("R_CONTESTED",),)
    assert kept.dropped == {"R_LOST_EXCLUSIVE": 1}
    assert kept.sources.tolist() == [0]
