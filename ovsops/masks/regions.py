"""Class maps to regions with exact RLE: things by connected parts, stuff whole. Axes: h w pixels, n parts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt16, UInt32

from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.boxes import boxes_xyxy_to_xywh
from ovsops.masks.class_map import ClassMap
from ovsops.masks.components import Connectivity, connected_components, fill_holes, nearest_owner
from ovsops.masks.rle import Rle, runs_to_rles
from ovsops.masks.runs import label_runs, run_areas, run_boxes_xyxy

CAPPED = "R_CAPPED"
"""The image had more regions than `max_regions`; this one is among the largest, which were kept."""
HOLES_FILLED = "R_HOLES_FILLED"
"""Holes of the region were filled: it covers pixels that its class did not win."""
ISLANDS_JOINED = "R_ISLANDS_JOINED"
"""Parts too small to stand alone were joined to this region, the nearest of their class."""
TOO_SMALL = "R_TOO_SMALL"
"""Why regions were dropped: below the smallest size."""
OVER_CAP = "R_OVER_CAP"
"""Why regions were dropped: the image had `max_regions` larger ones."""


@dataclass(frozen=True, kw_only=True)
class RegionConfig:
    """Which regions a class map is cut into."""

    min_region_share: float = 0.0005
    """Regions below this share of the image's pixels are too small."""
    min_region_pixels: int = 1
    """Regions of fewer pixels are too small, however small the image."""
    connectivity: Connectivity = 8
    """4 or 8: whether pixels of a thing that touch at a corner only are one region."""
    islands: Literal["drop", "join"] = "drop"
    """What becomes of parts of a thing that are too small: dropped, or joined to the nearest region of the class
    (dropped where it has none). Stuff is one region, islands and all."""
    max_hole_pixels: int = 0
    """Holes of up to this many pixels are filled, unless another region lies in them; 0 keeps every hole."""
    max_regions: int = 1000
    """Regions kept of an image, the largest first; the kept ones of such an image carry `R_CAPPED`."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_region_share <= 1:
            raise ConfigError(
                f"regions: min_region_share {self.min_region_share} is a share: expected 0 to 1"
            )
        for name, least in (("min_region_pixels", 1), ("max_hole_pixels", 0), ("max_regions", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"regions: {name} {getattr(self, name)}: expected at least {least}")


@runtime_checkable
class RegionClass(Protocol):
    """What regions need to know of a class of the vocabulary."""

    @property
    def id(self) -> int:
        """Category id, at least 1."""

    @property
    def kind(self) -> str:
        """`thing` or `stuff`."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """One thing, or all of one stuff, in an image."""

    category_id: int
    rle: Rle
    bbox_xywh: tuple[float, float, float, float]
    """Tight box in pixels, COCO's form."""
    area: int
    """Pixels of the mask."""
    score: float
    """Mean of the winning scores over the pixels that the class won; filled holes do not count."""
    agreement: float | None = None
    """How far a second source says the same, in [0, 1]; None where none was asked."""
    reasons: tuple[str, ...] = ()
    """What was done to the region or its image (`R_...`), sorted."""


@dataclass(frozen=True, kw_only=True)
class FoundRegions:
    """The regions of an image, and how many were left out."""

    regions: tuple[Region, ...] = ()
    """In order of class, then largest first, then top row, then left column."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Regions left out, counted by reason."""


def class_map_to_regions(
    class_map: ClassMap, classes: Sequence[RegionClass], config: RegionConfig
) -> list[Region]:
    """The regions of `find_regions`."""
    return list(find_regions(class_map, classes, config).regions)


def find_regions(class_map: ClassMap, classes: Sequence[RegionClass], config: RegionConfig) -> FoundRegions:
    """Cut a class map into regions. Label j of the map is the j-th of `classes`; ShapeError for a label beyond.

    No region overlaps another. The result depends on the map alone: same map, same regions, same order.
    """
    labels = class_map.labels
    _check_labels(labels, len(classes))
    parts = connected_components(labels, config.connectivity)
    part_classes = np.zeros(int(parts.max(initial=0)) + 1, np.int64)
    if len(part_classes) == 1:
        return FoundRegions()
    flat = parts.ravel()  # counted over runs of equal pixels: there are hundreds of times fewer of them
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size)
    run_parts = flat[starts]
    part_classes[run_parts] = labels.ravel()[starts]
    part_areas = np.bincount(run_parts, weights=lengths)
    run_scores = np.add.reduceat(class_map.scores.ravel(), starts, dtype=np.float64)
    part_scores = np.bincount(run_parts, weights=run_scores)

    owners = _owners(part_classes, classes)
    areas = np.bincount(owners, weights=part_areas).astype(np.int64)
    areas[0] = 0
    is_kept = areas >= _least_area(labels.size, config)
    num_small = int((~is_kept[1:]).sum())
    has_islands = np.zeros(len(areas), np.bool_)
    if config.islands == "join" and num_small:
        owners, has_islands, num_joined = _join_islands(parts, part_classes, owners, is_kept)
        num_small -= num_joined
        areas = np.bincount(owners, weights=part_areas, minlength=len(areas)).astype(np.int64)

    kept = np.flatnonzero(is_kept)
    num_over = max(0, len(kept) - config.max_regions)
    if num_over:
        kept = np.sort(kept[np.argsort(-areas[kept], kind="stable")[: config.max_regions]])
    dropped = {reason: n for reason, n in ((OVER_CAP, num_over), (TOO_SMALL, num_small)) if n}
    if len(kept) == 0:
        return FoundRegions(dropped=dropped)

    region_of_owner = np.zeros(len(areas), np.uint32)
    region_of_owner[kept] = np.arange(1, len(kept) + 1)
    region_of_part = region_of_owner[owners]
    region_map = np.repeat(region_of_part[run_parts], lengths).reshape(parts.shape)
    if config.max_hole_pixels:
        region_map = fill_holes(
            region_map, max_hole_pixels=config.max_hole_pixels, connectivity=config.connectivity
        )
    region_classes = np.zeros(len(kept) + 1, np.int64)
    region_classes[region_of_part] = part_classes
    regions = _regions(
        region_map,
        won_areas=areas[kept],
        score_sums=np.bincount(region_of_part, weights=part_scores, minlength=len(kept) + 1)[1:],
        region_classes=region_classes[1:] - 1,
        has_islands=has_islands[kept],
        is_capped=num_over > 0,
        classes=classes,
    )
    return FoundRegions(regions=regions, dropped=dropped)


