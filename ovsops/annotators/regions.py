"""From what was said of an image to its regions: instances of boxes, stuff of the map, what only one of both saw.

Axes: h w pixels, N boxes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import UInt16

from ovsops.backbones.detections import Detections
from ovsops.errors import ShapeError
from ovsops.masks.class_map import BACKGROUND, ClassMap
from ovsops.masks.regions import Region, RegionClass, RegionConfig, count_things, find_regions
from ovsops.masks.rle import Rle
from ovsops.masks.run_overlaps import runs_of_rles
from ovsops.masks.runs import run_pixels
from ovsops.regions.agreement import AgreementConfig, with_agreement
from ovsops.regions.box_masks import (
    BoxMasks,
    ClassMapMaskConfig,
    masks_from_boxes,
    masks_from_class_map,
)
from ovsops.regions.instances import Instance, InstanceConfig, build_instances
from ovsops.regions.reasons import NO_BOX


@dataclass(frozen=True, kw_only=True)
class InstancesConfig:
    """From boxes to instances."""

    masks: ClassMapMaskConfig = field(default_factory=ClassMapMaskConfig)
    """How a box and the segmenter's map make a mask."""
    checks: InstanceConfig = field(default_factory=InstanceConfig)
    """Which masks are one thing, and when an instance carries a code."""
    things_without_box: Literal["drop", "keep"] = "drop"
    """What becomes of things of the segmenter's map that no box covers: left out and counted, or regions of their own
    that carry `R_NO_BOX`."""


@dataclass(frozen=True, kw_only=True)
class CutRegion:
    """A region, and whose it is."""

    region: Region
    box: int | None = None
    """Place of its box among those that were given; None for what the segmenter alone saw."""
    agreement: float | None = None
    """IoU of the detector's box and the mask's tight box."""
    agreement_other: float | None = None
    """Of a second segmenter."""


@dataclass(frozen=True, kw_only=True)
class CutRegions:
    """The regions of an image, and how many were left out."""

    regions: tuple[CutRegion, ...]
    """Instances best first, then what the segmenter alone saw."""
    dropped: Mapping[str, int]


def cut_regions(
    class_map: ClassMap | None,
    classes: Sequence[RegionClass],
    *,
    size_hw: tuple[int, int],
    regions: RegionConfig,
    boxes: Detections | None = None,
    box_masks: Sequence[Rle | None] = (),
    instances: InstancesConfig | None = None,
    other: UInt16[np.ndarray, "h w"] | None = None,
    agreement: AgreementConfig | None = None,
) -> CutRegions:
    """Everything of an image that becomes a row. Without `boxes`, the regions of the map.

    With boxes, things are their instances: masks from the boxes' finder (`box_masks`, all or none), from the map, or
    the box itself; stuff comes from the map. `other` is a second segmenter's map of the same classes.
    """
    second = None if other is None else ClassMap(labels=other, scores=np.zeros(size_hw, np.float32))
    dropped: Counter[str] = Counter()
    cut: list[CutRegion] = []
    if boxes is not None:
        config = instances or InstancesConfig()
        masks = _masks(boxes, box_masks, class_map, classes, size_hw, config)
        theirs = None if second is None else masks_from_class_map(boxes, second, classes, config.masks)
        found = build_instances(boxes, masks, classes, config.checks, second=theirs)
        cut += [
            CutRegion(region=i, box=i.detection, agreement=i.agreement, agreement_other=i.mask_agreement)
            for i in found.instances
        ]
        dropped += Counter(found.dropped)
        if class_map is not None:
            class_map, num_uncovered = _left_over(class_map, classes, found.instances, regions, config)
            dropped += Counter({NO_BOX: num_uncovered})
    if class_map is not None:
        of_map = find_regions(class_map, classes, regions)
        dropped += Counter(of_map.dropped)
        left = of_map.regions if boxes is None else _passed_over(of_map.regions, classes)
        if second is not None:
            left = with_agreement(left, second, classes, agreement)
        cut += [CutRegion(region=region, agreement_other=region.agreement) for region in left]
    return CutRegions(regions=tuple(cut), dropped=dict(+dropped))


def _masks(
    boxes: Detections,
    own: Sequence[Rle | None],
    class_map: ClassMap | None,
    classes: Sequence[RegionClass],
    size_hw: tuple[int, int],
    config: InstancesConfig,
) -> BoxMasks:
    drawn = [mask for mask in own if mask is not None]
    if drawn:
        if len(drawn) != len(boxes):
            raise ShapeError(
                f"{len(drawn)} of {len(boxes)} boxes have a mask of their own: who draws masks draws one for every"
                " box, and leaves out boxes for which there is none"
            )
        nothing = np.full(len(drawn), np.nan)
        return BoxMasks(size_hw=size_hw, rles=tuple(drawn), scores=nothing, reasons=((),) * len(drawn))
    if class_map is not None:
        return masks_from_class_map(boxes, class_map, classes, config.masks)
    return masks_from_boxes(boxes, size_hw)


def _left_over(
    class_map: ClassMap,
    classes: Sequence[RegionClass],
    instances: Sequence[Instance],
    regions: RegionConfig,
    config: InstancesConfig,
) -> tuple[ClassMap, int]:
    """The map without what instances cover, and without things where those are dropped; how many those were."""
    labels = class_map.labels.copy()
    columns, rows = np.divmod(run_pixels(runs_of_rles([each.rle for each in instances])), len(labels))
    labels[rows, columns] = BACKGROUND
    if config.things_without_box == "keep":
        return replace(class_map, labels=labels), 0
    is_thing = np.array([False, *(c.kind == "thing" for c in classes)])[labels]
    num_things = count_things(np.where(is_thing, labels, BACKGROUND).astype(np.uint16), regions)
    return replace(class_map, labels=np.where(is_thing, BACKGROUND, labels).astype(np.uint16)), num_things


def _passed_over(found: Sequence[Region], classes: Sequence[RegionClass]) -> Sequence[Region]:
    """Regions of the map with `R_NO_BOX` for things: a detector passed them over."""
    kinds = {c.id: c.kind for c in classes}
    return [
        replace(r, reasons=tuple(sorted({*r.reasons, NO_BOX}))) if kinds[r.category_id] == "thing" else r
        for r in found
    ]
