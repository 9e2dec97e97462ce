"""Precision over recall of finds in order of score, for many resamples at once. Axes: B resamples, N finds, K hits."""

import numpy as np
from jaxtyping import Bool, Float64, Int64

RECALLS = np.linspace(0.0, 1.0, 101)
"""Levels at which COCO reads the precision."""


def precision_and_recall(
    weights: Int64[np.ndarray, "B N"], is_hit: Bool[np.ndarray, " N"], num_true: Int64[np.ndarray, " B"]
) -> tuple[Float64[np.ndarray, " B"], Float64[np.ndarray, " B"]]:
    """AP over 101 recalls and the last recall of finds in order of score; nan where nothing is true.

    Precision at a recall is the best at this or any higher recall, 0 beyond the last one. `weights` say how often the
    image of each find was drawn.
    """
    return precision_at_hits(np.cumsum(weights, axis=1)[:, is_hit], weights[:, is_hit], num_true)


def precision_at_hits(
    num_finds: Int64[np.ndarray, "B K"], weights: Int64[np.ndarray, "B K"], num_true: Int64[np.ndarray, " B"]
) -> tuple[Float64[np.ndarray, " B"], Float64[np.ndarray, " B"]]:
    """The same from hits alone: finds up to and with each of them, and how often each was drawn.

    Between hits recall stands still and precision falls, so nothing else decides. A recall level belongs to the first
    hit that reaches it.
    """
    hits = np.cumsum(weights, axis=1, dtype=np.float64)
    precision = np.divide(hits, num_finds, out=np.zeros_like(hits), where=num_finds > 0)
    best_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    has_true = num_true > 0
    recall = hits / np.where(has_true, num_true, 1)[:, None]
    reached = np.searchsorted(RECALLS, recall, side="right")
    gained = np.diff(reached, axis=1, prepend=0)
    average = (gained * best_from_here).sum(axis=1) / len(RECALLS)
    last = recall[:, -1] if recall.shape[1] else np.zeros(len(recall))
    return np.where(has_true, average, np.nan), np.where(has_true, last, np.nan)
