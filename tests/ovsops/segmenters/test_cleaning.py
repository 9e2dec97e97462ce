"""Background cleaning: limits, ranges, and what the published slips change."""

import pytest
import torch

from ovsops.segmenters.cleaning import Mode, clean_background, rescale_to_scores


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cleaned(
    scores: torch.Tensor, logits: torch.Tensor, *, mode: Mode = "corrected", weight: float = 5 / 6
) -> torch.Tensor:
    views, rows, patches = scores.shape
    tokens, text = random(views, patches, 8, seed=8), random(rows, 8, seed=9)
    return clean_background(scores, text, tokens, logits, weight=weight, tau_head=1.0, mode=mode)


@pytest.mark.parametrize("rows", [1, 5])
def test_all_equal_attention_leaves_the_scores_and_their_minimum(rows: int) -> None:
    scores = random(2, rows, 9).sigmoid()
    found = cleaned(scores, torch.full((2, 3, 9), 1.7))
    torch.testing.assert_close(found, 5 / 6 * scores + 1 / 6 * scores.min())


@pytest.mark.parametrize("mode", ["upstream", "corrected"])
def test_constant_scores_stay_what_they_are(mode: Mode) -> None:
    scores = torch.full((1, 1, 9), 0.5)
    torch.testing.assert_close(cleaned(scores, random(1, 3, 9), mode=mode), scores)


def test_weight_one_is_off_and_the_result_stays_in_range() -> None:
    scores, logits = random(2, 4, 9).sigmoid(), 4 * random(2, 3, 9, seed=1)
    torch.testing.assert_close(cleaned(scores, logits, weight=1.0), scores)
    found = cleaned(scores, logits, weight=0.0)
    torch.testing.assert_close(found.min(), scores.min())
    torch.testing.assert_close(found.max(), scores.max(), atol=1e-5, rtol=0)


def test_upstream_never_reaches_the_top_of_the_range() -> None:
    attention = torch.tensor([[[0.2, 0.3, 0.5]]])
    scores = torch.tensor([[[0.0, 0.5, 1.0]]])
    torch.testing.assert_close(
        rescale_to_scores(attention, scores, mode="upstream"), torch.tensor([[[0.0, 0.2, 0.6]]])
    )
    torch.testing.assert_close(
        rescale_to_scores(attention, scores, mode="corrected"),
        torch.tensor([[[0.0, 1 / 3, 1.0]]]),
        atol=1e-5,
        rtol=0,
    )


def test_corrected_shares_one_range_over_the_windows_of_an_image() -> None:
    attention = torch.tensor([[[0.2, 0.8]], [[0.4, 0.6]]])
    scores = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]])
    found = rescale_to_scores(attention, scores, mode="corrected")
    torch.testing.assert_close(found, torch.tensor([[[0.0, 1.0]], [[1 / 3, 2 / 3]]]), atol=1e-5, rtol=0)


def test_permuting_classes_permutes_the_result() -> None:
    scores, logits, tokens, text = (
        random(2, 4, 9).sigmoid(),
        random(2, 3, 9, seed=1),
        random(2, 9, 8, seed=2),
        random(4, 8, seed=3),
    )
    order = torch.tensor([2, 0, 3, 1])
    for mode in ("upstream", "corrected"):
        run = {"weight": 5 / 6, "tau_head": 0.1, "mode": mode}
        found = clean_background(scores, text, tokens, logits, **run)
        permuted = clean_background(scores[:, order], text[order], tokens, logits, **run)
        torch.testing.assert_close(permuted, found[:, order])
