"""Presence: similarities by hand, a gate that learns which witness to trust, verdicts and their flags."""

import math

import numpy as np
import pytest
import torch

from ovsops.errors import ConfigError, ShapeError
from ovsops.regions.presence import (
    ABSENT,
    PRESENT,
    UNDECIDED,
    GateConfig,
    PresenceGate,
    SimilarityConfig,
    best_region_scores,
    fit_gate,
    gate_image,
    joined_similarity,
)

AXES = torch.eye(2)


def similarity(config: SimilarityConfig, attention: list[list[float]]) -> list[float]:
    """A 1 x 4 grid: three patches of the first text, one of the second; the whole image is of the first."""
    patches = torch.stack([AXES[0], AXES[0], AXES[0], AXES[1] * 7]).reshape(1, 4, 2)
    return joined_similarity(AXES[0] * 3, patches, torch.tensor(attention), AXES, config=config).tolist()


def test_joined_similarity_by_hand() -> None:
    """Mean: 3/4 and 1/4; attention on the last patch alone: 0 and 1."""
    mean = SimilarityConfig(spatial="mean")
    assert similarity(mean, [[0.0, 0, 0, 1]]) == pytest.approx([0.4 + 0.4 * 0.75, 0.4 * 0.25 + 0.2])


def test_the_top_share_finds_what_is_small() -> None:
    assert similarity(SimilarityConfig(), [[0.0, 0, 0, 1]]) == pytest.approx([0.8, 0.6])


def test_attention_that_looks_nowhere_looks_everywhere() -> None:
    same = similarity(SimilarityConfig(), [[0.25] * 4])
    assert similarity(SimilarityConfig(), [[0.0] * 4]) == pytest.approx(same)


def test_best_region_scores() -> None:
    found = best_region_scores(torch.tensor([0.2, 0.7, 0.4]), torch.tensor([0, 2, 2]), num_classes=4)
    assert found.tolist() == pytest.approx([0.2, 0.0, 0.7, 0.0])
    assert best_region_scores(torch.zeros(0), torch.zeros(0, dtype=torch.int64), num_classes=2).tolist() == [
        0,
        0,
    ]


