"""The fusion against a plain transcription of its formulas, and what it does at its edges."""

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ovsops.patches.graph_fusion import (
    DistillationSettings,
    attend,
    distil,
    fuse_graphs,
    match_range,
    resize_keys,
)
from ovsops.patches.spectra import graph

PUBLISHED = DistillationSettings(energy=None, tie_break=0.0, swapped=True)


def keys(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(*shape[:-2], 1, shape[-1], generator=generator) ** 3  # heads of different spectra
    return torch.randn(*shape, generator=generator) * scale


def plain_fusion(vfm: Tensor, clip: Tensor, settings: DistillationSettings) -> Tensor:
    """One view [N P d], head by head, with whole graphs."""
    heads, patches, width = vfm.shape
    graphs = [[(k @ k.T * width**-0.5).double() for k in model] for model in (vfm, clip)]
    spectra = [
        [torch.linalg.eigvalsh(a).flip(0)[: settings.num_eigenvalues] for a in model] for model in graphs
    ]
    distance = torch.tensor(
        [[float((a / a.sum() - b / b.sum()).abs().sum()) for b in spectra[1]] for a in spectra[0]]
    )
    rows, columns = linear_sum_assignment(1 - distance.numpy())
    fused = [torch.empty(0)] * heads
    for i, j in zip(rows, columns, strict=True):
        source, slot = (j, i) if settings.swapped else (i, j)
        values, vectors = torch.linalg.eigh(graphs[0][source])
        values, vectors = values.flip(0), vectors.flip(1)
        rank = settings.rank
        if settings.energy is not None:
            while rank < patches and values[:rank].sum() / values.sum() < settings.energy:
                rank += settings.rank_step
        values, vectors = values[:rank], vectors[:, :rank]
        low, high = values.min(), values.max()
        values = (values - low) / (high - low) * (1.5 * high - 0.5 * low) + 0.5 * low
        cleaned = vectors @ values.diag() @ vectors.T
        cleaned.fill_diagonal_(0)
        ours = graphs[1][slot]
        share = (cleaned - cleaned.min()) / (cleaned.max() - cleaned.min())
        cleaned = share * (ours.max() - ours.min()) + ours.min()
        weight = settings.factor * float(distance[i, j])
        fused[slot] = (weight * cleaned + ours) / (weight + 1)
    return torch.stack(fused)


@pytest.mark.parametrize(
    "settings",
    [
        PUBLISHED,
        DistillationSettings(energy=None, tie_break=0.0),
        DistillationSettings(tie_break=0.0, energy=0.9, rank=2, rank_step=1),
    ],
)
def test_views_in_a_batch_are_the_plain_formula_one_by_one(settings: DistillationSettings) -> None:
    vfm, clip = keys(3, 4, 36, 16), keys(3, 4, 36, 16, seed=1)
    found = distil(vfm, clip, settings).fused
    for view in range(3):
        expected = plain_fusion(vfm[view], clip[view], settings)
        torch.testing.assert_close(
            found[view].double(), expected, atol=2e-4 * float(expected.abs().max()), rtol=0
        )


def test_a_view_does_not_depend_on_the_others() -> None:
    vfm, clip = keys(3, 4, 36, 16), keys(3, 4, 36, 16, seed=1)
    together = distil(vfm, clip, DistillationSettings()).fused
    alone = distil(vfm[1:2], clip[1:2], DistillationSettings()).fused
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


def test_factor_zero_leaves_the_vfm_out() -> None:
    vfm, clip = keys(1, 2, 20, 8), keys(1, 2, 20, 8, seed=1)
    found = distil(vfm, clip, DistillationSettings(factor=0.0)).fused
    torch.testing.assert_close(found, graph(clip))


def test_fusing_by_hand() -> None:
    vfm = torch.tensor(
        [[5.0, 1.0], [1.0, 7.0]]
    )  # without its diagonal 0 1 1 0, in the range of clip -2 4 4 -2
    clip = torch.tensor([[4.0, -2.0], [-2.0, 4.0]])
    fused = fuse_graphs(vfm, clip, torch.tensor(3.0))
    torch.testing.assert_close(fused, torch.tensor([[-0.5, 2.5], [2.5, -0.5]]))


@pytest.mark.parametrize("shape", [(1, 2, 1, 8), (1, 2, 3, 8), (2, 2, 9, 4), (1, 1, 5, 5), (0, 2, 9, 4)])
@pytest.mark.parametrize("settings", [PUBLISHED, DistillationSettings()])
def test_fewer_patches_than_rank_and_eigenvalues(
    shape: tuple[int, ...], settings: DistillationSettings
) -> None:
    found = distil(keys(*shape), keys(*shape, seed=1), settings).fused
    assert found.shape == (*shape[:-1], shape[-2])
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("settings", [PUBLISHED, DistillationSettings()])
def test_constant_vfm_keys_leave_the_graph_of_clip(settings: DistillationSettings) -> None:
    clip = keys(1, 2, 20, 8)
    ranged = match_range(torch.full((1, 2, 20, 8), 0.3), clip)
    assert not ranged.any()
    torch.testing.assert_close(distil(ranged, clip, settings).fused, graph(clip))


@pytest.mark.parametrize("settings", [PUBLISHED, DistillationSettings()])
def test_equal_patches_in_both_models_stay_finite(settings: DistillationSettings) -> None:
    flat = keys(1, 2, 1, 8).expand(-1, -1, 20, -1)
    found = distil(flat, flat, settings).fused
    assert torch.isfinite(attend(found, flat, None)).all()
    assert torch.isfinite(distil(torch.zeros(1, 2, 9, 4), torch.zeros(1, 2, 9, 4), settings).fused).all()


def test_key_ranges_are_matched_over_all_heads_of_a_view() -> None:
    moved = match_range(keys(2, 3, 9, 4) * 7 + 3, keys(2, 3, 9, 4, seed=1))
    for view in range(2):
        reference = keys(2, 3, 9, 4, seed=1)[view]
        torch.testing.assert_close(moved[view].min(), reference.min(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(moved[view].max(), reference.max(), atol=1e-5, rtol=1e-5)


def test_keys_on_twice_the_grid_become_means_of_four() -> None:
    fine = torch.randn(1, 2, 8, 12, 3, generator=torch.Generator().manual_seed(2))
    means = fine.view(1, 2, 4, 2, 6, 2, 3).mean(dim=(3, 5)).flatten(2, 3)
    torch.testing.assert_close(resize_keys(fine, (4, 6)), means)
    torch.testing.assert_close(resize_keys(fine, (8, 12)), fine.flatten(2, 3))


def test_attention_is_a_mean_of_values_with_heads_side_by_side() -> None:
    values = torch.randn(2, 3, 5, 4)
    flat = attend(torch.zeros(2, 3, 5, 5), values, None)
    torch.testing.assert_close(flat, values.mean(dim=2).flatten(1)[:, None].expand(-1, 5, -1))
    itself = attend(
        torch.full((2, 3, 5, 5), -math.inf).diagonal_scatter(torch.zeros(2, 3, 5), dim1=-2, dim2=-1),
        values,
        None,
    )
    torch.testing.assert_close(itself, values.transpose(1, 2).flatten(2))
