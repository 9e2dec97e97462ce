import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ovsops.errors import ConfigError, ShapeError
from ovsops.patches.aggregation import aggregate, aggregate_counted, cosine_similarity, unit_tokens


def random_tokens(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain(values: Tensor, reference: Tensor, beta: float) -> Tensor:
    units = reference / reference.norm(dim=1, keepdim=True)
    similarity = units @ units.T
    similarity = torch.where(similarity >= beta, similarity, 0.0)
    return similarity @ values / (similarity.sum(dim=1, keepdim=True) + 1e-6)


def test_three_tokens_by_hand() -> None:
    """Cosines 0.6 (kept), 0.8 (kept), 0 (dropped)."""
    reference = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 5.0]])
    values = torch.tensor([[10.0], [20.0], [30.0]])
    expected = [(10 + 0.6 * 20) / 1.6, (0.6 * 10 + 20 + 0.8 * 30) / 2.4, (0.8 * 20 + 30) / 1.8]
    out, kept = aggregate_counted(values, reference, beta=0.4)
    np.testing.assert_allclose(out.flatten(), expected, rtol=2e-6)
    assert float(kept) == pytest.approx(7 / 9)
    nearest_two = aggregate(values, reference, beta=0.4, topk=2)
    expected[1] = (20 + 0.8 * 30) / 1.8
    np.testing.assert_allclose(nearest_two.flatten(), expected, rtol=2e-6)
    itself = aggregate(values, reference, beta=0.4, topk=1)
    np.testing.assert_allclose(itself, values, rtol=2e-6)


@pytest.mark.parametrize("chunk", [1, 7, 50, 512])
def test_chunks_of_rows_are_the_plain_formula(chunk: int) -> None:
    values, reference = random_tokens(50, 6, dtype=torch.float64), random_tokens(50, 5, dtype=torch.float64)
    out = aggregate(values, reference, beta=0.3, chunk=chunk)
    torch.testing.assert_close(out, plain(values, reference, 0.3))


def test_values_that_all_tokens_share_stay() -> None:
    values = torch.full((40, 3), 5.0)
    out = aggregate(values, random_tokens(40, 8), beta=0.2, centred=True)
    torch.testing.assert_close(out, values, rtol=2e-6, atol=0.0)


def test_a_mean_stays_within_its_values() -> None:
    values = random_tokens(4, 60, 5)
    out = aggregate(values, random_tokens(4, 60, 8, seed=1), beta=0.0)
    assert (out.amax(dim=1) <= values.amax(dim=1)).all()
    assert (out.amin(dim=1) >= values.amin(dim=1)).all()


@pytest.mark.parametrize("leading", [(), (0,), (1,), (7,), (2, 3)])
@pytest.mark.parametrize("topk", [None, 4])
def test_a_batch_is_its_images_one_by_one(leading: tuple[int, ...], topk: int | None) -> None:
    values, reference = random_tokens(*leading, 20, 3), random_tokens(*leading, 20, 6, seed=1)
    out, kept = aggregate_counted(values, reference, beta=0.3, topk=topk, centred=True)
    assert out.shape == values.shape
    assert kept.shape == leading
    images = zip(values.reshape(-1, 20, 3), reference.reshape(-1, 20, 6), out.reshape(-1, 20, 3), strict=True)
    for image_values, image_reference, expected in images:
        one = aggregate(image_values, image_reference, beta=0.3, topk=topk, centred=True)
        assert torch.equal(one, expected)


