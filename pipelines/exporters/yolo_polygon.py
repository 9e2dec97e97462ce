"""One polygon for a mask, as YOLO wants it, and what is lost by it. Axes: h w pixels, n corners.

YOLO's readers fill a polygon with the pixels inside it and those that its lines touch (OpenCV's `fillPoly`), and its
writers take corners from the outermost pixels of the mask (`findContours`): a corner is the index of a pixel, not a
point between pixels. A region without holes that hangs together comes back pixel by pixel. One polygon has to do for
a region, so parts and holes are joined by lines there and back, and the pixels of those lines are the loss.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Int64
from scipy.spatial import cKDTree

from ovsops.masks.polygons import coco_polygons_to_mask, mask_to_polygons

MAX_RINGS = 300
"""Outlines and holes that are joined, the largest; further ones are lost, which the IoU says. Joining takes time with
the square of their number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class YoloPolygon:
    """One mask as one polygon."""

    corners: Int64[np.ndarray, "n 2"]
    """x y of pixels; at least three, of which some are equal where the mask has fewer."""
    iou: float
    """Of the mask with the polygon drawn back."""
    num_parts: int
    num_holes: int


def mask_to_yolo_polygon(mask: Bool[np.ndarray, "h w"]) -> YoloPolygon | None:
    """The polygon of a mask; None for an empty one."""
    polygons = shapely.get_parts(mask_to_polygons(mask))
    if len(polygons) == 0:
        return None
    rings = [ring for polygon in polygons for ring in (polygon.exterior, *polygon.interiors)]
    corners = _joined([_pixels_along(ring, mask) for ring in _largest(rings)])
    if len(corners) < 3:
        corners = np.concatenate([corners, np.repeat(corners[-1:], 3 - len(corners), axis=0)])
    drawn = draw_polygon(corners, (mask.shape[0], mask.shape[1]))
    union = int((mask | drawn).sum())
    return YoloPolygon(
        corners=corners,
        iou=int((mask & drawn).sum()) / union,
        num_parts=len(polygons),
        num_holes=len(rings) - len(polygons),
    )


def draw_polygon(corners: Int64[np.ndarray, "n 2"], size_hw: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The pixels inside a polygon (even-odd) and on its lines."""
    mask = coco_polygons_to_mask([(corners + 0.5).ravel().tolist()], size_hw)
    ends = np.roll(corners, -1, axis=0)
    steps = np.abs(ends - corners).max(axis=1)
    line = np.repeat(np.arange(len(corners)), steps + 1)
    place = np.arange(len(line)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    share = place / np.maximum(steps[line], 1)
    points = np.floor(corners[line] + share[:, None] * (ends - corners)[line] + 0.5).astype(np.int64)
    mask[points[:, 1], points[:, 0]] = True
    return mask


def _pixels_along(ring: shapely.LinearRing, mask: Bool[np.ndarray, "h w"]) -> Int64[np.ndarray, "n 2"]:
    """The mask's pixels that a ring of pixel edges runs along: two for each edge, equal neighbours once."""
    points = shapely.get_coordinates(ring).astype(np.int64)
    start, end = points[:-1], points[1:]
    step = np.sign(end - start)
    is_across = step[:, 0] != 0
    first = np.minimum(start, end)  # the pixel right of and below the edge's first corner
    other_side = np.where(is_across[:, None], [[0, -1]], [[-1, 0]])
    height, width = mask.shape
    inside = ((first >= 0) & (first < [width, height])).all(axis=1)
    is_mask = np.zeros(len(first), np.bool_)
    is_mask[inside] = mask[first[inside, 1], first[inside, 0]]
    offset = np.where(is_mask[:, None], 0, other_side)
    begin = np.where((step < 0), start + step, start) + offset
    finish = np.where((step > 0), end - step, end) + offset
    pixels = np.stack([begin, finish], axis=1).reshape(-1, 2)
    is_new = (pixels != np.roll(pixels, 1, axis=0)).any(axis=1)
    return pixels[is_new] if is_new.any() else pixels[:1]


def _largest(rings: list[shapely.LinearRing]) -> list[shapely.LinearRing]:
    """At most `MAX_RINGS`, in their order."""
    if len(rings) <= MAX_RINGS:
        return rings
    kept = np.argsort(-shapely.area(shapely.polygons(rings)), kind="stable")[:MAX_RINGS]
    return [rings[place] for place in sorted(kept.tolist())]


def _joined(rings: Sequence[Int64[np.ndarray, "_ 2"]]) -> Int64[np.ndarray, "n 2"]:
    """One closed path over all rings: each is entered from the nearest corner of another, and left the same way."""
    points = np.concatenate(rings)
    ring_of = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    first_of = np.searchsorted(ring_of, np.arange(len(rings)))
    distance = np.full(len(points), np.inf)  # of each corner to the path so far
    entry = np.zeros(len(points), np.int64)  # the corner of the path that is nearest to it
    joints: dict[tuple[int, int], list[tuple[int, int]]] = {}
    newest = 0
    for _ in range(len(rings) - 1):  # Prim's algorithm
        distance[ring_of == newest] = -np.inf
        waiting = np.flatnonzero(distance >= 0)
        near = waiting[_distance_to_box(points[waiting], rings[newest]) < distance[waiting]]
        if len(near):
            found, place = cKDTree(rings[newest]).query(points[near])
            is_nearer = found < distance[near]
            distance[near[is_nearer]] = found[is_nearer]
            entry[near[is_nearer]] = first_of[newest] + place[is_nearer]
        own = int(waiting[np.argmin(distance[waiting])])
        newest, outer = int(ring_of[own]), int(ring_of[entry[own]])
        joint = outer, int(entry[own] - first_of[outer])
        joints.setdefault(joint, []).append((newest, int(own - first_of[newest])))
    return np.asarray(_walk(rings, joints), np.int64)


def _distance_to_box(
    points: Int64[np.ndarray, "n 2"], ring: Int64[np.ndarray, "_ 2"]
) -> Float64[np.ndarray, "n"]:
    """Of each point to the ring's bounding box: no corner of the ring is nearer."""
    gap = np.maximum(np.maximum(ring.min(axis=0) - points, points - ring.max(axis=0)), 0)
    return np.sqrt((gap * gap).sum(axis=1))


def _walk(
    rings: Sequence[Int64[np.ndarray, "_ 2"]], joints: dict[tuple[int, int], list[tuple[int, int]]]
) -> list[list[int]]:
    """Corners of all rings: at a joint, the other ring is gone around and the corner is said again."""
    path: list[list[int]] = []
    stack = [iter([(0, place) for place in range(len(rings[0]))])]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
            continue
        ring, place = step
        path.append(rings[ring][place].tolist())
        for joined, own in joints.pop(step, []):
            stack += [iter([step]), _around(joined, own, len(rings[joined]))]
    return path


def _around(ring: int, first: int, num_corners: int) -> Iterator[tuple[int, int]]:
    """The corners of a ring from `first` to `first`."""
    steps = num_corners + 1 if num_corners > 1 else 1
    return iter([(ring, (first + step) % num_corners) for step in range(steps)])
