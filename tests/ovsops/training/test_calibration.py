"""Constants of calibration, from numbers whose answer is known."""

import pytest
import torch
from torch import Tensor

from ovsops.errors import ConfigError, ShapeError
from ovsops.training.calibration import ALPHAS, Affine, choose_alpha, fit_affine


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_affine_by_hand() -> None:
    """Mean 2 and spread 1 are brought to mean 0.5 and spread 0.25."""
    affine = fit_affine(torch.tensor([1.0, 3.0]), torch.tensor([0.25, 0.75]))
    assert affine == Affine(scale=0.25, shift=0.0)


def test_affine_gives_the_mean_and_spread_of_the_other() -> None:
    siglip, dino = random(3, 4, 5), 0.1 * random(2, 7, seed=1) + 0.3
    affine = fit_affine(siglip, dino)
    brought = affine.scale * siglip + affine.shift
    assert brought.mean().item() == pytest.approx(dino.mean().item(), abs=1e-6)
    assert brought.std(correction=0).item() == pytest.approx(dino.std(correction=0).item(), abs=1e-6)


def test_a_constant_tower_cannot_be_brought_anywhere() -> None:
    with pytest.raises(ConfigError, match="all equal"):
        fit_affine(torch.full((4,), 0.25), random(4))
    with pytest.raises(ShapeError, match="two or more"):
        fit_affine(torch.zeros(1), random(4))


def worth(dino: Tensor, siglip: Tensor, truth: Tensor, affine: Affine) -> dict[float, float]:
    """Accuracy of every share."""
    brought = affine.scale * siglip + affine.shift
    fused = {alpha: alpha * dino + (1 - alpha) * brought for alpha in ALPHAS}
    return {alpha: float((found.argmax(dim=1) == truth).float().mean()) for alpha, found in fused.items()}


def test_two_towers_with_different_errors_are_worth_more_together() -> None:
    truth = torch.arange(400) % 4
    signal = torch.nn.functional.one_hot(truth, 4).float()
    dino, siglip = signal + 0.8 * random(400, 4, seed=1), signal + 0.8 * random(400, 4, seed=2)
    choice = choose_alpha(worth(dino, siglip, truth, fit_affine(siglip, dino)))
    assert choice.gain > 0.05
    assert 0.2 < choice.alpha < 0.8
    assert [alpha for alpha, _ in choice.curve] == [step / 10 for step in range(11)]


def test_a_tower_that_knows_nothing_gets_no_share() -> None:
    truth = torch.arange(200) % 4
    dino = torch.nn.functional.one_hot(truth, 4).float() + 0.6 * random(200, 4, seed=1)
    choice = choose_alpha(worth(dino, random(200, 4, seed=2), truth, Affine(scale=10.0, shift=0.0)))
    assert choice.alpha == 1.0
    assert choice.gain == 0.0


def test_equal_shares_go_to_the_middle_and_the_grid_must_hold_both_ends() -> None:
    assert choose_alpha(dict.fromkeys(ALPHAS, 0.5)).alpha == 0.5
    for alphas in ((0.3, 0.9), (0.0, 0.5), (0.5, 1.0), ()):
        with pytest.raises(ConfigError, match="from 0 to 1 and hold both"):
            choose_alpha(dict.fromkeys(alphas, 0.5))
