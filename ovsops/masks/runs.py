"""Runs of set pixels in column-major order: what RLE, boxes and areas are computed from.

Axes: h w pixels, r runs of all owners, k owners (masks, labels, regions). A run is the half-open range
`start..end` of `column * h + row`. Finding runs compares each pixel with the one above it, in the image's own
memory order, and sorts the few places that differ: nothing is transposed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer

from ovsops.masks.boxes import mask_to_box_xyxy


@dataclass(frozen=True)
class Runs:
    """Runs of several owners, sorted by owner, then start; runs of one owner do not touch."""

    starts: Int64[np.ndarray, "r"]
    ends: Int64[np.ndarray, "r"]
    owners: Int64[np.ndarray, "r"]
    """Which mask, label or region the run belongs to, counted from 0."""

    def __len__(self) -> int:
        return len(self.starts)


def joined_runs(
    starts: Int64[np.ndarray, "r"],
    ends: Int64[np.ndarray, "r"],
    owners: Int64[np.ndarray, "r"],
) -> Runs:
    """Runs in order, with those that touch made one. The given runs of one owner must not overlap."""
    order = np.lexsort((starts, owners))
    starts, ends, owners = starts[order], ends[order], owners[order]
    begins = np.ones(len(starts), np.bool_)
    begins[1:] = (starts[1:] != ends[:-1]) | (owners[1:] != owners[:-1])
    finishes = np.ones(len(starts), np.bool_)
    finishes[:-1] = begins[1:]
    return Runs(starts[begins], ends[finishes], owners[begins])


def mask_runs(mask: Bool[np.ndarray, "h w"]) -> tuple[Int64[np.ndarray, "r"], Int64[np.ndarray, "r"]]:
    """Starts and ends of a mask's runs, one column at a time, looking only inside its box."""
    return crop_runs(mask, (0, 0), mask.shape[0])


def crop_runs(
    crop: Bool[np.ndarray, "ch cw"], top_left_yx: tuple[int, int], height: int
) -> tuple[Int64[np.ndarray, "r"], Int64[np.ndarray, "r"]]:
    """Starts and ends of the runs of a crop that lies at `top_left_yx` in an image of `height` rows."""
    box = mask_to_box_xyxy(crop)
    if box is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    x0, y0, x1, y1 = box
    corner = (top_left_yx[0] + y0, top_left_yx[1] + x0)
    starts, ends = _column_runs(crop[y0:y1, x0:x1])
    return _shifted(starts, y1 - y0, corner, height), _shifted(ends, y1 - y0, corner, height)


def _column_runs(crop: Bool[np.ndarray, "ch cw"]) -> tuple[Int64[np.ndarray, "r"], Int64[np.ndarray, "r"]]:
    """Starts and ends as `column * (ch + 1) + row` with row in 0..ch: a run never leaves its column."""
    height, width = crop.shape
    steps = np.empty((height + 1, width), np.bool_)
    steps[0], steps[-1] = crop[0], crop[-1]
    np.not_equal(crop[1:], crop[:-1], out=steps[1:-1])
    rows, columns = np.divmod(np.flatnonzero(steps), width)
    places = columns * (height + 1) + rows
    places.sort()
    return places[::2], places[1::2]


def _shifted(
    places: Int64[np.ndarray, "r"], crop_height: int, corner_yx: tuple[int, int], height: int
) -> Int64[np.ndarray, "r"]:
    columns, rows = np.divmod(places, crop_height + 1)
    return (columns + corner_yx[1]) * height + rows + corner_yx[0]


def stack_runs(masks: Bool[np.ndarray, "k h w"] | Sequence[Bool[np.ndarray, "h w"]]) -> Runs:
    """Runs of masks of one size, which may overlap; mask i is owner i."""
    found = [mask_runs(mask) for mask in masks]
    if not found:
        nothing = np.empty(0, np.int64)
        return Runs(nothing, nothing, nothing)
    owners = np.repeat(np.arange(len(found)), [len(starts) for starts, _ in found])
    return joined_runs(np.concatenate([s for s, _ in found]), np.concatenate([e for _, e in found]), owners)


def label_runs(labels: Integer[np.ndarray, "h w"]) -> Runs:
    """Runs of every label but 0; label j is owner j - 1. One pass, whatever the number of labels."""
    height, width = labels.shape
    above, below = np.divmod(np.flatnonzero(labels[1:] != labels[:-1]), width)
    rows = np.concatenate([np.zeros(width, np.int64), above + 1])
    columns = np.concatenate([np.arange(width), below])
    starts = columns * height + rows
    starts.sort()
    ends = np.append(starts[1:], height * width)
    columns, rows = np.divmod(starts, height)
    owners = labels[rows, columns].astype(np.int64) - 1
    is_set = owners >= 0
    return joined_runs(starts[is_set], ends[is_set], owners[is_set])


def run_areas(runs: Runs, num_owners: int) -> Int64[np.ndarray, "k"]:
    """Set pixels of each owner."""
    areas = np.zeros(num_owners, np.int64)
    np.add.at(areas, runs.owners, runs.ends - runs.starts)
    return areas


def run_boxes_xyxy(runs: Runs, num_owners: int, height: int) -> Int64[np.ndarray, "k 4"]:
    """Tight half-open boxes of each owner in pixels; an owner without pixels has a box of zeros."""
    boxes = np.zeros((num_owners, 4), np.int64)
    if len(runs) == 0:
        return boxes
    first_columns, tops = np.divmod(runs.starts, height)
    last_columns, lowest = np.divmod(runs.ends - 1, height)
    wraps = last_columns > first_columns  # such a run holds the foot of a column and the head of the next
    present, firsts = np.unique(runs.owners, return_index=True)
    boxes[present, 0] = np.minimum.reduceat(first_columns, firsts)
    boxes[present, 1] = np.minimum.reduceat(np.where(wraps, 0, tops), firsts)
    boxes[present, 2] = np.maximum.reduceat(last_columns, firsts) + 1
    boxes[present, 3] = np.maximum.reduceat(np.where(wraps, height - 1, lowest), firsts) + 1
    return boxes


def run_counts(
    runs: Runs, num_owners: int, num_pixels: int
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "k"]]:
    """COCO counts of all owners one after another, and how many belong to each.

    Counts alternate unset, set, unset, ... and begin with the unset run, 0 when the first pixel is set.
    """
    num_runs = np.bincount(runs.owners, minlength=num_owners).astype(np.int64)
    last_of_owner = np.cumsum(num_runs)[num_runs > 0] - 1
    tails = np.full(num_owners, num_pixels, np.int64)
    tails[num_runs > 0] -= runs.ends[last_of_owner]
    num_counts = 2 * num_runs + (tails > 0)
    ends = np.cumsum(num_counts)

    previous = np.zeros(len(runs), np.int64)
    previous[1:] = runs.ends[:-1]
    previous[last_of_owner - num_runs[num_runs > 0] + 1] = 0
    counts = np.empty(int(ends[-1]) if num_owners else 0, np.int64)
    place_in_owner = np.arange(len(runs)) - np.repeat(np.cumsum(num_runs) - num_runs, num_runs)
    at = np.repeat(ends - num_counts, num_runs) + 2 * place_in_owner
    counts[at] = runs.starts - previous
    counts[at + 1] = runs.ends - runs.starts
    counts[ends[tails > 0] - 1] = tails[tails > 0]
    return counts, num_counts
