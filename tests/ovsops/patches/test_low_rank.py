"""Ranks by energy, stretching of eigenvalues, rebuilt graphs."""

import pytest
import torch
from torch import Tensor

from ovsops.patches.low_rank import (
    eigenscale,
    energy_rank,
    energy_share,
    fixed_rank,
    low_rank_graph,
    truncated,
)
from ovsops.patches.spectra import eigenpairs, eigenvalues, graph


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def keys(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_energy_is_measured_against_the_whole_spectrum() -> None:
    values = doubles(6, 3, 1, 0)
    torch.testing.assert_close(energy_share(values), doubles(0.6, 0.9, 1, 1))
    assert [int(energy_rank(values, energy=e)) for e in (0.5, 0.6, 0.7, 0.9, 0.95, 1.0)] == [1, 1, 2, 2, 3, 3]


def test_ranks_grow_in_steps_and_stop_at_the_spectrum() -> None:
    values = torch.ones(3, 40, dtype=torch.float64)
    values[1, 8:] = 0
    values[2, 11:] = 1e-9
    assert energy_rank(values, energy=0.95, first=10, step=5).tolist() == [40, 10, 15]
    assert energy_rank(values[:, :12], energy=0.95, first=10, step=5).tolist() == [12, 10, 12]
    assert energy_rank(torch.zeros(2, 6, dtype=torch.float64), energy=0.95, first=10, step=5).tolist() == [
        6,
        6,
    ]
    assert energy_share(torch.zeros(3, dtype=torch.float64)).tolist() == [1, 1, 1]


def test_eigenscaling_by_hand() -> None:
    scaled = eigenscale(doubles(10, 4, 2, 1), torch.tensor(3))
    # low 2, high 10: 2 -> 0.5 * 2, 10 -> 1.5 * 10, 4 -> (2/8) * (15 - 1) + 1; the fourth is not kept
    torch.testing.assert_close(scaled, doubles(15, 4.5, 1, 0))


def test_equal_eigenvalues_stay_and_zeros_stay_zero() -> None:
    torch.testing.assert_close(eigenscale(doubles(3, 3, 3), torch.tensor(3)), doubles(3, 3, 3))
    torch.testing.assert_close(eigenscale(doubles(3, 3, 1), torch.tensor(2)), doubles(3, 3, 0))
    torch.testing.assert_close(eigenscale(doubles(5), torch.tensor(1)), doubles(5))
    assert not eigenscale(doubles(0, 0), torch.tensor(2)).any()


def test_each_graph_has_its_own_rank() -> None:
    values = torch.stack([doubles(4, 2, 1), doubles(9, 3, 2)])
    cut = truncated(values, torch.tensor([1, 2]))
    assert cut.tolist() == [[4, 0, 0], [9, 3, 0]]
    both = eigenscale(values, torch.tensor([3, 2]))
    torch.testing.assert_close(both[1], eigenscale(values[1], torch.tensor(2)))


def test_all_pairs_give_the_graph_back() -> None:
    found = low_rank_graph(eigenpairs(keys(2, 3, 30, 8)), rank=1, energy=1.0, step=1, strength=None)
    torch.testing.assert_close(found, graph(keys(2, 3, 30, 8)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 2, 49, 16), (1, 2, 6, 16), (1, 2, 4, 3), (1, 2, 1, 16), (0, 2, 9, 4)])
@pytest.mark.parametrize("energy", [None, 0.95])
def test_fewer_patches_or_channels_than_the_rank(shape: tuple[int, ...], energy: float | None) -> None:
    pairs = eigenpairs(keys(*shape))
    found = low_rank_graph(pairs, rank=10, energy=energy, step=5, strength=1.5)
    assert found.shape == (*shape[:-1], shape[-2])
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, found.mT, atol=1e-5, rtol=0)


def test_a_fixed_rank_counts_the_zeros_of_a_graph_with_few_channels() -> None:
    """20 patches of 4 channels have 4 eigenvalues and 16 zeros: the tenth largest is 0, which the stretching sees."""
    values = fixed_rank(eigenvalues(keys(20, 4)), rank=10, num_patches=20)
    assert values.shape == (10,)
    stretched = eigenscale(values, torch.tensor(10))
    torch.testing.assert_close(stretched[:4], values[:4] * 1.5)
    assert not stretched[4:].any()
    assert fixed_rank(eigenvalues(keys(6, 4)), rank=10, num_patches=6).shape == (6,)


def test_a_rank_keeps_the_best_approximation() -> None:
    whole = graph(keys(40, 16))
    errors = [
        (low_rank_graph(eigenpairs(keys(40, 16)), rank=r, energy=None, step=1, strength=None) - whole).norm()
        for r in (2, 5, 10, 16)
    ]
    assert errors == sorted(errors, reverse=True)
    left = eigenvalues(keys(40, 16))[5:].square().sum().sqrt()  # Eckart and Young
    torch.testing.assert_close(errors[1].double(), left, atol=1e-3, rtol=1e-4)
