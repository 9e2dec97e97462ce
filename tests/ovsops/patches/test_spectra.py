"""Spectra from small Gram matrices against those of the whole graphs."""

import pytest
import torch
from torch import Tensor

from ovsops.patches.spectra import eigenpairs, eigenpairs_of_graphs, eigenvalues, graph, leading


def keys(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "shape", [(2, 3, 49, 16), (2, 3, 7, 16), (1, 1, 16, 16), (4, 20, 8), (0, 3, 9, 4), (9, 4)]
)
def test_eigenvalues_are_those_of_the_whole_graph(shape: tuple[int, ...]) -> None:
    found = eigenvalues(keys(*shape))
    whole = torch.linalg.eigvalsh(graph(keys(*shape)).double()).flip(-1)
    assert found.shape == (*shape[:-2], min(shape[-2:]))
    torch.testing.assert_close(found, whole[..., : found.shape[-1]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 49, 16), (2, 3, 7, 16)])
def test_eigenpairs_rebuild_the_graph_and_are_orthonormal(shape: tuple[int, ...]) -> None:
    pairs = eigenpairs(keys(*shape))
    rebuilt = (pairs.vectors * pairs.values[..., None, :].float()) @ pairs.vectors.mT
    torch.testing.assert_close(rebuilt, graph(keys(*shape)), atol=1e-4, rtol=1e-4)
    unit = torch.eye(pairs.vectors.shape[-1]).expand((*pairs.vectors.shape[:-2], -1, -1))
    torch.testing.assert_close(pairs.vectors.mT @ pairs.vectors, unit, atol=1e-4, rtol=0)


def test_a_hand_worked_graph() -> None:
    pairs = eigenpairs(torch.tensor([[2.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 0]]))  # A = diag(4, 1, 0) / 2
    torch.testing.assert_close(pairs.values, torch.tensor([2.0, 0.5, 0.0], dtype=torch.float64))
    torch.testing.assert_close(pairs.vectors[:, :2].abs(), torch.eye(3)[:, :2])


def test_directions_without_energy_are_zeros_not_noise() -> None:
    one_direction = torch.ones(30, 1) @ keys(1, 8)
    pairs = eigenpairs(one_direction)
    assert torch.isfinite(pairs.vectors).all()
    torch.testing.assert_close(pairs.vectors[:, 1:], torch.zeros(30, 7))
    assert not eigenpairs(torch.zeros(30, 8)).vectors.any()
    assert not eigenvalues(torch.zeros(30, 8)).any()


def test_half_precision_keys_are_decomposed_in_double() -> None:
    half = keys(2, 40, 8).bfloat16()
    assert eigenvalues(half).dtype == torch.float64
    assert eigenpairs(half).vectors.dtype == torch.float32


def test_graphs_without_keys_and_keys_have_the_same_spectrum() -> None:
    whole = eigenpairs_of_graphs(graph(keys(3, 20, 6)))
    torch.testing.assert_close(whole.values[..., :6], eigenvalues(keys(3, 20, 6)), atol=1e-5, rtol=1e-5)


def test_leading_values_are_cut_or_padded() -> None:
    values = torch.tensor([[3.0, 2.0, 1.0]])
    assert leading(values, 2).tolist() == [[3, 2]]
    assert leading(values, 5).tolist() == [[3, 2, 1, 0, 0]]
