"""Boxes as tensors become what the metrics count, in float64 and with nothing lost."""

import numpy as np
import pytest
import torch

from ovsops.backbones.detections import Detections, no_detections
from ovsops.metrics.detection import DetectionCounts
from ovsops.metrics.objects import found_objects, true_objects

FOUND = Detections(
    boxes_xyxy=torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]]),
    scores=torch.tensor([0.9, 0.1]),
    labels=torch.tensor([3, 1], dtype=torch.int32),
)


def test_scores_are_the_float32_ones_exactly() -> None:
    found = found_objects(FOUND)
    assert found.scores.tolist() == [float(np.float32(0.9)), float(np.float32(0.1))]
    assert found.labels.tolist() == [3, 1]
    assert (found.boxes_xyxy == FOUND.boxes_xyxy.numpy()).all()


def test_what_is_found_as_it_is_true_is_perfect_and_images_are_numbered_in_order() -> None:
    images = [FOUND, no_detections(), FOUND]
    counts = DetectionCounts.of_images(
        [found_objects(each) for each in images], [true_objects(each) for each in images]
    )
    assert counts.images.tolist() == [0, 1, 2]
    assert counts.compute().ap == 1.0


def test_lists_of_other_lengths_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="shorter"):
        DetectionCounts.of_images([found_objects(FOUND)], [])