def count_things(things: UInt16[np.ndarray, "h w"], config: RegionConfig) -> int:
    """How many regions `find_regions` would keep of a map of things alone, without making them."""
    parts = connected_components(things, config.connectivity)
    areas = np.bincount(parts.ravel())[1:]
    return min(int((areas >= _least_area(things.size, config)).sum()), config.max_regions)


def _least_area(num_pixels: int, config: RegionConfig) -> int:
    """Pixels that a region needs in an image of so many."""
    return max(config.min_region_pixels, math.ceil(config.min_region_share * num_pixels))


def _check_labels(labels: UInt16[np.ndarray, "h w"], num_classes: int) -> None:
    highest = int(labels.max(initial=0))
    if highest > num_classes:
        raise ShapeError(
            f"class map: label {highest} of {num_classes} classes; it was made with a larger vocabulary"
        )


def _owners(part_classes: Int64[np.ndarray, "n"], classes: Sequence[RegionClass]) -> Int64[np.ndarray, "n"]:
    """The region that each part would belong to: its own for a thing, its class's for stuff. Part 0 owns 0."""
    is_stuff = np.array([False, *(c.kind == "stuff" for c in classes)])
    alone = len(is_stuff) + np.arange(len(part_classes))
    alone[0] = 0
    return np.unique(np.where(is_stuff[part_classes], part_classes, alone), return_inverse=True)[1]


def _join_islands(
    parts: UInt32[np.ndarray, "h w"],
    part_classes: Int64[np.ndarray, "n"],
    owners: Int64[np.ndarray, "n"],
    is_kept: Bool[np.ndarray, "m"],
) -> tuple[Int64[np.ndarray, "n"], Bool[np.ndarray, "m"], int]:
    """Owners with the small parts of each class given to its nearest kept region; who got some; how many."""
    owners = owners.copy()
    has_islands = np.zeros(len(is_kept), np.bool_)
    is_island = ~is_kept[owners]
    is_island[0] = False
    num_joined = 0
    for label in np.unique(part_classes[is_island]):
        of_class = part_classes == label
        if not (of_class & ~is_island).any():
            continue
        number = np.arange(len(owners), dtype=np.uint32)
        islands = np.where(of_class & is_island, number, 0)[parts]
        standing = np.where(of_class & ~is_island, owners, 0).astype(np.uint32)[parts]
        joined, new_owners = nearest_owner(islands, standing)
        owners[joined] = new_owners
        has_islands[new_owners] = True
        num_joined += len(joined)
    return owners, has_islands, num_joined


def _regions(
    region_map: UInt32[np.ndarray, "h w"],
    *,
    won_areas: Int64[np.ndarray, "k"],
    score_sums: Float64[np.ndarray, "k"],
    region_classes: Int64[np.ndarray, "k"],
    has_islands: Bool[np.ndarray, "k"],
    is_capped: bool,
    classes: Sequence[RegionClass],
) -> tuple[Region, ...]:
    num_regions, height = len(won_areas), region_map.shape[0]
    runs = label_runs(region_map)
    rles = runs_to_rles(runs, num_regions, region_map.shape)
    areas = run_areas(runs, num_regions)
    boxes = boxes_xyxy_to_xywh(run_boxes_xyxy(runs, num_regions, height)).astype(float)
    first_pixels = runs.starts[np.unique(runs.owners, return_index=True)[1]]
    order = np.lexsort((first_pixels, boxes[:, 0], boxes[:, 1], -areas, region_classes))
    scores = score_sums / won_areas
    found = []
    for i in order.tolist():
        x, y, box_width, box_height = boxes[i].tolist()
        what_was_done = (
            (CAPPED, is_capped),
            (HOLES_FILLED, areas[i] > won_areas[i]),
            (ISLANDS_JOINED, has_islands[i]),
        )
        region = Region(
            category_id=classes[region_classes[i]].id,
            rle=rles[i],
            bbox_xywh=(x, y, box_width, box_height),
            area=int(areas[i]),
            score=float(scores[i]),
            reasons=tuple(reason for reason, is_so in what_was_done if is_so),
        )
        found.append(region)
    return tuple(found)
