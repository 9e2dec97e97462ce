"""Region classification: by hand, ties, two languages."""

import numpy as np
import pytest
import torch

from ovsops.errors import ShapeError
from ovsops.metrics.bootstrap import bootstrap
from ovsops.metrics.regions import RegionCounts, region_accuracy, region_answers

ENGLISH = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.6]])
CHINESE = torch.tensor([[0.8, 0.1, 0.0], [0.4, 0.3, 0.1], [0.5, 0.4, 0.1], [0.6, 0.1, 0.0]])
CLASSES = np.array([0, 1, 1, 2])


def test_by_hand() -> None:
    """English right: 3 of 4. Answers en 0 1 0 2, zh 0 0 0 0: the same in 2 of 4, one of them wrong."""
    counts = RegionCounts.zeros(3).update(ENGLISH, CLASSES, second_similarity=CHINESE)
    assert counts.top_1 == 0.75
    assert counts.agreement == 0.5
    np.testing.assert_array_equal(counts.compute(), [1, 0.5, 1])


def test_a_tie_is_no_answer() -> None:
    constant = torch.full((4, 3), 0.3)
    assert region_answers(constant).tolist() == [-1] * 4
    counts = RegionCounts.zeros(3).update(constant, CLASSES, second_similarity=constant)
    assert (counts.top_1, counts.agreement) == (0, 0)
    assert region_answers(torch.tensor([[torch.nan, 0.1]])).tolist() == [-1]


def test_a_random_scorer_is_at_chance() -> None:
    scores = torch.rand(6000, 12, generator=torch.Generator().manual_seed(0))
    classes = np.random.default_rng(0).integers(0, 12, 6000)
    assert RegionCounts.zeros(12).update(scores, classes).top_1 == pytest.approx(1 / 12, abs=0.012)


def test_merging_and_a_bootstrap_over_images() -> None:
    images = [
        RegionCounts.zeros(3).update(
            ENGLISH[i : i + 2], CLASSES[i : i + 2], second_similarity=CHINESE[i : i + 2]
        )
        for i in (0, 2)
    ]
    whole = RegionCounts.zeros(3).update(ENGLISH, CLASSES, second_similarity=CHINESE)
    np.testing.assert_array_equal((images[1] + images[0]).counts, whole.counts)
    found = bootstrap(np.stack([image.counts for image in images]), region_accuracy)
    assert (found.low, found.value, found.high) == (0.5, 0.75, 1.0)


def test_errors_and_nothing() -> None:
    with pytest.raises(ShapeError, match=r"this state counts classes 0..2"):
        RegionCounts.zeros(3).update(ENGLISH, np.array([0, 1, 2, 3]))
    with pytest.raises(ShapeError, match=r"this state counts classes 0..3"):
        RegionCounts.zeros(4).update(ENGLISH, CLASSES)
    assert np.isnan(RegionCounts.zeros(3).top_1)
