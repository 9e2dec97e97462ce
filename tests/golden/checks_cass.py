"""Golden checks of the cass kinds that are about graphs, text and the whole model.

The arrays come from the published code at commit 228ecdd on random weights, with its randomised SVD replaced by the
exact leading eigenpairs and without half precision. Tolerances are relative to the largest expected entry; arrays
called `*_seed0*` come from the unmodified code and agree to 10 % only. Arrays of the paper's definitions are
`*_paper`, `rank_energy_*` and `energy_share`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ovsops.patches.graph_fusion import (
    DistillationSettings,
    attend,
    distil,
    match_range,
    resize_keys,
)
from ovsops.patches.head_matching import HeadPairs, assign, pair_heads, unit_spectra
from ovsops.patches.locality import gaussian_locality
from ovsops.patches.low_rank import eigenscale, energy_rank, energy_share, fixed_rank, rebuilt, truncated
from ovsops.patches.spectra import eigenpairs_of_graphs, eigenvalues, leading
from ovsops.segmenters.prompt_tree import (
    adjusted_text,
    likeliest_of_cluster,
    query_logits,
    ward_clusters,
)
from tests.golden.table import Arrays, Check

RANK, NUM_EIGENVALUES, ENERGY, TOP_PATCHES = 10, 20, 0.95, 2
FLOAT32, FLOAT64, EIGENVALUES, COST, LOOSE = 1e-5, 1e-9, 1e-6, 1e-6, 0.1
UNIQUE_MARGIN = 1e-5
"""Lead of the best assignment over the next, from which on the assignment itself is compared."""
NEAR_TIE = 1e-6
"""Gap between the best and the next query or patch below which float32 may choose either."""


def published(*, scaled: bool, swapped: bool = True) -> DistillationSettings:
    """The published numbers; eigenscaling is off for two of its data sets."""
    return DistillationSettings(
        tie_break=0.0,
        swapped=swapped,
        rank=RANK,
        energy=None,
        eigenscale=1.5 if scaled else None,
        num_eigenvalues=NUM_EIGENVALUES,
    )


def check_cost(arrays: Arrays, folder: Path) -> None:
    """Spectra, distances of heads and their assignment, one case a prefix."""
    for case in sorted({name.split("_", 1)[0] for name in arrays}):
        part = {name.split("_", 1)[1]: a for name, a in arrays.items() if name.startswith(f"{case}_")}
        values = {}
        for model in ("clip", "vfm"):
            keys = tensor(part, f"k_{model}")
            np.testing.assert_allclose(keys.shape[-1] ** -0.5, part["scale"], rtol=1e-12)
            values[model] = leading(eigenvalues(keys), part[f"eig_{model}"].shape[-1])
            agrees(values[model], part, f"eig_{model}", EIGENVALUES)
            agrees(unit_spectra(values[model]), part, f"spec_{model}", EIGENVALUES)
        if int(part["upstream_error"]):
            continue
        pairs = pair_heads(values["vfm"], values["clip"], tie_break=0.0)
        check_pairs(pairs, part)
        total = pairs.cost.double().gather(-1, pairs.clip_head[:, None]).sum().item()
        np.testing.assert_allclose(total, part["total_cost"], rtol=0, atol=COST)
        worst = assign(pairs.cost, matching="similar", tie_break=0.0)
        found = pairs.cost.double().gather(-1, worst[:, None]).sum().item()
        np.testing.assert_allclose(found, part["worst_total_cost"], rtol=0, atol=COST)


def check_pairs(pairs: HeadPairs, part: Arrays) -> None:
    """Cost to 1e-6; assignment and weights where no other assignment is as good."""
    np.testing.assert_allclose(pairs.cost.numpy(), part["cost"], rtol=0, atol=COST)
    if float(part["margin"]) > UNIQUE_MARGIN:
        np.testing.assert_array_equal(part["row"], np.arange(len(part["row"])))
        np.testing.assert_array_equal(pairs.clip_head.numpy(), part["col"])
        weight = 1 - pairs.cost.gather(-1, pairs.clip_head[:, None])[:, 0]
        np.testing.assert_allclose(weight.numpy(), part["weight"], rtol=0, atol=COST)


def check_lowrank(arrays: Arrays, folder: Path) -> None:
    """Leading eigenvalues, their stretching, the rebuilt graphs, and the rank by true energy."""
    pairs = eigenpairs_of_graphs(tensor(arrays, "A"))
    values = fixed_rank(pairs.values, rank=arrays["s"].shape[-1], num_patches=arrays["A"].shape[-1])
    rank = torch.full(values.shape[:-1], values.shape[-1])
    stretched = eigenscale(values, rank)
    agrees(values, arrays, "s", EIGENVALUES)
    agrees(stretched, arrays, "s_scaled", EIGENVALUES)
    scaled = rebuilt(pairs.vectors, stretched)
    agrees(scaled, arrays, "approx_scaled", FLOAT64)
    agrees(rebuilt(pairs.vectors, truncated(values, rank)), arrays, "approx_plain", FLOAT64)
    hollow = scaled.masked_fill(torch.eye(scaled.shape[-1], dtype=torch.bool), 0)
    agrees(hollow, arrays, "approx_scaled_zd", FLOAT64)
    agrees(energy_share(pairs.values), arrays, "energy_share", FLOAT64)
    by_one = energy_rank(pairs.values, energy=ENERGY)
    by_five = energy_rank(pairs.values, energy=ENERGY, first=RANK, step=5)
    np.testing.assert_array_equal(by_one.numpy(), arrays["rank_energy_min"])
    np.testing.assert_array_equal(by_five.numpy(), arrays["rank_energy_step"])


def check_attn(arrays: Arrays, folder: Path) -> None:
    """The last block's attention: projections, keys on one grid and range, fusion, locality, output."""
    heads, grid = int(arrays["num_heads"]), pair_of(arrays, "grid")
    keys, values = keys_values(arrays, heads)
    agrees(keys, arrays, "k_clip", FLOAT32)
    agrees(values, arrays, "v_clip", FLOAT32)
    vfm = tensor(arrays, "vfm_keys").unflatten(1, pair_of(arrays, "vfm_grid"))
    resized = resize_keys(vfm[None], grid)
    agrees(resized[0], arrays, "vfm_keys_resized", FLOAT32)
    ranged = match_range(resized, keys[None])
    agrees(ranged[0], arrays, "vfm_keys_ranged", FLOAT32)
    scaled = bool(arrays["eigenscale"])
    upstream = distil(ranged, keys[None], published(scaled=scaled))
    paper = distil(ranged, keys[None], published(scaled=scaled, swapped=False))
    check_pairs(one_view(upstream.pairs), arrays)
    if float(arrays["margin"]) > UNIQUE_MARGIN:
        agrees(upstream.fused[0], arrays, "fused", FLOAT32)
        agrees(paper.fused[0], arrays, "fused_paper", FLOAT32)
        agrees(upstream.fused[0], arrays, "fused_seed0", LOOSE)
    locality = gaussian_locality(grid)
    agrees(locality, arrays, "omega", FLOAT32)
    fused = tensor(arrays, "fused")[None]
    agrees((fused + locality).softmax(dim=-1)[0], arrays, "attn", FLOAT32)
    mixed = attend(fused, values[None], locality)[0]
    out = mixed @ tensor(arrays, "out_proj_weight").T + tensor(arrays, "out_proj_bias")
    agrees(out, arrays, "out", FLOAT32)


