"""Boxes without a detector: connected regions of dense maps. Axes: C classes, H W grid of the maps, h w pixels.

Where a class's score stands above a threshold, each connected region gives a box. The result is `Detections`, so that
what follows (recalibration, masks, captions) does not know the difference. What a detector has and this has not: two
things of one class that touch are one box.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt32
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as linked
from torch import Tensor
from torch.nn import functional as F

from ovsops.backbones.detections import Detections, no_detections
from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.box_nms import box_iou, box_nms
from ovsops.masks.class_map import ClassMap
from ovsops.masks.components import Connectivity, connected_components
from ovsops.masks.regions import RegionClass
from ovsops.masks.runs import label_runs, run_areas, run_boxes_xyxy


@dataclass(frozen=True, kw_only=True)
class ProposalConfig:
    """Which connected regions become boxes."""

    threshold: float = 0.5
    """Similarity maps: a pixel belongs to a class at this score or more. Class maps have their own threshold."""
    relative_threshold: float | None = None
    """Similarity maps: and at this share of the class's best score in the image or more; None: no such test."""
    score: Literal["mean", "max"] = "mean"
    """Of a region's pixels: the score of its box."""
    connectivity: Connectivity = 8
    """4 or 8: whether pixels that touch at a corner only are one region."""
    min_pixels: int = 16
    """Regions of fewer pixels are no proposals."""
    min_share: float = 0.0005
    """Nor are regions below this share of the image's pixels."""
    merge_iou: float | None = 0.5
    """Boxes of one class with a larger IoU become one, their common box, with the better score; None: none do."""
    across_iou: float | None = None
    """Of boxes of any classes with a larger IoU the better stays; None: every class keeps its own."""
    max_per_class: int = 100
    """Boxes of a class, the best ones, before any are merged."""
    max_proposals: int = 300
    """Boxes of an image, the best ones."""

    def __post_init__(self) -> None:
        for name in ("threshold", "relative_threshold", "min_share", "merge_iou", "across_iou"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"proposals: {name} {value}: expected 0 to 1")
        for name in ("min_pixels", "max_per_class", "max_proposals"):
            if getattr(self, name) < 1:
                raise ConfigError(f"proposals: {name} {getattr(self, name)}: expected at least 1")


def proposals_from_class_map(
    class_map: ClassMap, classes: Sequence[RegionClass], config: ProposalConfig | None = None
) -> Detections:
    """A box for each connected region of the map's things; label i is the i-th of `classes`, from 0."""
    config = config or ProposalConfig()
    highest = int(class_map.labels.max(initial=0))
    if highest > len(classes):
        raise ShapeError(
            f"class map: label {highest} of {len(classes)} classes; it was made with a larger vocabulary"
        )
    is_thing = np.array([False, *(c.kind == "thing" for c in classes)])
    things = np.where(is_thing[class_map.labels], class_map.labels, 0).astype(np.uint16)
    parts = connected_components(things, config.connectivity)
    part_labels = np.zeros(int(parts.max(initial=0)), np.int64)
    part_labels[parts[parts > 0].astype(np.int64) - 1] = things[parts > 0]
    boxes, scores, is_large = _part_boxes(parts, class_map.scores, config)
    found = []
    for label in np.unique(part_labels[is_large]).tolist():
        mine = is_large & (part_labels == label)
        found.append(_of_class(boxes[mine], scores[mine], label - 1, config))
    return _joined(found, config)


def proposals_from_scores(
    scores: Float[Tensor, "C H W"], size_hw: tuple[int, int], config: ProposalConfig | None = None
) -> Detections:
    """Boxes in an image of `size_hw` from one map a class, of any size that covers the image; scores lie in [0, 1].

    Maps are enlarged (bilinear, pixel centres) one at a time, and only those that reach the threshold: memory grows
    with the image, not with the vocabulary. Cosines may be given with the part below 0 cut off; logits belong through a
    sigmoid first.
    """
    config = config or ProposalConfig()
    if 0 in scores.shape:
        return no_detections()
    lowest, best = scores.amin(), scores.flatten(1).amax(dim=1)
    if not (float(lowest) >= 0 and float(best.max()) <= 1):
        raise ShapeError(
            f"proposals: scores from {float(lowest):.3g} to {float(best.max()):.3g}: expected 0 to 1; clamp cosines,"
            " put logits through a sigmoid"
        )
    found = []
    for label in (best >= config.threshold).nonzero().flatten().tolist():
        plane = _enlarged(scores[label], size_hw)
        limit = config.threshold
        if config.relative_threshold is not None:
            limit = max(limit, config.relative_threshold * float(plane.max()))
        parts = connected_components((plane >= limit).astype(np.uint8), config.connectivity)
        boxes, values, is_large = _part_boxes(parts, plane, config)
        found.append(_of_class(boxes[is_large], values[is_large], label, config))
    return _joined(found, config)


