"""Masks to polygons with holes and back, exact. Axes: h w pixels, n edges.

Polygons run along pixel edges: pixel (row, column) is the unit square from (column, row). A pixel belongs to a
polygon when its centre does, so a mask's polygons give the same mask back. Parts of a mask that touch at a
corner only are separate polygons.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Int8, Int64

from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.boxes import mask_to_box_xyxy


@dataclass(frozen=True, kw_only=True)
class PolygonConfig:
    """How masks become COCO polygons."""

    simplify_tolerance_px: float = 0.0
    """Corners may move by up to this many pixels so that fewer are needed; 0 keeps the mask exactly. On smooth
    blobs 0.5 left 80 % of the corners at an IoU of 1.0, 0.75 40 % at 0.99, 1.0 16 % at 0.98."""

    def __post_init__(self) -> None:
        if not 0 <= self.simplify_tolerance_px < float("inf"):
            raise ConfigError(
                f"polygons: simplify_tolerance_px {self.simplify_tolerance_px}: expected 0 or a number of pixels"
            )


@dataclass(frozen=True, kw_only=True)
class CocoPolygons:
    """COCO's polygon form of one mask."""

    rings: list[list[float]]
    """Each [x0, y0, x1, y1, ...], simple and without holes; the mask is their union."""
    iou: float
    """Of the mask with the rings drawn back as pixels: 1.0 when nothing was lost."""


def mask_to_polygons(mask: Bool[np.ndarray, "h w"]) -> shapely.MultiPolygon:
    """The exact outline of a mask, holes as interior rings. An empty mask is an empty MultiPolygon."""
    box = mask_to_box_xyxy(mask)
    if box is None:
        return shapely.MultiPolygon()
    x0, y0, x1, y1 = box
    crop = mask[y0:y1, x0:x1]
    padded = np.pad(crop, 1).astype(np.int8)
    across = _edge_segments(np.diff(padded, axis=0)[:, 1:-1])
    down = _edge_segments(np.diff(padded, axis=1)[1:-1].T)[:, :, ::-1]
    corner = np.array([x0, y0], np.float64)
    segments = shapely.linestrings(np.concatenate([across, down]) + corner)
    faces = shapely.get_parts(shapely.polygonize(segments))
    inside = shapely.get_coordinates(shapely.point_on_surface(faces)).astype(int)  # faces are mask or hole
    return shapely.MultiPolygon(list(faces[mask[inside[:, 1], inside[:, 0]]]))


def _edge_segments(steps: Int8[np.ndarray, "rows columns"]) -> Int64[np.ndarray, "n 2 2"]:
    """Ends (x, y) of the longest stretches of equal steps, other than 0, in each row."""
    padded = np.pad(steps, ((0, 0), (1, 1)))
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    begins = np.flatnonzero(padded[rows, columns + 1])
    rows, starts, ends = rows[begins], columns[begins], columns[begins + 1]
    return np.stack([np.stack([starts, rows], axis=1), np.stack([ends, rows], axis=1)], axis=1)


