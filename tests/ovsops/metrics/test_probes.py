"""Probes: known answers, the optimum of the linear probe, random features."""

import numpy as np
import pytest
import torch

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.probes import (
    LinearProbeConfig,
    fit_linear_probe,
    group_accuracy,
    predict_by_neighbours,
)
from ovsops.metrics.segmentation import ConfusionCounts


def clusters(seed: int, spread: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Three directions with noise, ids 2, 5, 9."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([2, 5, 9]).repeat(40)
    centres = torch.eye(3).repeat(40, 1)
    return centres + spread * torch.randn(120, 3, generator=generator), ids


def test_neighbours_by_hand() -> None:
    """Cosines of (1, 0) with the four: 1, 0.8, 0.6, 0. One neighbour says 4; of three, two say 7."""
    train = torch.tensor([[2.0, 0.0], [4.0, 3.0], [3.0, 4.0], [0.0, 1.0]])
    ids = torch.tensor([4, 7, 7, 1])
    query = torch.tensor([[10.0, 0.0]])
    assert predict_by_neighbours(train, ids, query, k=1).tolist() == [4]
    assert predict_by_neighbours(train, ids, query, k=3).tolist() == [7]
    assert predict_by_neighbours(train, ids, query, k=2).tolist() == [4]  # one vote each: the nearer wins
    assert predict_by_neighbours(train, ids, query, k=4).tolist() == [7]


def test_a_vote_more_beats_any_nearness() -> None:
    """Cosines with (1, 0): 1 for id 4, and 0.28 twice for id 7."""
    train = torch.tensor([[1.0, 0.0], [7.0, 24.0], [7.0, -24.0]])
    ids = torch.tensor([4, 7, 7])
    assert predict_by_neighbours(train, ids, torch.tensor([[1.0, 0.0]]), k=3).tolist() == [7]


def test_both_probes_find_clusters_and_random_features_do_not() -> None:
    train, ids = clusters(0)
    test, truth = clusters(1)
    assert (predict_by_neighbours(train, ids, test) == truth).float().mean() > 0.9
    assert (fit_linear_probe(train, ids).predict(test) == truth).float().mean() > 0.9
    noise = torch.randn(120, 3, generator=torch.Generator().manual_seed(2))
    assert (predict_by_neighbours(noise, ids, test) == truth).float().mean() < 0.55
    constant = fit_linear_probe(torch.ones(120, 3), ids)
    assert (constant.predict(test) == truth).float().mean() == pytest.approx(1 / 3)


def test_the_linear_probe_is_at_its_optimum() -> None:
    """The gradient of the penalised loss, worked out from probabilities, is zero."""
    train, ids = clusters(0, spread=0.8)
    config = LinearProbeConfig(l2=0.01)
    probe = fit_linear_probe(train, ids, config=config)
    x = (train.double() - probe.mean) / probe.scale
    probabilities = (x @ probe.weight.T + probe.bias).softmax(dim=1)
    targets = (ids[:, None] == probe.ids[None]).double()
    gradient = (probabilities - targets).T @ x / len(x) + config.l2 * probe.weight
    assert gradient.abs().max() < 1e-5
    assert (probabilities - targets).mean(dim=0).abs().max() < 1e-5
    assert probe.max_gradient < 1e-5


def test_the_linear_probe_is_deterministic_and_blind_to_scale() -> None:
    train, ids = clusters(0)
    probe, again = fit_linear_probe(train, ids), fit_linear_probe(train, ids)
    assert torch.equal(probe.weight, again.weight)
    scaled = fit_linear_probe(train * torch.tensor([1.0, 100.0, 0.01]) + 5, ids)
    torch.testing.assert_close(scaled.weight, probe.weight, rtol=1e-3, atol=1e-3)


def test_a_channel_that_never_changes_does_no_harm() -> None:
    train, ids = clusters(0)
    padded = torch.cat([train, torch.full((120, 1), 3.0)], dim=1)
    assert (fit_linear_probe(padded, ids).predict(padded) == ids).float().mean() > 0.9


def test_groups_by_hand() -> None:
    """Truth 0 0 1 2 2, taken for 0 1 1 0 2; groups {0, 1} and {2}."""
    counts = ConfusionCounts.zeros(3).update(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 2])).counts
    assert group_accuracy(counts, [0, 1]) == pytest.approx(2 / 3)
    assert group_accuracy(counts, [2]) == 0.5
    assert np.isnan(group_accuracy(np.zeros((3, 3), np.int64), [1]))


def test_errors() -> None:
    train, ids = clusters(0)
    with pytest.raises(ShapeError, match="k = 200 neighbours of 120"):
        predict_by_neighbours(train, ids, train, k=200)
    with pytest.raises(ShapeError, match="without training samples"):
        fit_linear_probe(train[:0], ids[:0])
    train[7, 1] = torch.inf
    with pytest.raises(ShapeError, match=r"features \[7\] are not finite"):
        fit_linear_probe(train, ids)
    with pytest.raises(ConfigError, match=r"linear_probe\.l2"):
        LinearProbeConfig(l2=0.0)