def check_text(arrays: Arrays, folder: Path) -> None:
    """Clusters of the text, the text of each cluster's likeliest query, logits; one case a threshold."""
    text, patches = tensor(arrays, "text"), tensor(arrays, "patch")[None]
    prior = (tensor(arrays, "image_vec") @ text.T)[None]
    agrees(prior[0], arrays, "sims", FLOAT32)
    weight, prior_weight = float(arrays["alpha"]), float(arrays["gamma"])
    gaps = (float(arrays["min_topk_gap"]), float(arrays["min_class_gap"]))
    for i, threshold in enumerate(arrays["thresholds"]):
        if int(arrays["upstream_error"]):
            continue
        part = {name: arrays[name][i] for name in ("labels", "adjusted", "selected", "logits")}
        clusters = ward_clusters(text, threshold=float(threshold))
        np.testing.assert_array_equal(clusters.numpy(), part["labels"])
        if any(0 <= gap < NEAR_TIE for gap in gaps):
            continue
        chosen = likeliest_of_cluster(prior, clusters)[0]
        np.testing.assert_array_equal(
            torch.zeros(len(text)).index_fill(0, chosen, 1).numpy(), part["selected"]
        )
        adjusted = adjusted_text(text, patches, prior, clusters, weight=weight, num_patches=TOP_PATCHES)
        agrees(adjusted[0], part, "adjusted", FLOAT32)
        logits = query_logits(patches, adjusted, prior, prior_weight=prior_weight)
        agrees(logits[0].T, part, "logits", FLOAT32)


def keys_values(arrays: Arrays, heads: int) -> tuple[Tensor, Tensor]:
    """Patch keys and values [N P d] of tokens that are normed already; row 0 is the CLS token."""
    projected = tensor(arrays, "x")[1:] @ tensor(arrays, "in_proj_weight").T + tensor(arrays, "in_proj_bias")
    _, keys, values = projected.unflatten(-1, (3, heads, -1)).permute(1, 2, 0, 3)
    return keys.contiguous(), values.contiguous()


def one_view(pairs: HeadPairs) -> HeadPairs:
    """The pairs of a batch's only view."""
    return HeadPairs(
        cost=pairs.cost[0],
        clip_head=pairs.clip_head[0],
        vfm_head=pairs.vfm_head[0],
        distance=pairs.distance[0],
    )


def tensor(arrays: Mapping[str, np.ndarray], name: str) -> Tensor:
    """An array of the file."""
    return torch.from_numpy(np.ascontiguousarray(arrays[name]))


def pair_of(arrays: Arrays, name: str) -> tuple[int, int]:
    """Two whole numbers: rows and columns."""
    first, second = (int(value) for value in arrays[name])
    return first, second


def agrees(ours: Tensor, arrays: Mapping[str, np.ndarray], name: str, tolerance: float) -> None:
    """Equal to the array within `tolerance` times its largest entry."""
    expected = arrays[name]
    assert tuple(ours.shape) == expected.shape, f"{name}: {tuple(ours.shape)} against {expected.shape}"
    limit = tolerance * float(np.abs(expected).max(initial=0))
    np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=0, atol=limit, err_msg=name)


CHECKS: dict[str, Check] = {
    "cass_attn": check_attn,
    "cass_cost": check_cost,
    "cass_lowrank": check_lowrank,
    "cass_text": check_text,
}

RESULTS: dict[str, tuple[str, ...]] = {
    "cass_attn": ("k_clip", "v_clip", "vfm_keys_r", "cost", "col", "weight", "omega", "attn", "out"),
    "cass_cost": tuple(
        f"{case}_{name}"
        for case in "ab"
        for name in ("eig", "spec", "cost", "row", "col", "weight", "total", "worst")
    ),
    "cass_lowrank": ("s_scaled", "approx", "rank", "energy"),
    "cass_text": ("sims", "labels", "adjusted", "selected", "logits"),
}
"""Arrays that are results, by how their names begin."""
