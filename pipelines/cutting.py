"""Boxes as they travel, to regions with masks. Loads torch: `stages.encode` asks for it only where boxes are.

Axes: h w pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt16

from ovsops.annotators.regions import CutRegions, InstancesConfig, cut_regions
from ovsops.backbones.detections import Detections
from ovsops.masks.class_map import ClassMap
from ovsops.masks.regions import RegionConfig
from ovsops.masks.rle import Rle, rle_from_coco
from ovsops.regions.agreement import AgreementConfig
from pipelines.records import RegionClass


def cut_boxes(
    class_map: ClassMap | None,
    classes: Sequence[RegionClass],
    boxes: Sequence[Mapping[str, Any]] | None,
    *,
    size_hw: tuple[int, int],
    regions: RegionConfig,
    instances: InstancesConfig | None,
    other: UInt16[np.ndarray, "h w"] | None,
    agreement: AgreementConfig | None,
) -> CutRegions:
    """`ovsops.annotators.regions.cut_regions` of boxes that are records of `REGION`; None where nobody looked."""
    return cut_regions(
        class_map,
        classes,
        size_hw=size_hw,
        regions=regions,
        boxes=None if boxes is None else _detections(boxes, classes),
        box_masks=() if boxes is None else [_own_mask(box) for box in boxes],
        instances=instances,
        other=other,
        agreement=agreement,
    )


def _detections(boxes: Sequence[Mapping[str, Any]], classes: Sequence[RegionClass]) -> Detections:
    place = {c.id: label for label, c in enumerate(classes)}
    xywh = torch.tensor([box["bbox"] for box in boxes], dtype=torch.float32).reshape(-1, 4)
    return Detections(
        boxes_xyxy=torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1),
        scores=torch.tensor([box["score"] for box in boxes], dtype=torch.float32),
        labels=torch.tensor([place[box["category_id"]] for box in boxes], dtype=torch.int64),
    )


def _own_mask(box: Mapping[str, Any]) -> Rle | None:
    """The mask that a box came with."""
    return rle_from_coco(box["segmentation"]) if box["segmentation"]["counts"] else None
