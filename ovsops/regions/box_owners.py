"""Who gets a pixel that several boxes of its class cover. Axes: N boxes, n of them in order, h w pixels.

Boxes are half-open whole pixels inside the image. One plane serves all classes, because a pixel shows one class.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt16, UInt32

from ovsops.masks.box_nms import box_nms

Overlap = Literal["nearest", "score", "smallest"]


def doubles(
    boxes: Int64[np.ndarray, "N 4"],
    map_labels: Int64[np.ndarray, " N"],
    order: Int64[np.ndarray, " N"],
    iou: float,
) -> Bool[np.ndarray, " N"]:
    """Boxes that lie on one of their class that comes before them in `order`."""
    falling = torch.arange(len(order), 0, -1).double()  # scores that keep the order
    kept = box_nms(
        torch.from_numpy(boxes[order]).float(), falling, iou=iou, groups=torch.from_numpy(map_labels[order])
    )
    is_double = np.ones(len(boxes), np.bool_)
    is_double[order[kept.numpy()]] = False
    return is_double


def pixel_owners(
    boxes: Int64[np.ndarray, "N 4"],
    map_labels: Int64[np.ndarray, " N"],
    order: Int64[np.ndarray, " n"],
    labels: UInt16[np.ndarray, "h w"],
    *,
    overlap: Overlap,
    min_kept_share: float,
) -> tuple[UInt32[np.ndarray, "h w"], Bool[np.ndarray, " N"]]:
    """Which box each pixel goes to, from 1; 0 none; and which boxes show their class at all.

    `order` are the places of the boxes that take part, best first. A box that gets less than `min_kept_share` of the
    pixels of its class in it, against those before it, gets none.
    """
    if overlap == "nearest":
        return _nearest_owners(boxes, map_labels, order, labels, min_kept_share)
    if overlap == "smallest":
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        order = order[np.argsort(areas[order], kind="stable")]
    owners, shows = np.zeros(labels.shape, np.uint32), np.zeros(len(boxes), np.bool_)
    for i in order.tolist():
        at = box_slices(boxes[i])
        mine = labels[at] == map_labels[i]
        shows[i] = mine.any()
        free = mine & (owners[at] == 0)
        if np.count_nonzero(free) >= min_kept_share * np.count_nonzero(mine):
            owners[at][free] = i + 1
    return owners, shows


def _nearest_owners(
    boxes: Int64[np.ndarray, "N 4"],
    map_labels: Int64[np.ndarray, " N"],
    order: Int64[np.ndarray, " n"],
    labels: UInt16[np.ndarray, "h w"],
    min_kept_share: float,
) -> tuple[UInt32[np.ndarray, "h w"], Bool[np.ndarray, " N"]]:
    """Of boxes as near the first of `order` has the pixel. A box is left out for what better ones leave it."""
    owners, shows = np.zeros(labels.shape, np.uint32), np.zeros(len(boxes), np.bool_)
    nearest = np.full(labels.shape, np.inf, np.float32)
    for i in order.tolist():
        at = box_slices(boxes[i])
        mine, distance = labels[at] == map_labels[i], _distance(boxes[i])
        shows[i] = mine.any()
        wins = mine & (distance < nearest[at])
        if np.count_nonzero(wins) >= min_kept_share * np.count_nonzero(mine):
            owners[at][wins] = i + 1
            nearest[at][wins] = distance[wins]
    return owners, shows


def _distance(box_xyxy: Int64[np.ndarray, "4"]) -> np.ndarray:
    """Squared distance of a box's pixels from its centre, in halves of its sides."""
    x0, y0, x1, y1 = box_xyxy.tolist()
    columns = ((np.arange(x1 - x0, dtype=np.float32) + 0.5) * 2 / max(x1 - x0, 1) - 1) ** 2
    rows = ((np.arange(y1 - y0, dtype=np.float32) + 0.5) * 2 / max(y1 - y0, 1) - 1) ** 2
    return rows[:, None] + columns[None]


def box_slices(box_xyxy: Int64[np.ndarray, "4"]) -> tuple[slice, slice]:
    """Rows and columns of a box of pixels."""
    x0, y0, x1, y1 = box_xyxy.tolist()
    return slice(y0, y1), slice(x0, x1)
