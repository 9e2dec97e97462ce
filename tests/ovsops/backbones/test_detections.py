"""Logits to labelled boxes: published numbers, hand-worked cases, empty and crowded images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ovsops.backbones.detections import (
    Detections,
    best_pairs,
    boxes_in_pixels,
    label_scores,
    merged_detections,
    no_detections,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "data" / "fgclip2_ovd_a.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_label_scores_and_best_pairs_are_those_of_the_published_head(golden: dict[str, np.ndarray]) -> None:
    logits = torch.from_numpy(golden["det_logits"])
    token_map = torch.from_numpy(golden["label_token_map"]).bool()
    scores = label_scores(logits, token_map)
    np.testing.assert_allclose(scores.numpy(), golden["label_scores"], rtol=0, atol=1e-5)
    best, queries, labels = best_pairs(scores, limit=10, min_score=0.0)
    np.testing.assert_allclose(best.numpy(), golden["topk_scores"], rtol=0, atol=1e-5)
    assert queries.tolist() == golden["topk_query"].tolist()
    assert labels.tolist() == golden["topk_label"].tolist()


def test_a_label_scores_the_mean_over_its_own_tokens() -> None:
    logits = torch.tensor([[0.0, 2.0, -2.0, float("-inf")]])
    token_map = torch.tensor(
        [[True, False, False, False], [False, True, True, False], [True, False, False, True]]
    )
    torch.testing.assert_close(label_scores(logits, token_map), torch.tensor([[0.5, 0.5, 0.25]]))


def test_best_pairs_break_ties_by_place_and_stop_at_the_threshold() -> None:
    scores = torch.tensor([[0.5, 0.2], [0.5, 0.9]])
    best, queries, labels = best_pairs(scores, limit=3, min_score=0.3)
    assert list(zip(queries.tolist(), labels.tolist(), strict=True)) == [(1, 1), (0, 0), (1, 0)]
    assert best.tolist() == pytest.approx([0.9, 0.5, 0.5])
    assert len(best_pairs(scores, limit=9, min_score=0.95)[0]) == 0


def test_boxes_are_cut_to_the_image() -> None:
    boxes = torch.tensor(
        [[0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], [1.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.0, 0.3], [1, 1, 1, 1]]
    )
    corners, has_area = boxes_in_pixels(boxes, (100, 200))
    assert corners[0].tolist() == [50, 25, 150, 75]
    assert corners[1].tolist() == [0, 0, 50, 25]
    assert corners[4].tolist() == [100, 50, 200, 100]
    assert has_area.tolist() == [True, True, False, False, True]
    assert boxes_in_pixels(boxes[:0], (100, 200))[0].shape == (0, 4)


def found(boxes: Tensor, scores: list[float], labels: list[int]) -> Detections:
    return Detections(boxes_xyxy=boxes, scores=torch.tensor(scores), labels=torch.tensor(labels))


BOX, SHIFTED, FAR = [0.0, 0, 10, 10], [1.0, 0, 11, 10], [50.0, 50, 60, 60]


def test_doubles_of_other_prompts_go_only_where_labels_may_compete() -> None:
    parts = [
        found(torch.tensor([BOX, FAR]), [0.9, 0.3], [0, 1]),
        found(torch.tensor([SHIFTED, SHIFTED]), [0.8, 0.7], [7, 0]),
    ]
    own = merged_detections(parts, iou=0.5, across_labels=False, limit=10)
    assert own.labels.tolist() == [0, 7, 1]  # the 0.7 is a double of the 0.9
    assert merged_detections(parts, iou=0.5, across_labels=True, limit=10).labels.tolist() == [0, 1]
    assert merged_detections(parts, iou=None, across_labels=True, limit=10).labels.tolist() == [0, 7, 0, 1]
    assert merged_detections(parts, iou=None, across_labels=True, limit=1).scores.tolist() == pytest.approx(
        [0.9]
    )


def test_nothing_found_is_zero_rows() -> None:
    for parts in ([], [no_detections()], [no_detections(), no_detections()]):
        merged = merged_detections(parts, iou=0.5, across_labels=False, limit=10)
        assert (len(merged), merged.boxes_xyxy.shape, merged.labels.dtype) == (0, (0, 4), torch.int64)


def test_five_thousand_detections() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(5000, 2, generator=generator) * 500
    boxes = torch.cat([corners, corners + 40], dim=1)
    many = Detections(
        boxes_xyxy=boxes, scores=torch.rand(5000, generator=generator), labels=torch.arange(5000) % 4
    )
    merged = merged_detections([many], iou=0.5, across_labels=False, limit=5000)
    assert 300 < len(merged) < 5000
    assert bool((merged.scores.diff() <= 0).all())
