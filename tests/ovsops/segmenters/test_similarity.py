"""Similarities: what may depend on what."""

import pytest
import torch

from ovsops.segmenters.similarity import (
    class_prior,
    fuse,
    patch_similarity,
    proxy_mixing,
    with_negatives,
    with_prior,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_axes_stay_apart_when_views_and_rows_are_equally_many() -> None:
    """The seed's einsum paired view c with row c here."""
    text, patches = random(3, 8), random(3, 5, 8, seed=1)
    found = patch_similarity(text, patches)
    for v in range(3):
        for r in range(3):
            expected = torch.cosine_similarity(text[r][None], patches[v])
            torch.testing.assert_close(found[v, r], expected)


def test_similarity_is_a_cosine() -> None:
    text, patches = random(4, 8), random(2, 5, 8, seed=1)
    found = patch_similarity(text, patches)
    assert found.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(patch_similarity(3 * text, patches / 7), found)


def test_proxy_mixing_by_hand() -> None:
    """Two like patches and one opposite: s = [[1,1,-1],[1,1,-1],[-1,-1,1]], mean 1/9, lead = s - 1.2/9."""
    tokens = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]])
    expected = torch.tensor([[[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]])
    torch.testing.assert_close(proxy_mixing(tokens, beta=1.2, gamma=3.0), expected)


def test_a_flat_image_keeps_every_patch_to_itself() -> None:
    """mean(s) = 1 > 1 / beta: the published form gives NaN here."""
    tokens = torch.ones(2, 6, 4)
    torch.testing.assert_close(
        proxy_mixing(tokens, beta=1.2, gamma=3.0), torch.eye(6).expand(2, -1, -1), atol=0, rtol=0
    )


def test_proxy_mixing_is_of_each_view_alone() -> None:
    tokens = torch.cat([random(1, 6, 4), 5 + random(1, 6, 4, seed=1)])
    both = proxy_mixing(tokens, beta=1.2, gamma=3.0)
    for v in range(2):
        torch.testing.assert_close(both[v : v + 1], proxy_mixing(tokens[v : v + 1], beta=1.2, gamma=3.0))
    torch.testing.assert_close(both.sum(dim=-1), torch.ones(2, 6))


def test_fusion_by_hand() -> None:
    dino, siglip = torch.full((1, 1, 1), 0.4), torch.full((1, 1, 1), 0.1)
    found = fuse(dino, siglip, alpha=0.75, siglip_scale=2.0, siglip_shift=0.1)
    assert found.item() == pytest.approx(0.75 * 0.4 + 0.25 * (2 * 0.1 + 0.1))
    assert torch.equal(fuse(dino, siglip, alpha=1.0, siglip_scale=2.0, siglip_shift=0.1), dino)


def test_the_prior_is_one_number_a_row_and_moves_no_border_within_a_row() -> None:
    text, tokens, logits = random(4, 8), random(2, 5, 8, seed=1), random(2, 3, 5, seed=2)
    prior = class_prior(text, tokens, logits)
    assert prior.shape == (4,)
    similarity = patch_similarity(text, tokens)
    with_it = with_prior(similarity, prior, weight=0.3, center=0.05)
    torch.testing.assert_close(with_it, 0.7 * similarity + 0.3 * (prior[None, :, None] - 0.05))
    assert torch.equal(with_it.argsort(dim=-1), similarity.argsort(dim=-1))


def test_a_class_prior_does_not_know_the_other_classes() -> None:
    text, tokens, logits = random(4, 8), random(2, 5, 8, seed=1), random(2, 3, 5, seed=2)
    torch.testing.assert_close(class_prior(text[:2], tokens, logits), class_prior(text, tokens, logits)[:2])


def test_negatives_by_hand() -> None:
    """Class 0 at 0.3 has negatives 0.5 (leads by 0.2) and 0.1; class 1 has none."""
    similarity = torch.tensor([[[0.3, 0.6], [0.2, 0.2]]])
    negatives = torch.tensor([[[0.5, 0.5], [0.1, 0.1]]])
    owner = torch.tensor([0, 0])
    found = with_negatives(similarity, negatives, owner, weight=1.0)
    torch.testing.assert_close(found, torch.tensor([[[0.1, 0.6], [0.2, 0.2]]]))
    torch.testing.assert_close(
        with_negatives(similarity, negatives, owner, weight=0.5)[0, 0], torch.tensor([0.2, 0.6])
    )
    assert torch.equal(with_negatives(similarity, negatives, owner, weight=0.0), similarity)


def test_without_negatives_nothing_changes() -> None:
    similarity = random(1, 3, 4)
    none = torch.zeros(0, dtype=torch.int64)
    assert torch.equal(with_negatives(similarity, similarity[:, :0], none, weight=1.0), similarity)
