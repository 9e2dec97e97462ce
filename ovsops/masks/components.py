"""Connected parts of label images, and the holes in them. Axes: h w pixels, n parts."""

from typing import Literal

import cc3d
import numpy as np
from jaxtyping import Int64, Integer, UInt32
from scipy import ndimage

Connectivity = Literal[4, 8]
"""Whether pixels that touch at a corner only hang together (8) or not (4)."""

_STEPS: dict[int, list[tuple[int, int]]] = {4: [(0, 1), (1, 0), (0, -1), (-1, 0)]}
_STEPS[8] = [*_STEPS[4], (1, 1), (1, -1), (-1, 1), (-1, -1)]


def connected_components(
    labels: Integer[np.ndarray, "h w"], connectivity: Connectivity
) -> UInt32[np.ndarray, "h w"]:
    """Parts of equal labels, numbered from 1; label 0 stays 0. Parts of different labels never join."""
    parts: np.ndarray = cc3d.connected_components(
        np.ascontiguousarray(labels), connectivity=connectivity, out_dtype=np.uint32
    )
    return parts


def fill_holes(
    regions: UInt32[np.ndarray, "h w"], *, max_hole_pixels: int, connectivity: Connectivity
) -> UInt32[np.ndarray, "h w"]:
    """Regions with their holes of up to `max_hole_pixels` filled.

    A hole is a part of the unset pixels that touches one region only and not the edge of the image. A hole with
    a region in it is none: no region ever grows over another.
    """
    around: Connectivity = 4 if connectivity == 8 else 8
    gaps = connected_components((regions == 0).astype(np.uint8), around)
    is_hole = np.bincount(gaps.ravel()) <= max_hole_pixels
    for edge in (gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]):
        is_hole[edge] = False
    is_hole[0] = False
    if not is_hole.any():
        return regions

    lowest = np.full(len(is_hole), np.iinfo(np.uint32).max, np.uint32)
    highest = np.zeros(len(is_hole), np.uint32)
    for dy, dx in _STEPS[around]:
        gap, region = _neighbours(gaps, dy, dx)[0], _neighbours(regions, dy, dx)[1]
        meets = is_hole[gap] & (region > 0)
        np.minimum.at(lowest, gap[meets], region[meets])
        np.maximum.at(highest, gap[meets], region[meets])
    owner_of_gap = np.where(is_hole & (lowest == highest), lowest, 0).astype(np.uint32)
    return np.where(regions == 0, owner_of_gap[gaps], regions)


def _neighbours(plane: np.ndarray, dy: int, dx: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that have a neighbour at (dy, dx), and those neighbours."""
    height, width = plane.shape
    here = plane[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
    there = plane[max(0, dy) : height - max(0, -dy), max(0, dx) : width - max(0, -dx)]
    return here, there


def nearest_owner(
    islands: UInt32[np.ndarray, "h w"], owners: UInt32[np.ndarray, "h w"]
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Numbers of the islands (0 is none), and the owner of the set pixel nearest to each.

    The distance is Euclidean between pixel centres; of several islands' pixels as near, the first row by row counts.
    """
    distances, places = ndimage.distance_transform_edt(owners == 0, return_indices=True)
    at = np.flatnonzero(islands)
    order = np.lexsort((distances.ravel()[at], islands.ravel()[at]))
    at = at[order]
    numbers, firsts = np.unique(islands.ravel()[at], return_index=True)
    at = at[firsts]
    rows, columns = places[0].ravel()[at], places[1].ravel()[at]
    return numbers.astype(np.int64), owners[rows, columns].astype(np.int64)
