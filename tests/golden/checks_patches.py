"""Golden checks of the operators on patch tokens: LOF, repair, thresholded aggregation.

The scclip kinds were written by the published implementation in float32; the sam3 kinds are float64 references from
the definitions, run here in float64 and in float32.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ovsops.patches.aggregation import aggregate, aggregate_counted, cosine_similarity
from ovsops.patches.outliers import (
    local_outlier_factor,
    nearest_neighbours,
    outlier_mask,
    score_threshold,
)
from ovsops.patches.repair import repair_outliers
from tests.golden.table import Arrays, Check

PUBLISHED_RELATIVE_TO_MAXIMUM = 1e-5
PUBLISHED_LOF = 1e-4
SAM3_AGG = 2e-5
SAM3_REPAIRED = 1e-4
SAM3_RTOL = {torch.float64: (1e-9, 1e-9), torch.float32: (1e-4, 5e-4)}
"""Of the published definition, and of the squared variant."""


def check_scclip_lof(arrays: Arrays, folder: Path) -> None:
    """Scores of the code's variant, their threshold, the tokens above it, the squared k-distance."""
    for case in _cases(arrays, "x"):
        tokens = torch.from_numpy(arrays[f"{case}x"])
        if int(arrays[f"{case}upstream_error"]):  # it raises where ours is defined: no score to compare
            assert bool(local_outlier_factor(tokens, num_neighbours=int(arrays[f"{case}k"])).isfinite().all())
            continue
        k, contamination = int(arrays[f"{case}k"]), float(arrays[f"{case}contamination"])
        scores = local_outlier_factor(tokens, num_neighbours=k, variant="simplified_sq")
        has_scores = _scores_agree(scores, arrays[f"{case}scores"], PUBLISHED_LOF)
        threshold = score_threshold(scores, contamination=contamination)
        if _scores_agree(threshold, arrays[f"{case}threshold"], PUBLISHED_LOF) and has_scores:
            found = outlier_mask(scores, contamination=contamination).nonzero().flatten()
            np.testing.assert_array_equal(found, arrays[f"{case}outliers"])
        squared_kdist = nearest_neighbours(tokens, num_neighbours=k).squared_distances[:, -1]
        _near(squared_kdist, arrays[f"{case}kth_sq_dist"])


def check_scclip_interp(arrays: Arrays, folder: Path) -> None:
    """C x H x W maps with outliers as flat row-major indices."""
    for case in _cases(arrays, "feat"):
        feat = torch.from_numpy(arrays[f"{case}feat"])
        outliers = torch.zeros(feat.shape[1] * feat.shape[2], dtype=torch.bool)
        outliers[torch.from_numpy(arrays[f"{case}outliers"])] = True
        repaired = repair_outliers(feat.permute(1, 2, 0), outliers.view(feat.shape[1:]))
        if not int(arrays[f"{case}upstream_error"]):
            _near(repaired.permute(2, 0, 1), arrays[f"{case}out"])


def check_scclip_aggregate(arrays: Arrays, folder: Path) -> None:
    """Similarity, its thresholded form, the aggregated features."""
    for case in _cases(arrays, "ref"):
        reference = torch.from_numpy(arrays[f"{case}ref"])
        x, beta = torch.from_numpy(arrays[f"{case}x"]), float(arrays[f"{case}beta"])
        similarity = cosine_similarity(reference)
        _near(similarity, arrays[f"{case}sim"])
        _near(similarity.masked_fill(similarity < beta, 0), arrays[f"{case}sim_thresholded"])
        _near(aggregate(x, reference, beta=beta, chunk=10, zero_rows="zero"), arrays[f"{case}out"])


def check_sam3_lof(arrays: Arrays, folder: Path) -> None:
    """Both variants, neighbours, densities, flags and repair, in float64 and float32."""
    height, width = arrays["grid"].tolist()
    contamination = float(arrays["contamination"])
    for dtype, (rtol, rtol_simplified) in SAM3_RTOL.items():
        tokens = torch.from_numpy(arrays["features"]).to(dtype).flatten(1, 2)
        for k in arrays["k_values"].tolist():
            neighbours = nearest_neighbours(tokens, num_neighbours=k, chunk=50)
            kdist = neighbours.squared_distances[..., -1].sqrt()
            np.testing.assert_allclose(kdist, arrays[f"kdist_k{k}"], rtol=rtol)
            if dtype == torch.float64 and not _has_duplicates(arrays["features"]):
                expected = np.sort(arrays[f"knn_k{k}"], axis=-1)
                np.testing.assert_array_equal(neighbours.indices.sort(dim=-1).values, expected)
            scores = local_outlier_factor(tokens, num_neighbours=k, chunk=50)
            flags = outlier_mask(scores, contamination=contamination)
            threshold = score_threshold(scores, contamination=contamination)
            _scores_agree(scores, arrays[f"lof_k{k}"], rtol)
            if _scores_agree(threshold, arrays[f"thr_k{k}"], rtol):
                np.testing.assert_array_equal(flags, arrays[f"flag_k{k}"])

            simplified = local_outlier_factor(tokens, num_neighbours=k, variant="simplified_sq", chunk=50)
            simplified_flags = outlier_mask(simplified, contamination=contamination)
            threshold = score_threshold(simplified, contamination=contamination)
            _scores_agree(simplified, arrays[f"simplified_sq_k{k}"], rtol_simplified)
            if _scores_agree(threshold, arrays[f"thr_simplified_k{k}"], rtol_simplified):
                np.testing.assert_array_equal(simplified_flags, arrays[f"flag_simplified_k{k}"])

            grid = (len(tokens), height, width)
            repaired = repair_outliers(tokens.view(*grid, -1), flags.view(grid))
            np.testing.assert_allclose(repaired, arrays[f"repaired_k{k}"], rtol=0, atol=SAM3_REPAIRED)


