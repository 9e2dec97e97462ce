"""Scenes as boxes of classes, and figures of what is said of them."""

import numpy as np
import torch

from ovsops.annotators.fitting import TrueBoxes, detection_counts
from ovsops.annotators.judging import JudgedBoxes, unjudged
from ovsops.backbones.detections import Detections
from ovsops.metrics.bootstrap import BootstrapConfig
from ovsops.metrics.detection import ap_interval
from ovsops.training.box_quality import ap50_difference

CORNERS = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
DRAWS = BootstrapConfig(num_resamples=50)


def said(labels: list[int]) -> JudgedBoxes:
    return unjudged(
        Detections(boxes_xyxy=CORNERS, scores=torch.tensor([0.9, 0.8]), labels=torch.tensor(labels))
    )


def test_a_difference_is_paired_by_image() -> None:
    """Both are drawn with the same images: against itself nothing moves, against nothing it is the figure itself."""
    truths = [TrueBoxes(boxes_xyxy=CORNERS, labels=torch.tensor([0, 1]))] * 6
    half = detection_counts([said([0, 1])] * 3 + [said([1, 0])] * 3, truths)
    none = detection_counts([said([2, 2])] * 6, truths)
    same = ap50_difference(half, half, DRAWS)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    change, alone = ap50_difference(half, none, DRAWS), ap_interval(half, config=DRAWS)
    np.testing.assert_allclose(
        [change.value, change.low, change.high], [alone.value[1], alone.low[1], alone.high[1]]
    )
