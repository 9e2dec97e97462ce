"""Clusters of the text, and text that moves towards what is seen."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ovsops.segmenters.prompt_tree import adjusted_text, likeliest_of_cluster, query_logits, ward_clusters


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def plain_adjustment(
    text: Tensor, patches: Tensor, prior: Tensor, clusters: Tensor, *, weight: float, top: int
) -> Tensor:
    """One view, cluster by cluster and class by class."""
    moved = text.clone()
    for cluster in clusters.unique():
        members = (clusters == cluster).nonzero()[:, 0]
        best = members[prior[members].argmax()]
        seen = patches[(patches @ text[best]).topk(top).indices].mean(dim=0)
        moved[best] = F.normalize((1 - weight) * text[best] + weight * F.normalize(seen, dim=0), dim=0)
    return moved


def test_near_queries_share_a_cluster() -> None:
    text = F.normalize(torch.tensor([[1.0, 0.02], [1.0, 0.0], [0.0, 1.0], [0.03, 1.0], [-1.0, -1.0]]), dim=-1)
    labels = ward_clusters(text, threshold=0.1).tolist()
    assert labels[0] == labels[1]
    assert labels[2] == labels[3]
    assert len({labels[0], labels[2], labels[4]}) == 3
    assert sorted(set(labels)) == [0, 1, 2]
    assert set(ward_clusters(text, threshold=100.0).tolist()) == {0}


@pytest.mark.parametrize("count", [0, 1])
def test_one_query_is_one_cluster(count: int) -> None:
    assert ward_clusters(unit(count, 4), threshold=0.1).tolist() == [0] * count


def test_equal_queries_are_one_cluster_even_at_threshold_zero() -> None:
    assert ward_clusters(unit(1, 8).expand(4, -1), threshold=0.0).tolist() == [0] * 4


def test_the_first_of_equal_priors_is_chosen() -> None:
    prior = torch.tensor([[0.2, 0.5, 0.5, -0.1], [0.3, 0.1, 0.2, -0.2]])
    assert likeliest_of_cluster(prior, torch.tensor([0, 1, 1, 2])).tolist() == [[0, 1, 3], [0, 2, 3]]


def test_views_together_are_the_plain_loop_one_by_one() -> None:
    text, patches, prior = unit(14, 16), unit(3, 25, 16, seed=1), unit(3, 14, seed=2)
    clusters = ward_clusters(text, threshold=1.2)
    assert 1 < len(clusters.unique()) < 14
    found = adjusted_text(text, patches, prior, clusters, weight=0.3, num_patches=2)
    for view in range(3):
        expected = plain_adjustment(text, patches[view], prior[view], clusters, weight=0.3, top=2)
        torch.testing.assert_close(found[view], expected)


@pytest.mark.parametrize("num_views", [0, 2])
def test_weight_zero_and_one_class(num_views: int) -> None:
    text, patches = unit(1, 8), unit(num_views, 9, 8)
    clusters, prior = torch.zeros(1, dtype=torch.int64), torch.zeros(num_views, 1)
    still = adjusted_text(text, patches, prior, clusters, weight=0.0, num_patches=2)
    torch.testing.assert_close(still, text.expand(num_views, -1, -1))
    moved = adjusted_text(text, patches, prior, clusters, weight=1.0, num_patches=1)
    best = patches[torch.arange(num_views), (patches @ text[0]).argmax(dim=1)]
    torch.testing.assert_close(moved[:, 0], best)


def test_fewer_patches_than_asked_for() -> None:
    text, patch = unit(2, 8), unit(1, 1, 8, seed=1)
    moved = adjusted_text(text, patch, torch.zeros(1, 2), torch.tensor([0, 0]), weight=1.0, num_patches=2)
    torch.testing.assert_close(moved[0], torch.stack([patch[0, 0], text[1]]))


def test_logits_mix_similarity_and_prior() -> None:
    patches, text, prior = (
        unit(2, 5, 8),
        unit(2, 3, 8, seed=1),
        torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]),
    )
    logits = query_logits(patches, text, prior, prior_weight=0.25)
    torch.testing.assert_close(logits, 0.75 * (text @ patches.mT) + 0.25 * prior[..., None])
