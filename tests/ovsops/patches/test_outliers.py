from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ovsops.errors import ConfigError, ShapeError
from ovsops.patches.outliers import (
    LofVariant,
    OutlierConfig,
    OutlierMode,
    find_outliers,
    local_outlier_factor,
    nearest_neighbours,
    norm_z_scores,
    outlier_mask,
    score_threshold,
)

VARIANTS: tuple[LofVariant, ...] = ("published", "simplified_sq")
LINE = torch.tensor([[0.0], [1.0], [3.0], [10.0]], dtype=torch.float64)
LINE_LOF = {
    # k=2: k-distances 3 2 3 9, mean reaches 2.5 3 2.5 8, densities 0.4 1/3 0.4 1/8
    "published": [11 / 12, 1.2, 11 / 12, 44 / 15],
    # squared k-distances 9 4 9 81 times the mean of the neighbours' inverses
    "simplified_sq": [1.625, 4 / 9, 1.625, 14.625],
}


def random_tokens(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def lof_token_by_token(tokens: Tensor, k: int) -> list[float]:
    """Definitions 3 to 7, one token at a time, distances from differences."""
    distances = [[float((p - o).norm()) for o in tokens] for p in tokens]
    near = [
        sorted((o for o in range(len(tokens)) if o != p), key=lambda o, p=p: distances[p][o])[:k]
        for p in range(len(tokens))
    ]
    kdist = [distances[p][near[p][-1]] for p in range(len(tokens))]
    density = [k / sum(max(kdist[o], distances[p][o]) for o in near[p]) for p in range(len(tokens))]
    return [sum(density[o] for o in near[p]) / k / density[p] for p in range(len(tokens))]


@pytest.mark.parametrize("variant", VARIANTS)
def test_four_tokens_on_a_line(variant: LofVariant) -> None:
    scores = local_outlier_factor(LINE, num_neighbours=2, variant=variant)
    np.testing.assert_allclose(scores, LINE_LOF[variant], rtol=1e-9)


def test_lof_is_the_definition() -> None:
    tokens = random_tokens(40, 5, seed=3, dtype=torch.float64)
    scores = local_outlier_factor(tokens, num_neighbours=7, chunk=16)
    np.testing.assert_allclose(scores, lof_token_by_token(tokens, 7), rtol=1e-8)


@pytest.mark.parametrize("variant", VARIANTS)
def test_moving_turning_and_scaling_all_tokens_changes_nothing(variant: LofVariant) -> None:
    tokens = random_tokens(60, 8, dtype=torch.float64)
    turned = torch.linalg.qr(random_tokens(8, 8, seed=1, dtype=torch.float64)).Q
    scores = local_outlier_factor(tokens, num_neighbours=9, variant=variant)
    moved = local_outlier_factor(3.5 * tokens @ turned - 100.0, num_neighbours=9, variant=variant)
    np.testing.assert_allclose(moved, scores, rtol=1e-7)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_large_common_offset_does_no_harm_in_float32(variant: LofVariant) -> None:
    tokens = random_tokens(150, 24)
    expected = local_outlier_factor((tokens + 30).double(), num_neighbours=10, variant=variant)
    scores = local_outlier_factor(tokens + 30, num_neighbours=10, variant=variant)
    np.testing.assert_allclose(scores, expected, rtol=5e-4)


def test_scores_follow_their_tokens() -> None:
    tokens = random_tokens(50, 6, dtype=torch.float64)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(2))
    scores = local_outlier_factor(tokens, num_neighbours=5)
    torch.testing.assert_close(local_outlier_factor(tokens[order], num_neighbours=5), scores[order])


@pytest.mark.parametrize("leading", [(), (0,), (1,), (7,), (2, 3)])
def test_a_batch_is_its_images_one_by_one(leading: tuple[int, ...]) -> None:
    tokens = random_tokens(*leading, 40, 6)
    scores = local_outlier_factor(tokens, num_neighbours=5)
    assert scores.shape == (*leading, 40)
    for image, expected in zip(tokens.reshape(-1, 40, 6), scores.reshape(-1, 40), strict=True):
        torch.testing.assert_close(
            local_outlier_factor(image, num_neighbours=5), expected, rtol=0.0, atol=0.0
        )


def test_the_chunk_changes_rounding_only() -> None:
    tokens = random_tokens(2, 70, 12)
    whole = local_outlier_factor(tokens, num_neighbours=10, chunk=70)
    for chunk in (1, 16, 69, 1000):
        torch.testing.assert_close(local_outlier_factor(tokens, num_neighbours=10, chunk=chunk), whole)


