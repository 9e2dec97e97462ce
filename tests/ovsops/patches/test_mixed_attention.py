"""Attention without queries: the stream of rows gives the plain formula, and no row is ever left empty."""

import pytest
import torch
from torch.nn import functional as F

from ovsops.patches.mixed_attention import mixed_attention, similarity_attention, similarity_weights


def random_heads(batch: int, patches: int, seed: int) -> torch.Tensor:
    return torch.randn(batch, 3, patches, 8, generator=torch.Generator().manual_seed(seed))


def random_tokens(batch: int, patches: int, seed: int = 9) -> torch.Tensor:
    return torch.randn(batch, patches, 16, generator=torch.Generator().manual_seed(seed))


def plain(keys: torch.Tensor, values: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The published formula with an attention matrix a head."""
    units = F.normalize(reference, dim=-1)
    similarity = units @ units.mT
    lead = 3 * (similarity - similarity.mean(dim=(1, 2), keepdim=True))
    by_similarity = lead.masked_fill(lead < 0, -torch.inf).softmax(-1)[:, None]
    by_keys = (keys @ keys.mT * keys.shape[-1] ** -0.5).softmax(-1)
    return ((by_similarity + by_keys) / 2 @ values).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("chunk", [1, 5, 512])
@pytest.mark.parametrize("patches", [1, 2, 21])
def test_it_is_the_published_formula(chunk: int, patches: int) -> None:
    keys, values = random_heads(2, patches, 0), random_heads(2, patches, 1)
    reference = random_tokens(2, patches)
    found = mixed_attention([(keys, values)], reference, chunk=chunk)
    torch.testing.assert_close(found, plain(keys, values, reference), atol=1e-5, rtol=1e-5)


def test_branches_add_up() -> None:
    one, other = ((random_heads(2, 12, seed), random_heads(2, 12, seed + 1)) for seed in (0, 5))
    reference = random_tokens(2, 12)
    apart = mixed_attention([one], reference) + mixed_attention([other], reference)
    torch.testing.assert_close(mixed_attention([one, other], reference), apart, atol=1e-5, rtol=1e-5)


def test_without_a_reference_keys_decide() -> None:
    keys, values = random_heads(1, 6, 0), random_heads(1, 6, 1)
    expected = (keys @ keys.mT * 8**-0.5).softmax(-1) @ values
    torch.testing.assert_close(mixed_attention([(keys, values)], None), expected.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("token", [torch.zeros(16), torch.full((16,), 0.3), torch.randn(16)])
def test_identical_tokens_are_averaged_or_kept_never_lost(token: torch.Tensor) -> None:
    values = random_tokens(1, 30, seed=3)
    found = similarity_attention(values, token.expand(1, 30, 16).clone())
    assert torch.isfinite(found).all()
    assert (found.amax(dim=1) <= values.amax(dim=1) + 1e-5).all()


def test_weights_by_hand() -> None:
    """Two like tokens and one apart: mean cosine 5/9, so only pairs with cosine 1 stay."""
    similarity = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    weights = similarity_weights(similarity, similarity.mean())
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]))


def test_a_batch_gives_what_its_images_give_alone() -> None:
    keys, values, reference = random_heads(3, 9, 0), random_heads(3, 9, 1), random_tokens(3, 9)
    together = mixed_attention([(keys, values)], reference)
    for i in range(3):
        alone = mixed_attention([(keys[i : i + 1], values[i : i + 1])], reference[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)
