"""Masks of one thing found twice, as RLE: suppression without drawing them. Axes: N masks, K kept, M others.

The same rule as `nms.mask_nms`, for thousands of masks of a large image. Two masks are compared run by run only where
their boxes and areas leave room for an overlap above the limit.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from ovsops.masks.rle import Rle
from ovsops.masks.run_overlaps import pixels_in, runs_of_rles
from ovsops.masks.runs import Runs, run_areas, run_boxes_xyxy


def rle_nms(
    rles: Sequence[Rle],
    scores: Float64[np.ndarray, " N"],
    *,
    iou: float | None,
    containment: float | None = None,
    groups: Int64[np.ndarray, " N"] | None = None,
) -> Int64[np.ndarray, " K"]:
    """Places of the masks that stay, best score first; of equal scores the first comes first.

    A mask goes when one that stays has an IoU with it above `iou`, or holds more than the share `containment` of its
    area. None switches a test off. Only masks of the same group suppress each other. Empty masks go.
    """
    runs = runs_of_rles(rles)
    areas = run_areas(runs, len(rles))
    order = np.argsort(-scores, kind="stable")
    order = order[areas[order] > 0]
    if len(order) == 0 or (iou is None and containment is None):
        return order
    boxes = run_boxes_xyxy(runs, len(rles), rles[0].size_hw[0])
    offsets = np.searchsorted(runs.owners, np.arange(len(rles) + 1))
    is_open = np.ones(len(order), np.bool_)
    for place, one in enumerate(order):
        if not is_open[place]:
            continue
        later = place + 1 + np.flatnonzero(is_open[place + 1 :])
        others = order[later]
        if groups is not None:
            is_rival = groups[others] == groups[one]
            later, others = later[is_rival], others[is_rival]
        most = np.minimum(_shared_by_boxes(boxes[one], boxes[others]), np.minimum(areas[one], areas[others]))
        may = _suppressed(most, areas[one], areas[others], iou, containment)
        later, others = later[may], others[may]
        shared = shared_pixels(runs, offsets, int(one), others)
        is_open[later[_suppressed(shared, areas[one], areas[others], iou, containment)]] = False
    return order[is_open]


def shared_pixels(
    runs: Runs, offsets: Int64[np.ndarray, " N1"], one: int, others: Int64[np.ndarray, " M"]
) -> Int64[np.ndarray, " M"]:
    """Pixels that mask `one` shares with each of `others`; `offsets[i]` is the first run of mask i."""
    counts = offsets[others + 1] - offsets[others]
    ends = np.cumsum(counts)
    at = np.arange(int(counts.sum())) + np.repeat(offsets[others] - (ends - counts), counts)
    mine = slice(int(offsets[one]), int(offsets[one + 1]))
    found = pixels_in(
        Runs(runs.starts[mine], runs.ends[mine], runs.owners[mine]), runs.starts[at], runs.ends[at]
    )
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(found)])
    return sums[ends] - sums[ends - counts]


def _shared_by_boxes(
    box_xyxy: Int64[np.ndarray, "4"], others_xyxy: Int64[np.ndarray, "M 4"]
) -> Int64[np.ndarray, " M"]:
    low = np.maximum(box_xyxy[:2], others_xyxy[:, :2])
    high = np.minimum(box_xyxy[2:], others_xyxy[:, 2:])
    return np.maximum(high - low, 0).prod(axis=1)


def _suppressed(
    shared: Int64[np.ndarray, " M"],
    area: np.int64,
    areas: Int64[np.ndarray, " M"],
    iou: float | None,
    containment: float | None,
) -> Bool[np.ndarray, " M"]:
    """Whether that many shared pixels are too many; rising in `shared`, so that a bound may be asked first."""
    too_many = np.zeros(len(shared), np.bool_)
    if iou is not None:
        too_many |= shared > iou * (area + areas - shared)
    if containment is not None:
        too_many |= shared > containment * areas
    return too_many
