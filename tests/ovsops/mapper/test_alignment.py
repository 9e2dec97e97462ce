"""Heads and their choice."""

import torch

from ovsops.mapper.alignment import (
    choose_heads,
    cls_patch_logits,
    head_embeddings,
    text_head_similarity,
    unit,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_equal_logits_average_the_patches() -> None:
    tokens = random(2, 5, 4)
    heads = head_embeddings(tokens, torch.zeros(2, 3, 5))
    torch.testing.assert_close(heads * 5, tokens.mean(dim=1, keepdim=True).expand(2, 3, 4))


def test_a_sharp_head_is_its_patch() -> None:
    tokens, logits = random(1, 5, 4), torch.zeros(1, 2, 5)
    logits[0, 1, 3] = 100.0
    heads = head_embeddings(tokens, logits)
    torch.testing.assert_close(heads[0, 1] * 5, tokens[0, 3])


def test_a_shift_of_logits_changes_raw_weights_but_not_attention() -> None:
    """Why logits must be carried: from probabilities the raw weighting cannot be had back."""
    tokens, logits = random(1, 5, 4), random(1, 2, 5, seed=1)
    shifted = logits + 3.0
    torch.testing.assert_close(head_embeddings(tokens, logits), head_embeddings(tokens, shifted))
    raw, raw_shifted = (head_embeddings(tokens, x, weights="logits") for x in (logits, shifted))
    assert (raw - raw_shifted).abs().max() > 0.1


def test_logits_are_the_full_score_matrix_row() -> None:
    qkv = random(2, 9, 3 * 8)
    query, key, _ = qkv.unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)  # B N T d
    full = query @ key.transpose(-1, -2) * 0.5
    found = cls_patch_logits(qkv, num_heads=2, num_prefix_tokens=5, scale=0.5)
    torch.testing.assert_close(found, full[:, :, 0, 5:])


def test_each_image_chooses_by_its_own_text() -> None:
    text = torch.eye(3)
    heads = torch.zeros(3, 2, 3)
    heads[:, 0] = -torch.eye(3)
    heads[:, 1] = torch.eye(3) * 7
    heads[1, [0, 1]] = heads[1, [1, 0]]
    chosen, index = choose_heads(heads, text)
    assert index.tolist() == [1, 0, 1]
    torch.testing.assert_close(chosen, torch.eye(3))
    torch.testing.assert_close(text_head_similarity(text, heads), torch.eye(3))


def test_unit_keeps_zero_finite_and_directions() -> None:
    vectors = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    torch.testing.assert_close(unit(vectors), torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