def _enlarged(plane: Float[Tensor, "H W"], size_hw: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    full = plane.float()
    if tuple(plane.shape) != tuple(size_hw):
        full = F.interpolate(full[None, None], size=list(size_hw), mode="bilinear", align_corners=False)[0, 0]
    found: np.ndarray = full.cpu().numpy()
    return found


def _part_boxes(
    parts: UInt32[np.ndarray, "h w"], plane: Float32[np.ndarray, "h w"], config: ProposalConfig
) -> tuple[Float64[np.ndarray, "N 4"], Float64[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Box and score of every part, and whether it is large enough."""
    num = int(parts.max(initial=0))
    runs = label_runs(parts)
    areas = run_areas(runs, num)
    boxes = run_boxes_xyxy(runs, num, parts.shape[0]).astype(np.float64)
    flat, values = parts.ravel(), plane.ravel()
    starts = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    owners = flat[starts].astype(np.int64)
    if config.score == "mean":
        sums = np.bincount(
            owners, weights=np.add.reduceat(values, starts, dtype=np.float64), minlength=num + 1
        )
        scores = sums[1:] / np.maximum(areas, 1)
    else:
        peaks = np.zeros(num + 1)
        np.maximum.at(peaks, owners, np.maximum.reduceat(values, starts).astype(np.float64))
        scores = peaks[1:]
    return boxes, scores, areas >= max(config.min_pixels, config.min_share * parts.size)


def _of_class(
    boxes_xyxy: Float64[np.ndarray, "N 4"],
    scores: Float64[np.ndarray, " N"],
    label: int,
    config: ProposalConfig,
) -> Detections:
    """The best boxes of one class, those that lie on each other made one."""
    order = _order(boxes_xyxy, scores)[: config.max_per_class]
    boxes, best = boxes_xyxy[order], scores[order]
    if config.merge_iou is not None:
        groups = _linked(boxes, config.merge_iou)
        while len(groups) and int(groups.max()) + 1 < len(groups):  # common boxes may overlap anew
            num = int(groups.max()) + 1
            low, high, top = np.full((num, 2), np.inf), np.zeros((num, 2)), np.zeros(num)
            np.minimum.at(low, groups, boxes[:, :2])
            np.maximum.at(high, groups, boxes[:, 2:])
            np.maximum.at(top, groups, best)
            boxes, best = np.concatenate([low, high], axis=1), top
            groups = _linked(boxes, config.merge_iou)
    return Detections(
        boxes_xyxy=torch.from_numpy(boxes).float(),
        scores=torch.from_numpy(best).float(),
        labels=torch.full((len(best),), label, dtype=torch.int64),
    )


def _linked(boxes_xyxy: Float64[np.ndarray, "N 4"], iou: float) -> Int64[np.ndarray, " N"]:
    """Number of the group of each box: boxes whose IoU is above `iou`, and whatever hangs together by them."""
    boxes = torch.from_numpy(boxes_xyxy)
    pairs = (box_iou(boxes, boxes) > iou).numpy()
    return linked(coo_array(pairs), directed=False)[1].astype(np.int64)


def _joined(found: Sequence[Detections], config: ProposalConfig) -> Detections:
    """The best of all classes, in an order that depends on nothing but themselves."""
    if not found:
        return no_detections()
    everything = Detections(
        boxes_xyxy=torch.cat([part.boxes_xyxy for part in found]),
        scores=torch.cat([part.scores for part in found]),
        labels=torch.cat([part.labels for part in found]),
    )
    order = np.lexsort((everything.labels.numpy(), -everything.scores.double().numpy()))
    everything = everything.at(torch.from_numpy(order))
    kept = box_nms(
        everything.boxes_xyxy, everything.scores, iou=config.across_iou, limit=config.max_proposals
    )
    return everything.at(kept)


def _order(
    boxes_xyxy: Float64[np.ndarray, "N 4"], scores: Float64[np.ndarray, " N"]
) -> Int64[np.ndarray, " N"]:
    x0, y0, x1, y1 = boxes_xyxy.T
    return np.lexsort((x1, y1, x0, y0, -scores))