def test_neighbours_come_nearest_first_and_never_are_the_token_itself() -> None:
    neighbours = nearest_neighbours(LINE, num_neighbours=3, chunk=2)
    assert neighbours.indices.tolist() == [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 1, 0]]
    expected = [[1.0, 9, 100], [1, 4, 81], [4, 9, 49], [49, 81, 100]]
    np.testing.assert_allclose(neighbours.squared_distances, expected, rtol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_identical_tokens_score_one_and_none_is_an_outlier(variant: LofVariant, dtype: torch.dtype) -> None:
    tokens = random_tokens(1, 24).expand(100, 24).to(dtype)
    scores = local_outlier_factor(tokens, num_neighbours=30, variant=variant)
    assert (scores == 1).all()
    assert not outlier_mask(scores, contamination=0.05).any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_duplicates_score_one_and_what_lies_apart_is_the_outlier(variant: LofVariant) -> None:
    tokens = random_tokens(1, 16).repeat(61, 1)
    tokens[7] += 0.5
    tokens[9:20] = random_tokens(11, 16, seed=1)
    scores = local_outlier_factor(tokens, num_neighbours=30, variant=variant)
    assert scores.isfinite().all()
    is_duplicate = torch.ones(61, dtype=torch.bool)
    is_duplicate[[7, *range(9, 20)]] = False
    assert (scores[is_duplicate] == 1).all()
    assert (scores[~is_duplicate] > 1e3).all()


def test_duplicates_are_exactly_nought_apart() -> None:
    tokens = 100 + random_tokens(40, 64)
    tokens[20:] = tokens[:20]
    neighbours = nearest_neighbours(tokens, num_neighbours=3)
    assert (neighbours.squared_distances[:, 0] == 0).all()
    assert neighbours.indices[:, 0].tolist() == [*range(20, 40), *range(20)]


def test_close_tokens_keep_their_digits_in_float32() -> None:
    """Pairs at a thousandth of the tokens' length: the Gram form alone has a wrong third digit."""
    tokens = random_tokens(30, 64).repeat_interleave(4, dim=0) + 1e-3 * random_tokens(120, 64, seed=5)
    exact = nearest_neighbours(tokens.double(), num_neighbours=3).squared_distances
    found = nearest_neighbours(tokens, num_neighbours=3).squared_distances
    np.testing.assert_allclose(found, exact, rtol=2e-4)


def test_fewer_tokens_than_neighbours_use_all_others() -> None:
    tokens = random_tokens(5, 3)
    expected = local_outlier_factor(tokens, num_neighbours=4)
    torch.testing.assert_close(local_outlier_factor(tokens, num_neighbours=30), expected)


@pytest.mark.parametrize("num_tokens", [0, 1, 2])
def test_hardly_any_tokens_have_no_outlier(num_tokens: int) -> None:
    tokens = random_tokens(3, num_tokens, 4)
    for config in (OutlierConfig(), OutlierConfig(mode="norm"), OutlierConfig(variant="simplified_sq")):
        found = find_outliers(tokens, config)
        assert found.mask.shape == found.scores.shape == (3, num_tokens)
        assert not found.mask.any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_tokens_without_distances_are_an_error_that_names_the_image(value: float) -> None:
    tokens = random_tokens(3, 20, 4)
    tokens[1, 5, 2] = value
    with pytest.raises(ShapeError, match=r"images \[1\] have no outlier score: expected finite values"):
        local_outlier_factor(tokens, num_neighbours=5)
    if value != 1e30:
        with pytest.raises(ShapeError, match=r"images \[1\] have no outlier score"):
            norm_z_scores(tokens)


def test_half_precision_is_scored_in_float32() -> None:
    tokens = random_tokens(30, 8).bfloat16()
    scores = local_outlier_factor(tokens, num_neighbours=5)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, local_outlier_factor(tokens.float(), num_neighbours=5))


@given(num_tokens=st.integers(1, 60), contamination=st.floats(0.0, 0.99), seed=st.integers(0, 1000))
def test_the_threshold_is_the_quantile(num_tokens: int, contamination: float, seed: int) -> None:
    scores = random_tokens(2, num_tokens, seed=seed, dtype=torch.float64)
    expected = np.quantile(scores.numpy(), 1 - contamination, axis=1)
    np.testing.assert_allclose(score_threshold(scores, contamination=contamination), expected, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("num_tokens", "expected"), [(196, 10), (441, 22), (5184, 260)])
def test_a_share_of_the_tokens_is_an_outlier_in_any_precision(
    num_tokens: int, expected: int, dtype: torch.dtype
) -> None:
    """At 441 the 0.95 quantile is itself a score, which is not above itself."""
    scores = random_tokens(num_tokens, dtype=dtype)
    assert int(outlier_mask(scores, contamination=0.05).sum()) == expected


