"""Bootstrap intervals: by hand, against a slow loop, coverage, pairs."""

import numpy as np
import pytest

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.bootstrap import BootstrapConfig, bootstrap, paired_bootstrap
from ovsops.metrics.counts import ratio
from ovsops.metrics.segmentation import ConfusionCounts, iou, mean_iou


def share(states: np.ndarray) -> np.ndarray:
    """State (hits, all)."""
    return ratio(states[..., 0], states[..., 1])


def label_states(seed: int, num_images: int = 12, right: float = 0.7) -> np.ndarray:
    generator = np.random.default_rng(seed)
    states = []
    for _ in range(num_images):
        truth = generator.integers(0, 3, (8, 8))
        predicted = np.where(generator.random((8, 8)) < right, truth, generator.integers(0, 3, (8, 8)))
        states.append(ConfusionCounts.zeros(3).update(truth, predicted).areas)
    return np.stack(states)


def test_equal_images_have_no_spread() -> None:
    found = bootstrap(np.tile([3, 4], (5, 1)), share)
    assert (found.value, found.low, found.high) == (0.75, 0.75, 0.75)
    assert found.num_defined == 1000


def test_it_equals_summing_image_by_image() -> None:
    states = label_states(0)
    config = BootstrapConfig(num_resamples=50, seed=3)
    times = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=50)
    slow = []
    for row in times:
        total = np.zeros((3, 3), np.int64)
        for state, n in zip(states, row, strict=True):
            for _ in range(n):
                total = total + state
        slow.append(mean_iou(total))
    found = bootstrap(states, mean_iou, config=config)
    np.testing.assert_allclose([found.low, found.high], np.quantile(slow, [0.025, 0.975]), rtol=1e-12)
    assert found.value == mean_iou(states.sum(axis=0))


def test_the_seed_decides() -> None:
    states = label_states(1)
    one, same, other = (bootstrap(states, mean_iou, config=BootstrapConfig(seed=s)) for s in (1, 1, 2))
    assert (one.low, one.high) == (same.low, same.high)
    assert one.low != other.low


def test_an_interval_holds_the_true_share_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    num_hits = 0
    for seed in range(200):
        hits = (generator.random(60) < 0.6).astype(np.int64)
        found = bootstrap(
            np.stack([hits, np.ones_like(hits)], axis=1),
            share,
            config=BootstrapConfig(num_resamples=300, seed=seed),
        )
        num_hits += bool(found.low <= 0.6 <= found.high)
    assert 0.88 <= num_hits / 200 <= 0.99


def test_per_class_figures_and_classes_that_are_not_drawn() -> None:
    states = np.zeros((3, 3, 3), np.int64)
    states[:, :, 0] = [[2, 4, 2], [1, 4, 2], [2, 4, 4]]
    states[0, :, 1] = [1, 2, 2]  # in one image only, and not drawn with probability (2/3)**3
    found = bootstrap(states, iou, config=BootstrapConfig(num_resamples=2000))
    assert found.value.shape == (3,)
    assert found.num_defined[0] == 2000
    assert found.num_defined[1] / 2000 == pytest.approx(1 - (2 / 3) ** 3, abs=0.03)
    assert (found.low[1], found.high[1]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert np.isnan([found.value[2], found.low[2], found.high[2]]).all()


def test_pairs_cancel_what_images_do_to_both() -> None:
    """Images differ wildly; on each, one system has one more hit in ten."""
    base = np.random.default_rng(0).integers(0, 9, 40)
    worse, better = (np.stack([hits, np.full(40, 10)], axis=1) for hits in (base, base + 1))
    found = paired_bootstrap(better, worse, share)
    np.testing.assert_allclose([found.value, found.low, found.high], 0.1)
    single = bootstrap(better, share)
    assert single.high - single.low > 0.1


def test_a_system_does_not_differ_from_itself() -> None:
    states = label_states(2)
    found = paired_bootstrap(states, states, mean_iou)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_errors() -> None:
    with pytest.raises(ShapeError, match="no images"):
        bootstrap(np.zeros((0, 2), np.int64), share)
    with pytest.raises(ShapeError, match="same images in the same order"):
        paired_bootstrap(np.ones((3, 2), np.int64), np.ones((4, 2), np.int64), share)
    with pytest.raises(ConfigError, match=r"confidence = 95"):
        BootstrapConfig(confidence=95.0)
    with pytest.raises(ConfigError, match="at least 1"):
        BootstrapConfig(num_resamples=0)
