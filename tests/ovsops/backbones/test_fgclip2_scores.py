"""Naming boxes and finding the nearest, by hand."""

import math

import pytest
import torch

from ovsops.backbones.fgclip2_scores import (
    NO_CLASS,
    classify_regions,
    image_text_probabilities,
    retrieve,
)
from ovsops.errors import ShapeError

AXES = torch.eye(3)


def test_a_region_is_named_by_its_nearest_text_and_an_empty_one_by_none() -> None:
    regions = torch.stack([AXES[1], torch.tensor([0.6, 0.0, 0.8]), torch.zeros(3)])
    found = classify_regions(regions, AXES, is_empty=torch.tensor([False, False, True]), scale=10.0)
    assert found.classes.tolist() == [1, 2, NO_CLASS]
    torch.testing.assert_close(found.probabilities[2], torch.full((3,), 1 / 3))
    of_second = [math.exp(6), math.exp(0), math.exp(8)]
    assert found.probabilities[1].tolist() == pytest.approx([x / sum(of_second) for x in of_second])


def test_one_class_is_certain_no_class_an_error_and_no_region_nothing() -> None:
    is_empty = torch.zeros(2, dtype=torch.bool)
    found = classify_regions(AXES[:2], AXES[:1], is_empty=is_empty)
    assert found.probabilities.tolist() == [[1.0], [1.0]]
    with pytest.raises(ShapeError, match="2 regions to be named by no class"):
        classify_regions(AXES[:2], AXES[:0], is_empty=is_empty)
    assert classify_regions(AXES[:0], AXES, is_empty=is_empty[:0]).classes.tolist() == []


def test_pairs_of_image_and_text_do_not_compete() -> None:
    found = image_text_probabilities(AXES[:1], AXES[:2], logit_scale=10.0, logit_bias=-3.0)
    expected = [1 / (1 + math.exp(-7)), 1 / (1 + math.exp(3))]
    assert found[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_nearest_come_first_and_equal_ones_in_order() -> None:
    gallery = torch.stack([AXES[0], AXES[1], AXES[0], torch.tensor([0.6, 0.8, 0.0])])
    cosines, places = retrieve(AXES[:1], gallery, num_nearest=3)
    assert places.tolist() == [[0, 2, 3]]
    assert cosines[0].tolist() == pytest.approx([1, 1, 0.6])
    assert retrieve(AXES[:2], gallery[:2], num_nearest=9)[1].tolist() == [[0, 1], [1, 0]]
    assert retrieve(AXES[:2], gallery[:0], num_nearest=1)[1].shape == (2, 0)
    with pytest.raises(ShapeError, match="the nearest 0 of 4"):
        retrieve(AXES, gallery, num_nearest=0)