def witnesses(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The second column knows, with noise; the first and the third are noise."""
    rng = np.random.default_rng(seed)
    is_present = rng.random(num) < 0.5
    knows = is_present + rng.normal(0, 0.4, num)
    return np.stack([rng.normal(0, 5, num), knows, rng.random(num)], axis=1), is_present


def mcc(said: np.ndarray, truth: np.ndarray) -> float:
    return float(np.corrcoef(said, truth)[0, 1])


def test_the_gate_trusts_the_witness_that_knows_and_raises_mcc_on_fresh_images() -> None:
    evidence, is_present = witnesses(1000, 0)
    gate = fit_gate(evidence, is_present)
    assert abs(gate.weights[1]) > 10 * max(abs(gate.weights[0]), abs(gate.weights[2]))
    fresh, truth = witnesses(1000, 1)
    said = gate.verdicts(gate.chances(fresh)) == PRESENT
    assert mcc(said, truth) > 0.7
    assert mcc(fresh[:, 2] > 0.5, truth) < 0.1


def test_among_the_absent_few_are_present() -> None:
    evidence, is_present = witnesses(1000, 2)
    gate = fit_gate(evidence, is_present, config=GateConfig(max_missed=0.02))
    fresh, truth = witnesses(2000, 3)
    absent = gate.verdicts(gate.chances(fresh)) == ABSENT
    assert absent.sum() > 300
    assert truth[absent].mean() < 0.05


def test_chances_are_calibrated_and_witnesses_that_part_perfectly_stay_finite() -> None:
    evidence, is_present = witnesses(2000, 4)
    chances = fit_gate(evidence, is_present).chances(evidence)
    assert chances.mean() == pytest.approx(is_present.mean(), abs=1e-3)
    perfect = np.stack([np.zeros(20), np.repeat([0.0, 1.0], 10), np.zeros(20)], axis=1)
    gate = fit_gate(perfect, np.repeat([False, True], 10))
    assert all(math.isfinite(weight) for weight in gate.weights)
    verdicts = gate.verdicts(gate.chances(perfect))
    assert verdicts.tolist() == [ABSENT] * 10 + [PRESENT] * 10


def test_thresholds_by_hand() -> None:
    """Chances rise with the column; truth 0 0 1 0 1 1: present from the fifth on, absent below the third."""
    column = np.arange(6.0)
    evidence = np.stack([column, np.zeros(6), np.zeros(6)], axis=1)
    gate = fit_gate(
        evidence, np.array([False, False, True, False, True, True]), config=GateConfig(max_missed=0.0)
    )
    assert gate.verdicts(gate.chances(evidence)).tolist() == [ABSENT] * 2 + [UNDECIDED] * 2 + [PRESENT] * 2


GATE = PresenceGate(names=("region",), weights=(1.0,), bias=0.0, absent=0.3, present=0.6)
"""Logits are the evidence: below -0.85 absent, from 0.41 on present."""


def test_verdicts_and_flags_of_an_image() -> None:
    evidence = np.array([[-2.0], [-2.0], [0.0], [2.0], [2.0], [2.0]])
    labels = np.array([1, 2, 3, 4, 4, 0])
    scores = np.array([0.9, 0.8, 0.7, 0.9, 0.3, 0.05])
    found = gate_image(GATE, evidence, scores, labels, keep=0.5, low=0.1, sure=0.5)
    assert found.verdicts.tolist() == [ABSENT, ABSENT, UNDECIDED, PRESENT, PRESENT, PRESENT]
    # 0: only a box below `low`. 1: absent by the gate, but a box says otherwise.
    assert found.is_verified_absent.tolist() == [True, False, False, False, False, False]
    # 4 has a weak box left, 5 is present without any box.
    assert found.is_exhaustive.tolist() == [True, False, False, True, False, False]
    assert found.is_kept.tolist() == [False, True, True, True, False, False]


def test_a_box_that_stays_may_leave_open_whether_all_are_found() -> None:
    evidence, labels = np.array([[2.0], [2.0]]), np.array([0, 1, 1])
    scores = np.array([0.9, 0.9, 0.2])
    found = gate_image(GATE, evidence, scores, labels, keep=0.05, low=0.05, sure=0.5)
    assert found.is_kept.tolist() == [True, True, True]
    assert found.is_exhaustive.tolist() == [True, False]


def test_an_image_without_boxes_or_classes() -> None:
    none = np.zeros(0, np.int64)
    found = gate_image(GATE, np.array([[-2.0]]), np.zeros(0), none, keep=0.5, low=0.1, sure=0.5)
    assert found.is_verified_absent.tolist() == [True]
    assert gate_image(
        GATE, np.zeros((0, 1)), np.zeros(0), none, keep=0.5, low=0.1, sure=0.5
    ).chances.shape == (0,)


def test_what_means_nothing() -> None:
    with pytest.raises(ConfigError, match="10 of 10 classes are present"):
        fit_gate(np.zeros((10, 3)), np.ones(10, bool))
    with pytest.raises(ShapeError, match="every class of every image needs a number"):
        fit_gate(np.full((2, 3), np.nan), np.array([True, False]))
    with pytest.raises(ConfigError, match="0 <= low <= keep, sure <= 1"):
        gate_image(GATE, np.zeros((1, 1)), np.zeros(0), np.zeros(0, np.int64), keep=0.1, low=0.5, sure=0.5)
    with pytest.raises(ShapeError, match=r"labels \[3\]"):
        gate_image(GATE, np.zeros((1, 1)), np.ones(1), np.array([3]), keep=0.5, low=0.1, sure=0.5)
    with pytest.raises(ConfigError, match="0 <= absent <= present <= 1"):
        PresenceGate(names=("a",), weights=(1.0,), bias=0.0, absent=0.9, present=0.5)
    with pytest.raises(ConfigError, match="not negative and sum to 1"):
        SimilarityConfig(global_weight=0.9)
    with pytest.raises(ConfigError, match="top_share = 0"):
        SimilarityConfig(top_share=0.0)
    with pytest.raises(ShapeError, match="negative or nan"):
        similarity(SimilarityConfig(), [[-1.0, 0, 0, 1]])