def test_a_common_direction_makes_one_mean_of_everything_unless_centred() -> None:
    """Two regions of tokens that share a large mean: only the centred form tells them apart."""
    generator = torch.Generator().manual_seed(0)
    is_left = torch.arange(60) < 30
    sign = torch.where(is_left, 1.0, -1.0)[:, None]
    reference = 20 + sign * torch.randn(1, 16, generator=generator)
    reference += 0.05 * torch.randn(60, 16, generator=generator)
    values = sign.clone()
    mixed, kept = aggregate_counted(values, reference, beta=0.4)
    assert float(kept) == 1
    assert float(mixed.abs().max()) < 0.01
    apart, kept = aggregate_counted(values, reference, beta=0.4, centred=True)
    assert float(kept) == pytest.approx(0.5)
    torch.testing.assert_close(apart, values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("centred", [False, True])
def test_a_token_without_direction_keeps_its_values_or_becomes_nought(centred: bool) -> None:
    reference = random_tokens(9, 4)
    reference = torch.cat([reference, -reference, torch.zeros(1, 4)])
    if centred:
        reference = reference + 3.0  # the last token is the mean now
    values = random_tokens(19, 2, seed=1)
    kept = aggregate(values, reference, beta=0.4, centred=centred)
    assert torch.equal(kept[-1], values[-1])
    zeroed = aggregate(values, reference, beta=0.4, centred=centred, zero_rows="zero")
    assert (zeroed[-1] == 0).all()
    assert torch.equal(kept[:-1], zeroed[:-1])


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_identical_tokens_give_back_their_values(centred: bool, value: float) -> None:
    reference = value * random_tokens(1, 24).expand(30, 24)
    values = random_tokens(1, 5, seed=1).expand(30, 5)
    out = aggregate(values, reference, beta=0.4, centred=centred)
    torch.testing.assert_close(out, values, rtol=2e-6, atol=1e-7)


def test_identical_tokens_have_no_direction_once_centred() -> None:
    for value in (0.1, 1 / 3, 12345.678):
        assert (unit_tokens(torch.full((5000, 16), value), centred=True) == 0).all()


@pytest.mark.parametrize("num_tokens", [0, 1])
def test_hardly_any_tokens_stay_as_they_are(num_tokens: int) -> None:
    values, reference = random_tokens(2, num_tokens, 3), random_tokens(2, num_tokens, 4, seed=1)
    for centred in (False, True):
        out = aggregate(values, reference, beta=0.4, centred=centred)
        torch.testing.assert_close(out, values, rtol=2e-6, atol=0.0)


def test_cosine_similarity_of_a_zero_token_is_nought() -> None:
    tokens = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [-3.0, -4.0]]])
    expected = torch.tensor([[[1.0, 0, -1], [0, 0, 0], [-1, 0, 1]]])
    torch.testing.assert_close(cosine_similarity(tokens), expected)


def test_precision_is_that_of_the_values() -> None:
    values, reference = random_tokens(20, 3), random_tokens(20, 6, seed=1)
    half = aggregate(values.bfloat16(), reference.bfloat16(), beta=0.0)
    assert half.dtype == torch.bfloat16
    expected = aggregate(values.bfloat16().float(), reference.bfloat16().float(), beta=0.0)
    torch.testing.assert_close(half, expected.bfloat16())
    assert aggregate(values.double(), reference, beta=0.0).dtype == torch.float64


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("broken", ["values", "reference"])
def test_a_broken_token_is_an_error_that_names_the_image(value: float, broken: str) -> None:
    tensors = {"values": random_tokens(3, 10, 4), "reference": random_tokens(3, 10, 4, seed=1)}
    tensors[broken][2, 5, 1] = value
    with pytest.raises(ShapeError, match=r"images \[2\] cannot be averaged: expected finite"):
        aggregate(tensors["values"], tensors["reference"], beta=0.4)


@pytest.mark.parametrize("beta", [-0.1, 1.0, math.nan])
def test_a_beta_that_is_no_similarity_is_refused(beta: float) -> None:
    with pytest.raises(ConfigError, match="must be a cosine similarity from 0 to below 1"):
        aggregate(random_tokens(4, 2), random_tokens(4, 2), beta=beta)


@pytest.mark.parametrize(("chunk", "topk"), [(0, None), (8, 0)])
def test_counts_below_one_are_refused(chunk: int, topk: int | None) -> None:
    with pytest.raises(ConfigError, match=f"chunk {chunk} and topk {topk}: expected at least 1"):
        aggregate(random_tokens(4, 2), random_tokens(4, 2), beta=0.4, chunk=chunk, topk=topk)
