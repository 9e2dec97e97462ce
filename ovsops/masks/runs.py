"""Runs of set pixels in column-major order: what RLE, boxes and areas are computed from.

Axes: h w pixels, r runs of all owners, k owners (masks, labels, regions). A run is the half-open range
`start..end` of `column * h + row`. Finding runs compares each pixel with the one above it, in the image's own
memory order, and sorts the few places that differ: nothing is transposed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer

_ROWS_AT_ONCE = 128
"""Rows that are searched at a time for the last set one."""


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
    """The runs, sorted by owner and start as they must come, with those of an owner that touch made one."""
    begins = np.ones(len(starts), np.bool_)
    begins[1:] = (starts[1:] != ends[:-1]) | (owners[1:] != owners[:-1])
    finishes = np.ones(len(starts), np.bool_)
    finishes[:-1] = begins[1:]
    return Runs(starts[begins], ends[finishes], owners[begins])


def crop_runs(
    crops: Sequence[Bool[np.ndarray, "_ _"]], corners_yx: Sequence[tuple[int, int]], size_hw: tuple[int, int]
) -> Runs:
    """Runs of masks of `size_hw`, each given as a crop and the pixel where the crop's top left corner lies.

    Crop i is owner i; masks may overlap. Of each crop only the rows that hold a set pixel are searched.
    """
    places, frames = [np.empty(0, np.int64)], [(0, 0, 1)]
    for crop, (top, left) in zip(crops, corners_yx, strict=True):
        first, end = _set_rows(crop)
        places.append(_vertical_steps(crop[first:end]))
        frames.append((top + first, left, max(1, crop.shape[1])))

    owners = np.repeat(np.arange(len(places)), [len(found) for found in places]) - 1
    tops, lefts, widths = np.array(frames, np.int64)[owners + 1].T
    rows, columns = np.divmod(np.concatenate(places), widths)
    height, width = size_hw
    stride = height * width + 1  # an end may be one past the last pixel
    keys = owners * stride + (columns + lefts) * height + rows + tops
    keys.sort()  # by owner, then along its columns: a start, an end, a start, ...
    pixels = keys - owners * stride
    return joined_runs(pixels[::2], pixels[1::2], owners[::2])


def _set_rows(crop: Bool[np.ndarray, "h w"]) -> tuple[int, int]:
    """First row with a set pixel and the row after the last; (0, 0) when there is none.

    `argmax` stops at the first set pixel, and reads unset ones twice as fast as `any` by rows does: most of what
    encoding full-size masks costs is this reading.
    """
    height, width = crop.shape
    if crop.size == 0:
        return 0, 0
    place = int(crop.argmax())
    first = place // width
    if not crop[first, place % width]:
        return 0, 0
    for end in range(height, first, -_ROWS_AT_ONCE):
        block = crop[max(first, end - _ROWS_AT_ONCE) : end]
        if block.reshape(-1)[block.argmax()]:
            break
    rows = np.flatnonzero(block.any(axis=1))
    return first, end - len(block) + int(rows[-1]) + 1


def _vertical_steps(rows: Bool[np.ndarray, "h w"]) -> Int64[np.ndarray, "n"]:
    """Where a pixel differs from the one above it, as `row * w + column`; above and below the rows nothing is set."""
    height, width = rows.shape
    if height == 0:
        return np.empty(0, np.int64)
    steps = np.empty((height + 1, width), np.bool_)
    steps[0], steps[-1] = rows[0], rows[-1]
    np.not_equal(rows[1:], rows[:-1], out=steps[1:-1])
    return np.flatnonzero(steps)


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
    order = np.flatnonzero(is_set)[np.argsort(owners[is_set], kind="stable")]
    return joined_runs(starts[order], ends[order], owners[order])


def run_areas(runs: Runs, num_owners: int) -> Int64[np.ndarray, "k"]:
    """Set pixels of each owner."""
    areas = np.zeros(num_owners, np.int64)
    np.add.at(areas, runs.owners, runs.ends - runs.starts)
    return areas


def run_pixels(runs: Runs) -> Int64[np.ndarray, "n"]:
    """`column * h + row` of every pixel of every run, in the order of the runs; shared ones come several times."""
    lengths = runs.ends - runs.starts
    before = np.cumsum(lengths) - lengths
    return np.repeat(runs.starts - before, lengths) + np.arange(int(lengths.sum()))


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