def test_without_a_lowest_score_a_share_is_always_taken_with_one_none_of_a_clean_image() -> None:
    tokens = random_tokens(1, 400, 16)
    assert int(find_outliers(tokens, OutlierConfig()).mask.sum()) == 20
    assert not find_outliers(tokens, OutlierConfig(min_score=1.5)).mask.any()


def scene() -> tuple[Tensor, slice, slice]:
    """900 tokens of one surface, 9 of a small object of the same length, 40 long artefacts of one direction."""
    tokens = random_tokens(900, 32)
    tokens = 10 * tokens / tokens.norm(dim=1, keepdim=True)
    surface = tokens[:1] + 0.3 * tokens
    surface = 10 * surface / surface.norm(dim=1, keepdim=True)
    surface = surface * (1 + 0.02 * random_tokens(900, 1, seed=1))
    small, artefacts = slice(100, 109), slice(200, 240)
    direction = random_tokens(2, 32, seed=2)
    direction = direction / direction.norm(dim=1, keepdim=True)
    surface[small] = 10 * direction[0] + 0.1 * random_tokens(9, 32, seed=3)
    surface[artefacts] = 60 * direction[1] + 0.3 * random_tokens(40, 32, seed=4)
    return surface, small, artefacts


@pytest.mark.parametrize(
    ("mode", "finds_small_object", "finds_artefacts"),
    [("lof", True, False), ("norm", False, True), ("lof_and_norm", False, False)],
)
def test_what_each_mode_finds(mode: OutlierMode, finds_small_object: bool, finds_artefacts: bool) -> None:
    """Artefacts that are each other's neighbours escape LOF; small objects are outliers to LOF alone."""
    tokens, small, artefacts = scene()
    config = OutlierConfig(mode=mode, min_score=1.5)
    mask = find_outliers(tokens, config).mask
    assert mask[small].tolist() == [finds_small_object] * 9
    assert mask[artefacts].tolist() == [finds_artefacts] * 40
    assert int(mask.sum()) == 9 * finds_small_object + 40 * finds_artefacts


def test_a_long_token_by_itself_is_an_outlier_in_every_mode() -> None:
    tokens, _, _ = scene()
    tokens = tokens[300:].clone()
    tokens[5] *= 6
    for mode in ("lof", "norm", "lof_and_norm"):
        mask = find_outliers(tokens, OutlierConfig(mode=mode, min_score=1.5)).mask
        assert mask.nonzero().flatten().tolist() == [5]


def test_the_contamination_caps_the_norm_test_too() -> None:
    tokens, _, artefacts = scene()
    config = OutlierConfig(mode="norm", contamination=0.01)
    mask = find_outliers(tokens, config).mask
    assert int(mask.sum()) == 9
    assert int(mask[artefacts].sum()) == 9


def test_unit_tokens_have_no_norm_outlier() -> None:
    tokens = random_tokens(2, 200, 64)
    tokens = tokens / tokens.norm(dim=-1, keepdim=True)
    assert not find_outliers(tokens, OutlierConfig(mode="norm", norm_z=3.0)).mask.any()
    assert (norm_z_scores(torch.zeros(20, 4)) == 0).all()


def test_norm_z_scores_by_hand() -> None:
    """Norms 8 9 10 11 12 20: median 10.5, deviations 2.5 1.5 0.5 0.5 1.5 9.5, their median 1.5."""
    tokens = torch.tensor([8.0, 9, 10, 11, 12, 20])[:, None] * torch.tensor([0.6, 0.8])
    expected = np.array([2.5, 1.5, 0.5, 0.5, 1.5, 9.5]) / (1.4826 * 1.5)
    np.testing.assert_allclose(norm_z_scores(tokens), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_neighbours", 0, "num_neighbours 0 and chunk 512: expected at least 1"),
        ("chunk", 0, "chunk 0: expected at least 1"),
        ("contamination", 1.0, "contamination 1.0 must be a share from 0 to below 1"),
        ("contamination", -0.1, "contamination -0.1"),
        ("contamination", torch.nan, "contamination nan"),
        ("min_score", 0.0, "min_score 0.0 must be above 0, or None"),
        ("norm_z", -1.0, "norm_z -1.0 must be above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(OutlierConfig(), **{field: value})


def test_arguments_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_neighbours 0"):
        local_outlier_factor(random_tokens(1, 4), num_neighbours=0)
    with pytest.raises(ConfigError, match=r"contamination 2\.0"):
        outlier_mask(random_tokens(4), contamination=2.0)
