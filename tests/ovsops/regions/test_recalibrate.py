"""Recalibration: fusions worked out by hand, groups that compete, ties, what cannot be a score."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ovsops.errors import ConfigError, ShapeError
from ovsops.regions.recalibrate import (
    Mode,
    RecalibrationConfig,
    competing_groups,
    fused_scores,
    log_alignment,
    recalibrate,
    region_similarity,
    unchanged,
)

LN3 = math.log(3.0)
NAMES = ("red ball", "blue ball", "red box", "blue box")
GROUPS = competing_groups(["ball", "ball", "box", "box"])


def config(mode: Mode, **fields: float) -> RecalibrationConfig:
    return RecalibrationConfig(mode=mode, scale=LN3, **fields)


def one(similarity: list[float], label: int, score: float, mode: Mode, **more: Tensor) -> tuple[int, float]:
    found = recalibrate(
        torch.tensor([similarity], dtype=torch.float32),
        torch.tensor([label]),
        torch.tensor([score]),
        config=config(mode),
        groups=GROUPS if mode == "competing" else None,
        **more,
    )
    return int(found.labels), float(found.scores)


def test_keep_by_hand() -> None:
    """Scale ln 3: cosines 1 0 0 0 give P = 3/6, 1/6, 1/6, 1/6; the geometric mean of 0.25 and 1/6 is sqrt(1/24)."""
    assert one([1, 0, 0, 0], 1, 0.25, "keep") == (1, pytest.approx(math.sqrt(1 / 24)))


def test_global_by_hand() -> None:
    """The best name of all wins with sqrt(0.25 * 1/2), whatever its noun."""
    assert one([0, 0, 0, 1], 0, 0.25, "global") == (3, pytest.approx(math.sqrt(0.125)))


def test_competing_by_hand() -> None:
    """The best of the other noun is no candidate; in the pair 0, 1 of cosines the second has P = 3/4."""
    assert one([0, 1, 1, 1], 0, 0.48, "competing") == (1, pytest.approx(0.6))


def test_the_scores_of_the_detector_by_name_decide_where_the_alignment_is_even() -> None:
    """P = 1/4 each: sqrt(0.64 / 4) = 0.4 for the box that the detector half saw."""
    by_name = torch.tensor([[0.1, 0.2, 0.64, 0.3]])
    assert one([0, 0, 0, 0], 1, 0.2, "global", scores_by_name=by_name) == (2, pytest.approx(0.4))


def test_every_score_is_kept() -> None:
    by_name = torch.tensor([[0.36, 0.16, 0.0, 0.0]])
    found = recalibrate(
        torch.tensor([[0.0, 1.0, 0.0, 0.0]]),
        torch.tensor([0]),
        torch.tensor([0.36]),
        config=config("competing"),
        groups=GROUPS,
        scores_by_name=by_name,
    )
    assert (found.labels.item(), found.detector_labels.item(), found.is_renamed.item()) == (1, 0, True)
    assert found.detector_scores.item() == pytest.approx(0.36)
    assert found.label_scores.item() == pytest.approx(0.16)
    assert found.alignment_scores.item() == pytest.approx(0.75)
    assert found.scores.item() == pytest.approx(math.sqrt(0.12))


def test_an_exponent_of_zero_silences_even_a_zero() -> None:
    """0 ** 0 = 1."""
    found = recalibrate(
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([0]),
        torch.tensor([0.0]),
        config=config("keep", alpha=0.0, beta=1.0),
    )
    assert found.scores.item() == pytest.approx(0.75)


@pytest.mark.parametrize("mode", ["global", "competing"])
def test_a_region_without_feature_keeps_its_name(mode: Mode) -> None:
    similarity = region_similarity(torch.zeros(1, 3), torch.eye(4, 3))
    found = recalibrate(
        similarity, torch.tensor([3]), torch.tensor([0.5]), config=config(mode), groups=GROUPS
    )
    assert similarity.tolist() == [[0, 0, 0, 0]]
    assert found.labels.tolist() == [3]


def test_the_published_argmax_names_ties_by_the_first() -> None:
    tied = RecalibrationConfig(mode="global", ties="first")
    found = recalibrate(torch.zeros(1, 4), torch.tensor([3]), torch.tensor([0.0]), config=tied)
    assert found.labels.tolist() == [0]


def test_tiny_probabilities_are_still_ordered() -> None:
    """A scale of 1000 puts all but one P below what float32 holds; among the candidates the order stays."""
    found = recalibrate(
        torch.tensor([[0.1, 0.2, 1.0, 0.0]]),
        torch.tensor([0]),
        torch.tensor([0.0]),
        config=RecalibrationConfig(mode="global", scale=1000.0, alpha=0.0, beta=1.0),
        scores_by_name=torch.tensor([[0.0, 0.0, 0.0, 0.0]]),
    )
    assert found.labels.tolist() == [2]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**16), mode=st.sampled_from(["keep", "global", "competing"]))
def test_a_box_depends_on_no_other_box_and_names_may_be_reordered(seed: int, mode: Mode) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(6, 4, generator=generator) * 2 - 1
    by_name = torch.rand(6, 4, generator=generator)
    labels = torch.randint(0, 4, (6,), generator=generator)
    scores = by_name.gather(1, labels[:, None])[:, 0]
    setting = RecalibrationConfig(mode=mode, scale=20.0, alpha=0.7, beta=0.3)
    whole = recalibrate(similarity, labels, scores, config=setting, groups=GROUPS, scores_by_name=by_name)
    assert ((whole.scores >= 0) & (whole.scores <= 1)).all()
    alone = recalibrate(
        similarity[2:3], labels[2:3], scores[2:3], config=setting, groups=GROUPS, scores_by_name=by_name[2:3]
    )
    assert alone.labels.item() == whole.labels[2]
    torch.testing.assert_close(alone.scores, whole.scores[2:3])

    order = torch.randperm(4, generator=generator)
    places = order.argsort()
    moved = recalibrate(
        similarity[:, order],
        places[labels],
        scores,
        config=setting,
        groups=GROUPS[order],
        scores_by_name=by_name[:, order],
    )
    torch.testing.assert_close(order[moved.labels], whole.labels)
    torch.testing.assert_close(moved.scores, whole.scores)
    if mode == "competing":
        assert (GROUPS[whole.labels] == GROUPS[labels]).all()


def test_alignment_sums_to_one_in_each_group() -> None:
    similarity = torch.tensor([[0.3, -0.2, 0.9, 0.1], [-1.0, 1.0, 0.0, 0.0]])
    aligned = log_alignment(similarity, scale=100.0, groups=torch.tensor([7, 7, 2, 7])).exp()
    torch.testing.assert_close(aligned[:, [0, 1, 3]].sum(dim=1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(aligned[:, 2], torch.ones(2, dtype=torch.float64))
    one_group = log_alignment(similarity, scale=5.0, groups=torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(one_group, log_alignment(similarity, scale=5.0))


def test_one_name_has_alignment_one() -> None:
    assert log_alignment(torch.tensor([[-0.3]]), scale=100.0).exp().tolist() == [[1.0]]


def test_no_boxes_and_five_thousand_boxes() -> None:
    for count in (0, 5000):
        labels = torch.zeros(count, dtype=torch.int64)
        similarity = torch.zeros(count, 4)
        found = recalibrate(
            similarity, labels, torch.ones(count), config=RecalibrationConfig(), groups=GROUPS
        )
        assert found.labels.shape == found.scores.shape == (count,)
        assert fused_scores(similarity, similarity, config=RecalibrationConfig(), groups=GROUPS).shape == (
            count,
            4,
        )


def test_a_refusal_leaves_the_detector_its_word() -> None:
    found = unchanged(torch.tensor([2]), torch.tensor([0.3]), torch.tensor([0.9]))
    assert (found.labels.item(), found.is_renamed.item()) == (2, False)
    assert found.scores.item() == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"alpha": -0.1}, "recalibration.alpha = -0.1"),
        ({"beta": math.nan}, "recalibration.beta = nan"),
        ({"scale": 0.0}, "recalibration.scale = 0.0"),
        ({"alpha": 0.0, "beta": 0.0}, "alpha = beta = 0"),
    ],
)
def test_settings_that_mean_nothing(fields: dict[str, float], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        RecalibrationConfig(**fields)


def test_competing_needs_groups() -> None:
    with pytest.raises(ConfigError, match="needs the group of every name"):
        recalibrate(torch.zeros(1, 2), torch.tensor([0]), torch.ones(1), config=RecalibrationConfig())


@pytest.mark.parametrize(
    ("similarity", "label", "score", "match"),
    [
        ([0.0, 0.0], 2, 0.5, r"detector labels \[2\]"),
        ([0.0, 0.0], 0, 1.5, "detector scores outside"),
        ([0.0, 0.0], 0, math.nan, "detector scores outside"),
        ([math.nan, 0.0], 0, 0.5, "similarities outside"),
        ([30.0, 0.0], 0, 0.5, "cosines, not logits"),
    ],
)
def test_what_cannot_be_recalibrated(similarity: list[float], label: int, score: float, match: str) -> None:
    with pytest.raises(ShapeError, match=match):
        recalibrate(
            torch.tensor([similarity]),
            torch.tensor([label]),
            torch.tensor([score]),
            config=RecalibrationConfig(mode="global"),
        )
