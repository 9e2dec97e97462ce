"""Calibrators: steps by hand, temperatures that are known, few samples, other checkpoints."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovsops.errors import CheckpointError, ConfigError, ShapeError
from ovsops.metrics.calibration import calibration_error, reliability_table
from ovsops.regions.calibration import CalibrationConfig, Kind, ScoreCalibrator, ScoreMap, fit_calibrator


def fitted(
    scores: np.ndarray, is_right: np.ndarray, groups: np.ndarray | None = None, **fields: object
) -> ScoreCalibrator:
    groups = np.zeros(len(scores), np.int64) if groups is None else groups
    config = CalibrationConfig(**{"min_samples": 1, "prior_samples": 0.0, **fields})
    return fit_calibrator(scores, is_right, groups, fingerprint="a", config=config)


def chances(calibrator: ScoreCalibrator, scores: list[float], group: int = 0) -> list[float]:
    groups = np.full(len(scores), group, np.int64)
    return calibrator.calibrated(np.array(scores, np.float64), groups, fingerprint="a").tolist()


def overconfident(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose logits are three times too large."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, num)
    return 1 / (1 + np.exp(-3 * logits)), rng.random(num) < 1 / (1 + np.exp(-logits))


def error(scores: np.ndarray, is_right: np.ndarray) -> float:
    return float(calibration_error(reliability_table(scores, is_right, num_bins=15)))


def test_isotonic_by_hand() -> None:
    """Wrong, right, wrong, right: the middle two violate the order and become 1/2 each; between knots lines."""
    calibrator = fitted(np.array([0.2, 0.4, 0.6, 0.8]), np.array([False, True, False, True]))
    assert chances(calibrator, [0.2, 0.4, 0.5, 0.6, 0.8]) == pytest.approx([0, 0.5, 0.5, 0.5, 1])
    assert chances(calibrator, [0.0, 0.3, 0.7, 1.0]) == pytest.approx([0, 0.25, 0.75, 1])


def test_equal_scores_are_one_sample() -> None:
    calibrator = fitted(np.array([0.5, 0.5, 0.5, 0.9]), np.array([True, False, False, True]))
    assert chances(calibrator, [0.5]) == pytest.approx([1 / 3])


def test_a_known_temperature_is_found() -> None:
    calibrator = fitted(*overconfident(20_000, 0), kind="temperature")
    scores = np.array([0.05, 0.3, 0.5, 0.9, 0.99])
    expected = 1 / (1 + np.exp(-np.log(scores / (1 - scores)) / 3))
    np.testing.assert_allclose(chances(calibrator, scores.tolist()), expected, atol=0.02)


@pytest.mark.parametrize("kind", ["isotonic", "temperature"])
def test_the_calibration_error_of_fresh_samples_falls_by_more_than_half(kind: Kind) -> None:
    calibrator = fitted(*overconfident(4000, 1), kind=kind)
    scores, is_right = overconfident(4000, 2)
    after = calibrator.calibrated(scores, np.zeros(4000, np.int64), fingerprint="a")
    assert error(after, is_right) < 0.3 * error(scores, is_right)


def test_a_group_has_its_own_map_drawn_to_that_of_all() -> None:
    """One step each: group 0 is right in 3 of 4, all in 4 of 8; 4 samples beside a prior of 4 give 0.625."""
    scores, groups = np.full(8, 0.5), np.repeat([0, 1], 4)
    is_right = np.array([True, True, True, False, True, False, False, False])
    drawn = fitted(scores, is_right, groups, prior_samples=4.0)
    assert chances(drawn, [0.5], 0) == pytest.approx([0.625])
    assert chances(drawn, [0.5], 1) == pytest.approx([0.375])
    assert chances(fitted(scores, is_right, groups), [0.5], 0) == pytest.approx([0.75])


def test_few_samples_and_unknown_groups_get_the_map_of_all() -> None:
    scores, is_right = overconfident(100, 3)
    groups = np.where(np.arange(100) < 95, 0, 1)
    calibrator = fitted(scores, is_right, groups, min_samples=10)
    assert set(calibrator.by_group) == {0}
    assert chances(calibrator, [0.3, 0.9], 1) == chances(calibrator, [0.3, 0.9], 77)
    assert calibrator.by_group[0].num_samples == 95


@settings(max_examples=30)
@given(seed=st.integers(0, 2**16), kind=st.sampled_from(["isotonic", "temperature"]))
def test_maps_rise_stay_in_range_and_survive_a_file(seed: int, kind: Kind) -> None:
    scores, is_right = overconfident(200, seed)
    groups = np.random.default_rng(seed).integers(0, 3, 200)
    calibrator = fitted(scores, is_right, groups, kind=kind, min_samples=20, prior_samples=30.0)
    again = ScoreCalibrator.from_json(json.loads(json.dumps(calibrator.to_json())))
    assert again == calibrator
    at = np.linspace(0, 1, 101).tolist()
    for group in range(4):
        found = np.array(chances(again, at, group))
        assert ((found >= 0) & (found <= 1)).all()
        assert (np.diff(found) >= -1e-12).all()


def test_scores_of_another_checkpoint_are_refused() -> None:
    calibrator = fitted(*overconfident(100, 4))
    with pytest.raises(CheckpointError, match="fitted on a, scores of b: fit it again"):
        calibrator.calibrated(np.array([0.5]), np.array([0]), fingerprint="b")


def test_files_that_are_no_calibrator() -> None:
    data = fitted(*overconfident(100, 5)).to_json()
    with pytest.raises(CheckpointError, match="calibrator of version 2, this code reads 1"):
        ScoreCalibrator.from_json({**data, "version": 2})
    with pytest.raises(CheckpointError, match="cannot be read"):
        ScoreCalibrator.from_json({key: value for key, value in data.items() if key != "pooled"})
    falling = {"scores": [0.1, 0.2], "chances": [0.9, 0.1], "num_samples": 2}
    with pytest.raises(CheckpointError, match="rising"):
        ScoreCalibrator.from_json({**data, "pooled": falling})


def test_what_cannot_be_fitted() -> None:
    scores, is_right = overconfident(60, 6)
    with pytest.raises(ConfigError, match="60 samples, 60 right: a calibrator needs 50"):
        fit_calibrator(scores, np.ones(60, bool), np.zeros(60, np.int64), fingerprint="a")
    with pytest.raises(ConfigError, match="10 samples"):
        fit_calibrator(scores[:10], is_right[:10], np.zeros(10, np.int64), fingerprint="a")
    with pytest.raises(ShapeError, match=r"scores outside \[0, 1\] or nan"):
        fitted(np.array([0.5, np.nan]), np.array([True, False]))
    with pytest.raises(ConfigError, match="prior_samples a finite number"):
        CalibrationConfig(prior_samples=-1.0)
    with pytest.raises(ConfigError, match="higher similarity does not mean"):
        fitted(scores, 1 - scores > 0.5, kind="temperature")
    with pytest.raises(ConfigError, match="as many of both"):
        ScoreMap(scores=(), chances=(), num_samples=0)
