"""Pairs of heads: hand-worked distances, optimal totals, one direction of the pairing, ties."""

import itertools

import pytest
import torch
from torch import Tensor

from ovsops.errors import ShapeError
from ovsops.patches.head_matching import (
    Matching,
    assign,
    pair_heads,
    spectral_distance,
    take_heads,
    unit_spectra,
)


def spectra(*shape: int, seed: int = 0) -> Tensor:
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.sort(dim=-1, descending=True).values


def total(cost: Tensor, columns: Tensor) -> float:
    return float(cost.gather(-1, columns[:, None]).sum())


def test_distances_by_hand() -> None:
    vfm = torch.tensor([[3.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    clip = torch.tensor([[6.0, 2.0], [1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(spectral_distance(vfm, clip), expected)


def test_a_spectrum_of_zeros_is_at_distance_one_of_any_other() -> None:
    zeros = torch.zeros(1, 4, dtype=torch.float64)
    torch.testing.assert_close(unit_spectra(zeros), zeros)
    assert spectral_distance(zeros, spectra(1, 4)).item() == pytest.approx(1)


@pytest.mark.parametrize(("matching", "best"), [("distant", min), ("similar", max)])
def test_no_permutation_has_a_better_total(matching: Matching, best: object) -> None:
    cost = (1 - spectral_distance(spectra(5, 8), spectra(5, 8, seed=1))).float()
    found = assign(cost, matching=matching, tie_break=0.0)
    totals = [total(cost, torch.tensor(p)) for p in itertools.permutations(range(5))]
    assert callable(best)
    assert total(cost, found) == pytest.approx(best(totals), abs=1e-5)


def test_heads_of_one_number() -> None:
    assert assign(torch.rand(2, 4, 4), matching="same").tolist() == [[0, 1, 2, 3]] * 2


def test_a_clip_head_gets_the_vfm_head_that_was_assigned_to_it() -> None:
    pairs = pair_heads(spectra(3, 6, 20), spectra(3, 6, 20, seed=1))
    for view in range(3):
        for vfm_head, clip_head in enumerate(pairs.clip_head[view].tolist()):
            assert int(pairs.vfm_head[view, clip_head]) == vfm_head
            distance = 1 - pairs.cost[view, vfm_head, clip_head]
            torch.testing.assert_close(pairs.distance[view, clip_head], distance)


def test_swapped_pairs_differ_unless_the_pairing_is_its_own_inverse() -> None:
    vfm, clip = spectra(1, 6, 20), spectra(1, 6, 20, seed=1)
    right, swapped = pair_heads(vfm, clip), pair_heads(vfm, clip, swapped=True)
    assert torch.equal(right.clip_head, swapped.clip_head)
    assert not torch.equal(right.vfm_head, swapped.vfm_head)
    alike = pair_heads(vfm, clip, matching="same"), pair_heads(vfm, clip, matching="same", swapped=True)
    assert torch.equal(alike[0].vfm_head, alike[1].vfm_head)
    torch.testing.assert_close(alike[0].distance, alike[1].distance)


def test_ties_are_broken_the_same_way_under_rounding() -> None:
    """Additive costs tie for every permutation: noise of 5e-8 decides without the tie-break, and not with it."""
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(12, 1, generator=generator) + torch.rand(12, generator=generator)
    noisy = cost.double() + 5e-8 * torch.randn(40, 12, 12, generator=generator, dtype=torch.float64)
    settled = assign(noisy)
    assert (settled == settled[0]).all()
    assert settled[0].tolist() == list(range(12))
    loose = assign(noisy, tie_break=0.0)
    assert len({tuple(row) for row in loose.tolist()}) > 1


def test_the_tie_break_costs_less_than_its_weight_a_head() -> None:
    cost = (1 - spectral_distance(spectra(12, 20), spectra(12, 20, seed=1))).float()
    loss = total(cost, assign(cost)) - total(cost, assign(cost, tie_break=0.0))
    assert 0 <= loss + 1e-6 <= 12e-4


def test_batches_are_matched_view_by_view() -> None:
    vfm, clip = spectra(4, 6, 20), spectra(4, 6, 20, seed=1)
    together = pair_heads(vfm, clip)
    for view in range(4):
        assert torch.equal(pair_heads(vfm[view], clip[view]).vfm_head, together.vfm_head[view])
    assert pair_heads(vfm[:0], clip[:0]).vfm_head.shape == (0, 6)


def test_one_head_is_matched_with_itself() -> None:
    assert pair_heads(spectra(1, 5), spectra(1, 5)).vfm_head.tolist() == [0]


def test_head_counts_that_differ_are_refused_with_the_way_out() -> None:
    with pytest.raises(ShapeError, match=r"12 VFM heads .* 16 heads .* choose checkpoints with equally many"):
        pair_heads(spectra(12, 20), spectra(16, 20))


def test_heads_are_taken_in_order() -> None:
    graphs = torch.arange(12.0).view(1, 3, 2, 2)
    taken = take_heads(graphs, torch.tensor([[2, 0, 1]]))
    assert torch.equal(taken[0], graphs[0][[2, 0, 1]])
