"""SAM 3 predictions to pixels and instances, on hand-made logits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.sam3 import Sam3Prediction
from ovsops.segmenters.sam3_config import Sam3SegmenterConfig
from ovsops.segmenters.sam3_masks import PixelVote, candidates, full_mask, semantic_scores

SURE = 9.0
CONFIG = Sam3SegmenterConfig(sam3=Checkpoint(source="nowhere"))


def prediction(
    masks: Tensor, *, queries: Tensor, presence: Tensor, semantic: Tensor | None = None
) -> Sam3Prediction:
    """Logits: masks [P Q m m], queries [P Q], presence [P]; a semantic head that sees nothing by default."""
    return Sam3Prediction(
        mask_logits=masks,
        semantic_logits=torch.full((len(masks), *masks.shape[2:]), -SURE) if semantic is None else semantic,
        query_logits=queries,
        presence_logits=presence,
        boxes_xyxy=torch.tensor([0.0, 0.25, 0.5, 1.0]).expand(*queries.shape, 4),
        query_outliers=None,
    )


def square(*cells: int) -> Tensor:
    """Logits of a 2x2 mask, sure of the given cells."""
    return torch.tensor([SURE if i in cells else -SURE for i in range(4)]).view(2, 2)


def test_semantic_scores_join_both_heads_times_presence() -> None:
    found = semantic_scores(
        prediction(
            torch.stack([square(0), square(1), square(3)])[None],
            queries=torch.tensor([[SURE, 1.0, -SURE]]),
            presence=torch.tensor([1.0]),
            semantic=square(2)[None],
        ),
        instance_threshold=0.5,
    )
    presence, sure, medium = (1 / (1 + np.exp(-v)) for v in (1.0, SURE, 1.0))
    expected = presence * np.array([[sure * sure, medium * sure], [sure, 1 - sure]])
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-4)  # query 3 is below the threshold


def test_candidates_are_counted_scored_and_suppressed_per_prompt() -> None:
    masks = torch.stack([square(0, 1), square(0, 1), square(3)])
    found = candidates(
        prediction(
            torch.stack([masks, masks]),
            queries=torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, -SURE]]),
            presence=torch.tensor([SURE, SURE]),
        ),
        CONFIG,
        first_prompt=4,
    )
    assert found.prompts.tolist() == [4, 4, 5]  # best first; the worse copy of each prompt is gone
    scores = torch.tensor([3.0, 2.0, 2.0]).sigmoid() * torch.tensor(SURE).sigmoid()
    torch.testing.assert_close(found.scores, scores)
    assert found.boxes_xyxy[0].tolist() == [0.0, 0.25, 0.5, 1.0]


def test_an_absent_concept_has_no_candidates() -> None:
    found = candidates(
        prediction(square(0)[None, None], queries=torch.tensor([[SURE]]), presence=torch.tensor([-SURE])),
        CONFIG,
    )
    assert len(found) == 0
    assert found.mask_logits.shape == (0, 2, 2)


@pytest.mark.parametrize(("mode", "width"), [("corrected", 5), ("upstream", 6)])
def test_full_masks_resize_probabilities_or_logits(mode: str, width: int) -> None:
    logits = torch.tensor([[30.0, -10.0], [30.0, -10.0]])
    config = Sam3SegmenterConfig(sam3=Checkpoint(source="nowhere"), mode=mode)  # type: ignore[arg-type]
    mask = full_mask(logits, (3, 10), config)
    assert mask.sum(dim=1).tolist() == [width] * 3


def test_a_vote_keeps_the_best_class_the_first_of_equals_and_background() -> None:
    vote = PixelVote((1, 4), device="cpu")
    vote.add(
        torch.tensor([[[0.6, 0.2, 0.7, 0.9]], [[0.6, 0.8, 0.1, 0.1]], [[0.1, 0.1, 0.8, 0.1]]]),
        torch.tensor([2, 1, 0]),
    )
    vote.add(torch.tensor([[[0.1, 0.9, 0.1, 0.1]]]), torch.tensor([3]))
    found = vote.class_map(threshold=0.65)
    assert found.labels.tolist() == [[0, 3, 0, 2]]  # below the threshold; later and better; background; best
    np.testing.assert_allclose(found.scores, [[0.6, 0.9, 0.7, 0.9]])


@given(seed=st.integers(0, 99), chunk=st.integers(1, 7))
def test_a_vote_is_the_argmax_whatever_the_chunks(seed: int, chunk: int) -> None:
    scores = torch.rand(7, 3, 4, generator=torch.Generator().manual_seed(seed))
    labels = torch.tensor([1, 1, 2, 0, 3, 3, 2])
    vote = PixelVote((3, 4), device="cpu")
    for part, owners in zip(scores.split(chunk), labels.split(chunk), strict=True):
        vote.add(part, owners)
    by_class = torch.stack([scores[labels == c].amax(dim=0) for c in range(4)])
    expected = by_class[1:].argmax(dim=0) + 1
    expected[by_class[0] > by_class[1:].amax(dim=0)] = 0
    found = vote.class_map(threshold=0.0)
    assert found.labels.tolist() == expected.tolist()
    assert np.array_equal(found.scores, by_class[1:].amax(dim=0).numpy())


def test_painting_lets_the_best_instance_win() -> None:
    vote = PixelVote((1, 3), device="cpu")
    vote.paint(torch.tensor([[True, True, False]]), 0.6, 1)
    vote.paint(torch.tensor([[False, True, False]]), 0.9, 2)
    vote.paint(torch.tensor([[True, True, True]]), 0.5, 3)
    vote.paint(torch.tensor([[False, False, True]]), 0.7, 0)
    found = vote.class_map(threshold=0.0)
    assert found.labels.tolist() == [[1, 2, 0]]
    np.testing.assert_allclose(found.scores, [[0.6, 0.9, 0.5]])