def check_sam3_agg(arrays: Arrays, folder: Path) -> None:
    """Plain, centred, top-k and blended, in float64 and float32. A zero token's row is zero, as published."""
    beta, topk = float(arrays["beta"]), int(arrays["topk"])
    for dtype in SAM3_RTOL:
        values = torch.from_numpy(arrays["values"]).to(dtype)
        reference = torch.from_numpy(arrays["ref"]).to(dtype)
        for centred, suffix in ((False, ""), (True, "_centered")):
            similarity = cosine_similarity(reference, centred=centred)
            _close(similarity.masked_fill(similarity < beta, 0), arrays[f"sim{suffix}"])
            out, kept = aggregate_counted(
                values, reference, beta=beta, chunk=50, centred=centred, zero_rows="zero"
            )
            _close(out, arrays[f"out{suffix}"])
            np.testing.assert_allclose(kept, arrays[f"kept_fraction{suffix}"], rtol=1e-6)
            if not centred:
                _close(torch.lerp(values, out, float(arrays["weight"])), arrays["out_blend"])
        out = aggregate(values, reference, beta=beta, chunk=50, topk=topk, zero_rows="zero")
        _close(out, arrays["out_topk"])
        # with unit vectors for values the output is the similarity over its row sum
        rows = aggregate(
            torch.eye(len(values), dtype=dtype), reference, beta=beta, topk=topk, zero_rows="zero"
        )
        sums = arrays["sim_topk"].sum(axis=1, keepdims=True) + float(arrays["eps"])
        _close(rows, arrays["sim_topk"] / sums)


def _cases(arrays: Arrays, name: str) -> list[str]:
    """The prefixes of a file's cases: `a_`, `b_`, or nothing."""
    return [
        key[: -len(name)] for key in arrays if key == name or (key.endswith(f"_{name}") and key[1] == "_")
    ]


def _has_duplicates(features: np.ndarray) -> bool:
    flat = features.reshape(features.shape[0], -1, features.shape[-1])
    return any(len(np.unique(tokens, axis=0)) < len(tokens) for tokens in flat)


def _scores_agree(actual: Tensor, expected: np.ndarray, rtol: float) -> bool:
    """Equal where the reference has a number; it has none where it divides by the distance of duplicates.

    True if it has one everywhere.
    """
    assert bool(actual.isfinite().all())
    is_number = np.isfinite(expected)
    np.testing.assert_allclose(actual.numpy()[is_number], expected[is_number], rtol=rtol)
    return bool(is_number.all())


def _near(actual: Tensor, expected: np.ndarray) -> None:
    assert tuple(actual.shape) == expected.shape
    atol = PUBLISHED_RELATIVE_TO_MAXIMUM * float(np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def _close(actual: Tensor, expected: np.ndarray) -> None:
    assert tuple(actual.shape) == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=SAM3_AGG)


CHECKS: dict[str, Check] = {
    "scclip_lof": check_scclip_lof,
    "scclip_interp": check_scclip_interp,
    "scclip_aggregate": check_scclip_aggregate,
    "sam3_lof": check_sam3_lof,
    "sam3_agg": check_sam3_agg,
}

_LOF_RESULTS = ("lof_", "kdist_", "knn_", "simplified_", "flag_", "thr_", "repaired_")
RESULTS: dict[str, tuple[str, ...]] = {
    "scclip_lof": tuple(f"{case}_{name}" for case in "abc" for name in ("scores", "thr", "outliers", "kth")),
    "scclip_interp": (
        "a_out",
        "b_out",
    ),  # the indices of the outliers begin with it too, and must matter as well
    "scclip_aggregate": tuple(f"{case}_{name}" for case in "ab" for name in ("sim", "out")),
    "sam3_lof": _LOF_RESULTS,
    "sam3_agg": ("sim", "out", "kept_fraction"),
}
"""How the names of the arrays begin that a check compares."""