def polygons_to_mask(
    polygons: shapely.Polygon | shapely.MultiPolygon, size_hw: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """The pixels whose centres lie in the polygons, holes left out. What lies outside the image is cut off."""
    coordinates, ring_of = shapely.get_coordinates(
        shapely.get_rings(shapely.get_parts(polygons)), return_index=True
    )
    return _filled(coordinates, ring_of, size_hw)


def coco_polygons_to_mask(rings: list[list[float]], size_hw: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The union of COCO rings, by pixel centres. Raises ShapeError for a ring that is no polygon."""
    mask = np.zeros(size_hw, np.bool_)
    for i, ring in enumerate(rings):
        if len(ring) < 6 or len(ring) % 2 or not np.isfinite(ring).all():
            raise ShapeError(
                f"COCO polygon {i} has {len(ring)} numbers: expected x and y, finite, of three corners or more"
            )
        corners = np.asarray(ring, np.float64).reshape(-1, 2)
        closed = np.concatenate([corners, corners[:1]])
        x0, y0 = np.clip(np.floor(corners.min(axis=0)), 0, size_hw[::-1]).astype(int).tolist()
        x1, y1 = np.clip(np.ceil(corners.max(axis=0)), 0, size_hw[::-1]).astype(int).tolist()
        inside = _filled(closed - np.array([x0, y0]), np.zeros(len(closed), np.int64), (y1 - y0, x1 - x0))
        mask[y0:y1, x0:x1] |= inside
    return mask


def _filled(
    coordinates: Float64[np.ndarray, "n 2"], ring_of: Int64[np.ndarray, "n"], size_hw: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """Pixels whose centres have an odd number of ring edges to their left."""
    height, width = size_hw
    is_edge = ring_of[1:] == ring_of[:-1]
    (xa, ya), (xb, yb) = coordinates[:-1][is_edge].T, coordinates[1:][is_edge].T
    low, high = np.minimum(ya, yb), np.maximum(ya, yb)
    first_rows = np.clip(np.ceil(low - 0.5), 0, height).astype(np.int64)  # centres in low <= y < high
    num_rows = np.clip(np.ceil(high - 0.5), 0, height).astype(np.int64) - first_rows
    edge = np.repeat(np.arange(len(xa)), num_rows)
    rows = first_rows[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(num_rows) - num_rows, num_rows)
    slope = (xb - xa)[edge] / (yb - ya)[edge]
    crossings = xa[edge] + (rows + 0.5 - ya[edge]) * slope
    columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)
    flips = np.zeros((height, width + 1), np.int32)
    np.add.at(flips, (rows, columns), 1)
    return np.cumsum(flips, axis=1)[:, :width] % 2 == 1


def mask_to_coco_polygons(mask: Bool[np.ndarray, "h w"], config: PolygonConfig) -> CocoPolygons:
    """COCO polygons of a mask, cut through its holes, and how true they are.

    COCO reads several rings as a union and has no holes: a hole given as a ring of its own would be filled and
    counted twice. A mask that simplification makes vanish keeps its exact outline.
    """
    polygons: shapely.Geometry = mask_to_polygons(mask)
    if config.simplify_tolerance_px and not polygons.is_empty:
        simpler = _polygonal(
            shapely.make_valid(
                shapely.simplify(polygons, config.simplify_tolerance_px, preserve_topology=True)
            )
        )
        polygons = polygons if simpler.is_empty else simpler
    rings = polygons_to_coco(_polygonal(polygons))
    drawn = coco_polygons_to_mask(rings, (mask.shape[0], mask.shape[1]))
    union = int((mask | drawn).sum())
    return CocoPolygons(rings=rings, iou=int((mask & drawn).sum()) / union if union else 1.0)


def polygons_to_coco(polygons: shapely.Polygon | shapely.MultiPolygon) -> list[list[float]]:
    """Rings without holes whose union is the polygons: those with holes are cut along lines down their holes."""
    waiting = [part for part in shapely.get_parts(polygons)[::-1] if not part.is_empty]
    rings = []
    while waiting:
        polygon = waiting.pop()
        if len(polygon.interiors) == 0:
            rings.append(shapely.get_coordinates(polygon.exterior)[:-1].ravel().tolist())
        else:
            waiting.extend(_cut_in_two(polygon)[::-1])
    return rings


def _cut_in_two(polygon: shapely.Polygon) -> list[shapely.Polygon]:
    """The parts left and right of a line through the middle hole: it opens, others move to one side."""
    holes = sorted(polygon.interiors, key=lambda ring: ring.bounds)
    x = _opening(holes[len(holes) // 2])
    x0, y0, x1, y1 = polygon.bounds
    halves = [
        shapely.intersection(polygon, shapely.box(*side)) for side in ((x0, y0, x, y1), (x, y0, x1, y1))
    ]
    return [part for half in halves for part in shapely.get_parts(_polygonal(half))]


def _opening(hole: shapely.LinearRing) -> float:
    """Where a line down a hole opens it: on a pixel edge if one will do, so that no pixel centre is cut."""
    columns = shapely.get_coordinates(hole)[:-1, 0]
    left, right = columns.min(), columns.max()
    if (columns == left).sum() > 1:
        return float(left)  # its left side lies on the line
    middle = (left + right) / 2
    return float(np.floor(middle)) if np.floor(middle) > left else float(middle)


def _polygonal(geometry: shapely.Geometry) -> shapely.MultiPolygon:
    """The areas of a geometry; lines and points that an overlay or a repair leaves behind have none."""
    parts = [geometry]
    while any(isinstance(part, shapely.GeometryCollection | shapely.MultiPolygon) for part in parts):
        parts = [piece for part in parts for piece in shapely.get_parts(part)]
    return shapely.MultiPolygon(
        [part for part in parts if isinstance(part, shapely.Polygon) and part.area > 0]
    )
