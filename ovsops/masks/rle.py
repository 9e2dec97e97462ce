"""COCO compressed RLE of masks, exact in both directions. Axes: h w pixels, k masks.

Masks are bool arrays; RLE runs are column-major, as COCO wants. Equal, byte for byte, to what pycocotools
writes, without its transposed full-size copies: a mask is looked at inside its box only, a label image once
for all its labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Integer

from ovsops.errors import ShapeError
from ovsops.masks.boxes import boxes_xyxy_to_xywh
from ovsops.masks.rle_codec import checked_counts, compress_counts, decompress_counts
from ovsops.masks.runs import (
    Runs,
    crop_runs,
    joined_runs,
    label_runs,
    run_boxes_xyxy,
    run_counts,
)

MAX_PIXELS = 2**31 - 1
"""Largest mask that is encoded or decoded; beyond it the 32-bit counts of other COCO readers overflow."""


@dataclass(frozen=True)
class Rle:
    """A mask as COCO compressed RLE. Building one checks the size alone; reading it checks the runs."""

    size_hw: tuple[int, int]
    """Height and width in pixels."""
    counts: str
    """Compressed runs, ASCII."""

    def __post_init__(self) -> None:
        height, width = self.size_hw
        if height < 1 or width < 1 or height * width > MAX_PIXELS:
            raise ShapeError(
                f"RLE size {height}x{width} (h x w): expected 1 to {MAX_PIXELS} pixels as (height, width)"
            )

    def to_coco(self) -> dict[str, Any]:
        """The `segmentation` value of a COCO annotation, ready for JSON."""
        return {"size": list(self.size_hw), "counts": self.counts}


def mask_to_rle(mask: Bool[np.ndarray, "h w"]) -> Rle:
    """RLE of one mask. It must be bool: of a mask with values 1 and 2, COCO's own encoder loses pixels."""
    return crops_to_rles([mask], [(0, 0)], (mask.shape[0], mask.shape[1]))[0]


def masks_to_rles(masks: Bool[np.ndarray, "k h w"]) -> list[Rle]:
    """RLEs of masks that may overlap."""
    return crops_to_rles(list(masks), [(0, 0)] * len(masks), (masks.shape[1], masks.shape[2]))


def crops_to_rles(
    crops: Sequence[Bool[np.ndarray, "_ _"]], corners_yx: Sequence[tuple[int, int]], size_hw: tuple[int, int]
) -> list[Rle]:
    """RLEs of masks of `size_hw` that are each a crop, with its top left pixel at a corner, and unset elsewhere."""
    height, width = size_hw
    for i, (crop, (top, left)) in enumerate(zip(crops, corners_yx, strict=True)):
        if top < 0 or left < 0 or top + crop.shape[0] > height or left + crop.shape[1] > width:
            raise ShapeError(
                f"crop {i} of {crop.shape[0]}x{crop.shape[1]} at row {top}, column {left} leaves the "
                f"{height}x{width} image (h x w): cut it to the image first"
            )
    return runs_to_rles(crop_runs(crops, corners_yx, size_hw), len(crops), size_hw)


def label_map_to_rles(labels: Integer[np.ndarray, "h w"], num_labels: int) -> list[Rle]:
    """RLEs of the labels 1 to `num_labels`, in that order; 0 is background. A label no pixel shows is empty.

    One pass over the map, however many labels there are. A label outside 0..num_labels is a ShapeError.
    """
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > num_labels:
        raise ShapeError(
            f"label map holds labels {low}..{high}: expected 0..{num_labels}; pass the largest label"
        )
    return runs_to_rles(label_runs(labels), num_labels, labels.shape)


def runs_to_rles(runs: Runs, num_owners: int, size_hw: tuple[int, ...]) -> list[Rle]:
    """RLEs of the owners 0 to `num_owners` - 1 of column-major runs."""
    height, width = size_hw
    counts, num_counts = run_counts(runs, num_owners, height * width)
    return [Rle((height, width), text) for text in compress_counts(counts, num_counts)]


