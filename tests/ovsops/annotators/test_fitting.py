"""Fits on made observations: what the numbers must do is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ovsops.annotators.config import ExpertConfig
from ovsops.annotators.fitting import (
    FitConfig,
    Observed,
    TrueBoxes,
    default_presence,
    fit_chances,
    fit_expert,
    hits,
    judged_outcomes,
)
from ovsops.annotators.judging import ExpertLook, unjudged
from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.detections import Detections
from ovsops.errors import ConfigError
from ovsops.metrics.calibration import calibration_error, reliability_table
from ovsops.regions.tuning import TuningGrid

NUM_CLASSES = 4
COMPETING = torch.zeros(NUM_CLASSES, dtype=torch.int64)
EXPERT = ExpertConfig(fgclip2=Checkpoint(source="nowhere"), presence=default_presence(), min_score=0.0)
FIT = FitConfig(grid=TuningGrid(modes=("competing",), detector_shares=(0.1, 0.5), scales=(1.0, 10.0)))


def observations(num_images: int, *, knows: float, seed: int = 0) -> list[Observed]:
    """Two boxes an image. The detector names at random; the expert's cosine with the truth is `knows` above others."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(num_images):
        labels = torch.randint(NUM_CLASSES, (2,), generator=generator)
        corners = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
        similarity = 0.1 * torch.rand(2, NUM_CLASSES, generator=generator)
        similarity[[0, 1], labels] += knows
        found = Detections(
            boxes_xyxy=corners,
            scores=0.2 + 0.6 * torch.rand(2, generator=generator),
            labels=torch.randint(NUM_CLASSES, (2,), generator=generator),
        )
        present = torch.zeros(NUM_CLASSES).index_fill(0, labels, 1.0)
        seen = ExpertLook(
            similarity=similarity,
            is_empty=torch.zeros(2, dtype=torch.bool),
            image_scores=0.8 * present + 0.1,
            joined=0.1 * present,
        )
        made.append(Observed(found=found, look=seen, truth=TrueBoxes(boxes_xyxy=corners, labels=labels)))
    return made


def fit(observed: list[Observed]):
    return fit_expert(
        observed, EXPERT, competing=COMPETING, has_groups=True, asked=range(NUM_CLASSES), fit=FIT
    )


def test_an_expert_who_knows_is_heard_and_its_names_are_right() -> None:
    fitted = fit(observations(120, knows=0.6))
    assert fitted.config.recalibration is not None
    assert fitted.verdict is not None
    assert not fitted.verdict.is_refused
    bare = replace(fitted.config, presence=None)
    _, right, _ = judged_outcomes(observations(60, knows=0.6, seed=1), bare, competing=COMPETING, fit=FIT)
    assert right.mean() > 0.95


def test_an_expert_who_guesses_is_refused() -> None:
    fitted = fit(observations(120, knows=0.0))
    assert fitted.config.recalibration is None


def test_the_gate_tells_what_is_there() -> None:
    fitted = fit(observations(120, knows=0.6))
    assert fitted.config.presence is not None
    gate = fitted.config.presence.gate
    chances = gate.chances(np.array([[0.9, 0.1, 0.8], [0.1, 0.0, 0.0]]))
    assert chances[0] > 0.8 > 0.2 > chances[1]
    assert fitted.presence is not None
    assert fitted.presence.gate == pytest.approx(1.0)
    assert fitted.presence.detector < 0.5


def test_chances_are_nearer_the_truth_than_scores() -> None:
    observed = observations(400, knows=0.05)
    config = replace(fit(observed).config, presence=None)
    calibrator = fit_chances(
        observed,
        config,
        competing=COMPETING,
        class_groups=np.zeros(NUM_CLASSES, np.int64),
        fingerprint="these models",
        fit=FIT,
    )
    fresh = observations(400, knows=0.05, seed=2)
    scores, right, labels = judged_outcomes(fresh, config, competing=COMPETING, fit=FIT)
    chances = calibrator.calibrated(scores, np.zeros_like(labels), fingerprint="these models")
    before, after = (
        float(calibration_error(reliability_table(values, right, num_bins=10)))
        for values in (scores, chances)
    )
    assert after < before / 2


def test_a_second_box_for_one_thing_is_wrong() -> None:
    corners = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    found = Detections(boxes_xyxy=corners, scores=torch.tensor([0.4, 0.9]), labels=torch.tensor([1, 1]))
    truth = TrueBoxes(boxes_xyxy=corners[:1], labels=torch.tensor([1]))
    assert hits(unjudged(found), truth, iou=0.5).tolist() == [False, True]


def test_no_images_are_said() -> None:
    with pytest.raises(ConfigError, match="no images to fit on"):
        fit([])
