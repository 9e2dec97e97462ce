"""Constants of calibration, from numbers whose answer is known."""

import math

import pytest
import torch
from torch import Tensor

from ovsops.errors import ConfigError, ShapeError
from ovsops.training.calibration import (
    Affine,
    choose_alpha,
    fit_affine,
    fit_sigmoid,
    fit_softmax_temperature,
)


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


def accuracy(truth: Tensor):  # type: ignore[no-untyped-def]
    return lambda fused: float((fused.argmax(dim=1) == truth).float().mean())


def test_two_towers_with_different_errors_are_worth_more_together() -> None:
    truth = torch.arange(400) % 4
    signal = torch.nn.functional.one_hot(truth, 4).float()
    dino, siglip = signal + 0.8 * random(400, 4, seed=1), signal + 0.8 * random(400, 4, seed=2)
    choice = choose_alpha(dino, siglip, accuracy(truth), affine=fit_affine(siglip, dino))
    assert choice.gain > 0.05
    assert 0.2 < choice.alpha < 0.8
    assert [alpha for alpha, _ in choice.curve] == [step / 10 for step in range(11)]


def test_a_tower_that_knows_nothing_gets_no_share() -> None:
    truth = torch.arange(200) % 4
    dino = torch.nn.functional.one_hot(truth, 4).float() + 0.6 * random(200, 4, seed=1)
    choice = choose_alpha(dino, random(200, 4, seed=2), accuracy(truth), affine=Affine(scale=10.0, shift=0.0))
    assert choice.alpha == 1.0
    assert choice.gain == 0.0


def test_equal_shares_go_to_the_middle_and_the_grid_must_hold_both_ends() -> None:
    similarity = random(5, 3)
    choice = choose_alpha(similarity, similarity, lambda _: 0.5, affine=Affine(scale=1.0, shift=0.0))
    assert choice.alpha == 0.5
    for alphas in ((0.3, 0.9), (0.0, 0.5), (0.5, 1.0), ()):
        with pytest.raises(ConfigError, match="from 0 to 1 and hold both"):
            choose_alpha(
                similarity, similarity, lambda _: 0.5, affine=Affine(scale=1.0, shift=0.0), alphas=alphas
            )


def test_sigmoid_finds_the_chance_that_made_the_truth() -> None:
    """Truth drawn with chance sigmoid(s / 0.1 - 2)."""
    similarity = 0.2 * random(20000)
    chance = (similarity / 0.1 - 2).sigmoid()
    truth = torch.rand(20000, generator=torch.Generator().manual_seed(3)) < chance
    fitted = fit_sigmoid(similarity, truth)
    assert fitted.temperature == pytest.approx(0.1, rel=0.05)
    assert fitted.bias == pytest.approx(-2.0, abs=0.1)


def test_sigmoid_of_parted_pairs_stays_finite_by_hand() -> None:
    """Two pairs: Platt's targets are 2/3 at similarity 1 and 1/3 at 0, so logits are log 2 and -log 2."""
    fitted = fit_sigmoid(torch.tensor([1.0, 0.0]), torch.tensor([True, False]))
    assert 1 / fitted.temperature == pytest.approx(2 * math.log(2), rel=1e-5)
    assert fitted.bias == pytest.approx(-math.log(2), rel=1e-5)


def test_sigmoid_refuses_what_means_nothing() -> None:
    with pytest.raises(ConfigError, match="both true and false"):
        fit_sigmoid(random(3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ConfigError, match="does not mean a likelier pair"):
        fit_sigmoid(torch.tensor([1.0, 0.0]), torch.tensor([False, True]))


def test_softmax_temperature_finds_the_one_that_drew_the_truth() -> None:
    similarity = 0.3 * random(5000, 6)
    chances = (similarity / 0.05).softmax(dim=1)
    truth = torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(4))[:, 0]
    assert fit_softmax_temperature(similarity, truth) == pytest.approx(0.05, rel=0.05)


def test_softmax_temperature_ends_of_the_range() -> None:
    similarity = torch.eye(4)
    assert fit_softmax_temperature(similarity, torch.arange(4)) == pytest.approx(1e-4)  # always right
    assert fit_softmax_temperature(similarity, (torch.arange(4) + 1) % 4) == pytest.approx(
        100
    )  # always wrong
    with pytest.raises(ShapeError, match="no sample"):
        fit_softmax_temperature(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