def rle_to_counts(rle: Rle) -> Int64[np.ndarray, "n"]:
    """Uncompressed counts: unset, set, unset, ... ShapeError when they are no mask of the RLE's size."""
    return decompress_counts(rle.counts, rle.size_hw)


def counts_to_rle(counts: Sequence[int], size_hw: tuple[int, int]) -> Rle:
    """Uncompressed COCO counts (`iscrowd` regions use them) to compressed RLE without empty runs."""
    height, width = size_hw
    sized = Rle((height, width), "")
    try:
        given = np.asarray(counts, np.int64) if len(counts) else np.zeros(0, np.int64)
    except (OverflowError, TypeError, ValueError) as error:
        raise ShapeError(f"RLE counts of a {height}x{width} mask are not whole numbers: {error}") from error
    return runs_to_rles(_counts_to_runs(checked_counts(given, sized.size_hw)), 1, size_hw)[0]


def rle_to_mask(rle: Rle) -> Bool[np.ndarray, "h w"]:
    """The mask, as a column-major view. Raises ShapeError for counts that are no mask of the RLE's size."""
    counts = rle_to_counts(rle)
    is_set = np.arange(len(counts)) % 2 == 1
    height, width = rle.size_hw
    return np.repeat(is_set, counts).reshape(width, height).T


def rle_from_coco(segmentation: Mapping[str, Any]) -> Rle:
    """COCO's `segmentation` with compressed or uncompressed counts, checked."""
    try:
        size, counts = segmentation["size"], segmentation["counts"]
        height, width = (int(side) for side in size)
    except (KeyError, TypeError, ValueError) as error:
        raise ShapeError(
            f"COCO segmentation needs 'size': [height, width] and 'counts': {error!r}; polygons are not RLE"
        ) from error
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    if not isinstance(counts, str):
        return counts_to_rle(counts, (height, width))
    rle = Rle((height, width), counts)
    rle_to_counts(rle)
    return rle


def rle_runs(rle: Rle) -> Runs:
    """Runs of set pixels, all of owner 0."""
    return _counts_to_runs(rle_to_counts(rle))


def _counts_to_runs(counts: Int64[np.ndarray, "n"]) -> Runs:
    ends = np.cumsum(counts)[1::2]
    starts = ends - counts[1::2]
    is_some = ends > starts
    return joined_runs(starts[is_some], ends[is_some], np.zeros(int(is_some.sum()), np.int64))


def rle_area(rle: Rle) -> int:
    """Set pixels."""
    return int(rle_to_counts(rle)[1::2].sum())


def rle_box_xywh(rle: Rle) -> tuple[float, float, float, float]:
    """COCO's tight box in pixels; zeros for an empty mask."""
    box = boxes_xyxy_to_xywh(run_boxes_xyxy(rle_runs(rle), 1, rle.size_hw[0]))[0]
    x, y, width, height = box.astype(float).tolist()
    return x, y, width, height


def merge_rles(rles: Sequence[Rle], *, intersect: bool = False) -> Rle:
    """The union of masks of one size, or what they all share."""
    sizes = {rle.size_hw for rle in rles}
    if len(sizes) != 1:
        raise ShapeError(f"merging needs one or more RLEs of one size, got sizes {sorted(sizes)}")
    runs = [rle_runs(rle) for rle in rles]
    places = np.concatenate([r.starts for r in runs] + [r.ends for r in runs])
    steps = np.repeat([1, -1], len(places) // 2)
    places, which = np.unique(places, return_inverse=True)
    depth = np.cumsum(np.bincount(which, weights=steps, minlength=len(places)))
    is_in = depth >= (len(rles) if intersect else 1)
    changes = places[np.diff(is_in, prepend=False)]
    starts, ends = changes[::2], changes[1::2]
    return runs_to_rles(joined_runs(starts, ends, np.zeros(len(starts), np.int64)), 1, sizes.pop())[0]
