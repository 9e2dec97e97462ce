"""Do two segmenters say the same? By image and by region, from their class maps. Axes: h w pixels, R regions.

Not measured: whether they are right. Two segmenters of one family make the same mistakes; an agreement says how far one
may lean on the other only once it is set against truth or an audit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.class_map import ClassMap
from ovsops.masks.components import Connectivity, connected_components
from ovsops.masks.regions import Region, RegionClass
from ovsops.masks.run_overlaps import run_overlaps, runs_of_rles
from ovsops.masks.runs import label_runs, run_areas
from ovsops.regions.reasons import SEGMENTERS_DISAGREE

R = TypeVar("R", bound=Region)


@dataclass(frozen=True, kw_only=True)
class AgreementConfig:
    """What counts as agreement of a region."""

    measure: Literal["iou", "share"] = "iou"
    """`iou`: of the region and what the second segmenter shows of its class there. `share`: of the region's pixels that
    the second segmenter gives to its class; blind to a second mask that is larger."""
    min_agreement: float = 0.5
    """`R_SEGMENTERS_DISAGREE` below this."""
    connectivity: Connectivity = 8
    """4 or 8: what a connected part of a thing class in the second map is."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_agreement <= 1:
            raise ConfigError(f"agreement: min_agreement {self.min_agreement} is a share: expected 0 to 1")


@dataclass(frozen=True, kw_only=True)
class RegionAgreement:
    """What a second segmenter says of one region of the first."""

    share: float
    """Share of the region's pixels that the second gives to the same class."""
    iou: float
    """IoU of the region with the second's mask of its class: all of it for stuff, for a thing the connected parts that
    share a pixel with the region."""


def map_agreement(first: ClassMap, second: ClassMap) -> float:
    """Share of the pixels on which two maps of one vocabulary agree, of those that either gives a class; else nan."""
    _check_sizes(first.labels.shape, second)
    claimed = (first.labels > 0) | (second.labels > 0)
    if not claimed.any():
        return float("nan")
    return float((first.labels == second.labels)[claimed].mean())


def region_agreements(
    regions: Sequence[Region],
    second: ClassMap,
    classes: Sequence[RegionClass],
    config: AgreementConfig | None = None,
) -> list[RegionAgreement]:
    """Agreement of each region (of the first map, or an instance) with a second map of the same classes and size."""
    config = config or AgreementConfig()
    if not regions:
        return []
    _check_sizes(regions[0].rle.size_hw, second)
    if int(second.labels.max(initial=0)) > len(classes):
        raise ShapeError(
            f"second class map: label {int(second.labels.max())} of {len(classes)} classes; it was made with a larger"
            " vocabulary"
        )
    by_id = {c.id: place for place, c in enumerate(classes, start=1)}
    unknown = {region.category_id for region in regions} - by_id.keys()
    if unknown:
        raise ShapeError(f"regions of categories {sorted(unknown)}: the vocabulary has {sorted(by_id)}")
    region_labels = np.array([by_id[region.category_id] for region in regions])

    is_thing = np.array([False, *(c.kind == "thing" for c in classes)])
    # Pieces of the second map: connected parts of things, then whole classes of stuff.
    things = np.where(is_thing[second.labels], second.labels, 0).astype(np.uint16)
    parts = connected_components(things, config.connectivity).astype(np.int64)
    num_parts = int(parts.max(initial=0))
    pieces = np.where(is_thing[second.labels] | (second.labels == 0), parts, num_parts + second.labels)
    num_pieces = num_parts + len(classes)
    piece_labels = np.zeros(num_pieces, np.int64)
    shown = pieces > 0
    piece_labels[pieces[shown] - 1] = second.labels[shown]

    piece_runs = label_runs(pieces)
    piece_areas = run_areas(piece_runs, num_pieces)
    mine = runs_of_rles([region.rle for region in regions])
    owners, theirs, shared = run_overlaps(mine, piece_runs)
    same = piece_labels[theirs] == region_labels[owners]
    keys, members = np.unique(owners[same] * num_pieces + theirs[same], return_inverse=True)
    pair_regions, pair_pieces = np.divmod(keys, num_pieces)
    sums = np.bincount(members, weights=shared[same], minlength=len(keys))
    num = len(regions)
    same_pixels = np.bincount(pair_regions, weights=sums, minlength=num)
    reached = np.bincount(pair_regions, weights=piece_areas[pair_pieces], minlength=num)
    areas = run_areas(mine, num)
    union = areas + reached - same_pixels
    shares, ious = same_pixels / np.maximum(areas, 1), same_pixels / np.maximum(union, 1)
    return [
        RegionAgreement(share=share, iou=iou)
        for share, iou in zip(shares.tolist(), ious.tolist(), strict=True)
    ]


def with_agreement(
    regions: Sequence[R],
    second: ClassMap,
    classes: Sequence[RegionClass],
    config: AgreementConfig | None = None,
) -> list[R]:
    """The regions with their `agreement`, and `R_SEGMENTERS_DISAGREE` where it is low. Order and everything else stay.

    For regions of class maps; an instance's `agreement` is that of its box and mask, which this would overwrite.
    """
    config = config or AgreementConfig()
    found = []
    for region, says in zip(regions, region_agreements(regions, second, classes, config), strict=True):
        agreement = says.iou if config.measure == "iou" else says.share
        codes = {SEGMENTERS_DISAGREE} if agreement < config.min_agreement else set()
        reasons = tuple(sorted(set(region.reasons) | codes))
        found.append(replace(region, agreement=agreement, reasons=reasons))
    return found


def _check_sizes(size_hw: tuple[int, ...], second: ClassMap) -> None:
    if tuple(size_hw) != second.labels.shape:
        raise ShapeError(
            f"second class map is {second.labels.shape}, the first {tuple(size_hw)} (h, w): label the same image"
        )
