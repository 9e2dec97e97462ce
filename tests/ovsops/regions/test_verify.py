import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovsops.backbones.fgclip2 import FgClip2Image
from ovsops.errors import ConfigError, ShapeError
from ovsops.regions.verdicts import EvidenceMap
from ovsops.regions.verify import VerifyConfig, evidence_map, verify_regions


def verify(rows, labels, *, is_empty=None, **more):
    similarity = torch.tensor(rows)
    empty = torch.zeros(len(rows), dtype=torch.bool) if is_empty is None else torch.tensor(is_empty)
    return verify_regions(similarity, torch.tensor(labels), empty, **more)


def test_answers_worked_out_by_hand() -> None:
    rows = [[0.5, 0.3, 0.1], [0.2, 0.3, 0.1], [0.30, 0.31, 0.1]]
    found = verify(rows, [0, 0, 0])
    assert [v.answer for v in found] == ["yes", "no", "unsure"]
    assert [v.margin for v in found] == pytest.approx([0.2, -0.1, -0.01], abs=1e-6)
    assert [v.rival for v in found] == [1, 1, 1]
    assert found[0].cosine == pytest.approx(0.5)
    assert found[0].source == "fgclip2"


def test_synonyms_do_not_stand_against_a_label() -> None:
    is_rival = torch.tensor([[True, False, True]])
    (found,) = verify([[0.5, 0.6, 0.1]], [0], is_rival=is_rival)
    assert (found.answer, found.rival) == ("yes", 2)


def test_without_rivals_or_region_nothing_is_sure() -> None:
    (alone,) = verify([[0.9]], [0])
    assert (alone.answer, alone.margin, alone.rival) == ("unsure", None, None)
    (empty,) = verify([[0.0, 0.0]], [1], is_empty=[True])
    assert (empty.answer, empty.cosine, empty.margin) == ("unsure", None, None)
    assert (
        verify_regions(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
        == []
    )


def test_ties_are_unsure_and_a_far_label_is_no_yes() -> None:
    assert verify([[0.3, 0.3]], [0])[0].answer == "unsure"
    assert verify([[0.05, -0.3]], [0], config=VerifyConfig(min_cosine=0.1))[0].answer == "unsure"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_label_and_its_rival_are_never_both_believed(rows) -> None:
    for label in range(3):
        for row, found in zip(rows, verify(rows, [label] * len(rows)), strict=True):
            if found.answer == "yes":
                assert all(verify([row], [other])[0].answer == "no" for other in range(3) if other != label)


def image(grid_hw=(4, 6), image_hw=(40, 60)) -> FgClip2Image:
    dense = torch.zeros(*grid_hw, 3)
    dense[..., 0] = 1
    dense[1, 2] = torch.tensor([0.0, 2.0, 0.0])
    even = torch.full(dense.shape[:2], 1 / dense[..., 0].numel())
    return FgClip2Image(pooled=torch.tensor([1.0, 0, 0]), dense_map=dense, attention=even, image_hw=image_hw)


def test_the_map_shows_the_patch_that_looks_like_the_label() -> None:
    found = evidence_map(image(), (12, 5, 38, 25), torch.tensor([0.0, 1.0, 0.0]), max_side=16)
    assert found.shape == (3, 3)
    assert found.box_xyxy == (10.0, 0.0, 40.0, 30.0)
    assert found.grid().tolist() == [[0, 0, 0], [0, 255, 0], [0, 0, 0]]
    assert (found.low, found.high) == (0.0, 1.0)
    assert found.cosines()[1, 1] == 1.0


def test_a_large_map_is_averaged_down() -> None:
    found = evidence_map(image(), (0, 0, 60, 40), torch.tensor([0.0, 1.0, 0.0]), max_side=2)
    assert found.shape == (2, 2)
    assert found.high == pytest.approx(1 / 6)
    assert found.grid().tolist() == [[255, 0], [0, 0]]


def test_a_level_map_is_zero_with_its_level_kept() -> None:
    found = evidence_map(image(), (0, 20, 60, 60), torch.tensor([1.0, 0.0, 0.0]), max_side=9)
    assert set(found.data) == {0}
    assert found.cosines() == pytest.approx(np.ones((2, 6)))


def test_a_map_survives_a_row() -> None:
    found = evidence_map(image(), (3, 3, 50, 33), torch.tensor([0.6, 0.8, 0.0]), max_side=5)
    assert EvidenceMap.from_row(found.to_row()) == found


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 9), (9, 9, 5, 5), (60, 0, 70, 9), (-9, -9, 0, 0), (float("nan"), 0, 5, 5)]
)
def test_a_box_that_touches_nothing_has_no_map(box) -> None:
    with pytest.raises(ShapeError, match="touches no patch"):
        evidence_map(image(), box, torch.tensor([1.0, 0.0, 0.0]), max_side=4)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ShapeError, match="places among them"):
        verify([[0.1, 0.2]], [2])
    with pytest.raises(ShapeError, match="one byte a cell"):
        EvidenceMap(data=b"abc", shape=(2, 2), box_xyxy=(0.0, 0.0, 1.0, 1.0), low=0.0, high=1.0)
    with pytest.raises(ShapeError, match="at least 1"):
        evidence_map(image(), (0, 0, 9, 9), torch.tensor([1.0, 0.0, 0.0]), max_side=0)
    for fields in ({"yes_margin": 0.0}, {"no_margin": 3.0}, {"min_cosine": 2.0}, {"evidence_side": 300}):
        with pytest.raises(ConfigError):
            VerifyConfig(**fields)
