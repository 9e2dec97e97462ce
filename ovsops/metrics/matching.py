"""Found objects matched with true ones, as COCO does it. Axes: N found, G true, T overlaps, A ranges of area.

Rules of pycocotools 2.0, the reference of Lin et al. (arXiv:1405.0312): found objects choose in order of score; each
takes the free true one of highest IoU that is not ignored, else an ignored one. A crowd may be taken often, and overlap
with it is the share of the found object that lies inside. What is matched with an ignored object, and what is unmatched
and outside the range of areas, counts neither way.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64
from pycocotools import mask as coco_masks

from ovsops.errors import ShapeError
from ovsops.masks.rle import Rle

HIT, MISS, IGNORED = 1, 0, -1
"""Outcomes of a found object."""


def box_ious(
    found_xyxy: Float64[np.ndarray, "N 4"],
    true_xyxy: Float64[np.ndarray, "G 4"],
    is_crowd: Bool[np.ndarray, " G"] | None = None,
) -> Float64[np.ndarray, "N G"]:
    """IoU of half-open boxes; with a crowd, intersection over the area of the found box. 0 where there is no area."""
    for what, boxes in (("found", found_xyxy), ("true", true_xyxy)):
        if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
            raise ShapeError(
                f"{what} boxes that are not finite or end before they begin: they are x0 y0 x1 y1"
            )
    corners = np.minimum(found_xyxy[:, None, 2:], true_xyxy[None, :, 2:])
    sides = (corners - np.maximum(found_xyxy[:, None, :2], true_xyxy[None, :, :2])).clip(min=0)
    shared = sides.prod(axis=2)
    own = box_areas(found_xyxy)[:, None]
    union = own + box_areas(true_xyxy)[None] - shared
    if is_crowd is not None:
        union = np.where(is_crowd[None], own, union)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def box_areas(boxes_xyxy: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, " N"]:
    """Areas in pixels."""
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)


def mask_ious(
    found: Sequence[Rle], true: Sequence[Rle], is_crowd: Bool[np.ndarray, " G"] | None = None
) -> Float64[np.ndarray, "N G"]:
    """IoU of masks, from their runs; with a crowd, intersection over the area of the found mask."""
    sizes = {rle.size_hw for rle in (*found, *true)}
    if len(sizes) > 1:
        raise ShapeError(f"masks of sizes {sorted(sizes)[:4]} (h x w) in one image: give masks of one size")
    if not found or not true:
        return np.zeros((len(found), len(true)))
    crowds = np.zeros(len(true), bool) if is_crowd is None else is_crowd
    one, two = ([rle.to_coco() for rle in rles] for rles in (found, true))
    return np.asarray(coco_masks.iou(one, two, crowds.astype(np.uint8).tolist()), np.float64)


def mask_areas(masks: Sequence[Rle]) -> Float64[np.ndarray, " N"]:
    """Areas in pixels."""
    return np.asarray(coco_masks.area([rle.to_coco() for rle in masks]) if masks else [], np.float64)


def match(
    ious: Float64[np.ndarray, "N G"],
    *,
    overlaps: Float64[np.ndarray, " T"],
    is_ignored: Bool[np.ndarray, "A G"],
    is_crowd: Bool[np.ndarray, " G"],
    is_outside: Bool[np.ndarray, "A N"],
) -> Int8[np.ndarray, "N A T"]:
    """Outcome of each found object, which stand in order of score.

    `is_ignored` says per range of areas which true objects do not count, `is_outside` which found ones lie outside it.
    """
    num_found, num_true = ious.shape
    num_ranges, num_overlaps = len(is_ignored), len(overlaps)
    outcome = np.full((num_found, num_ranges, num_overlaps), MISS, np.int8)
    outcome[np.broadcast_to(is_outside.T[:, :, None], outcome.shape)] = IGNORED
    is_taken = np.zeros((num_ranges, num_overlaps, num_true), bool)
    needed = np.minimum(overlaps, 1 - 1e-10)[None, :, None]
    reaches_any = ious.max(axis=1, initial=-1.0) >= needed.min(initial=2.0)
    for place in reaches_any.nonzero()[0]:
        is_candidate = (~is_taken | is_crowd) & (ious[place] >= needed)  # A T G
        counts = is_candidate & ~is_ignored[:, None]
        has_real = counts.any(axis=2)
        pool = np.where(has_real[:, :, None], counts, is_candidate)
        has_any = pool.any(axis=2)
        # Of equal overlaps the last one is taken, as the reference does.
        from_the_end = np.where(pool, ious[place], -1.0)[:, :, ::-1].argmax(axis=2)
        chosen = num_true - 1 - from_the_end
        ranges, levels = has_any.nonzero()
        is_taken[ranges, levels, chosen[ranges, levels]] = True
        outcome[place][has_real] = HIT
        outcome[place][has_any & ~has_real] = IGNORED
    return outcome


def by_score(scores: Float64[np.ndarray, " N"], limit: int | None) -> Int64[np.ndarray, " K"]:
    """Places of the best `limit` scores, best first; of equal scores the first comes first."""
    return np.argsort(-scores, kind="stable")[:limit]
