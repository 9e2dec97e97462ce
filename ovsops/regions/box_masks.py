"""A mask for every box: from a class map, from a model that takes boxes, or the box itself. Axes: N boxes, h w pixels.

A pixel lies in a box when its centre does. Masks are RLE from the start, so that thousands of them fit in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64, UInt8, UInt32
from torch import Tensor

from ovsops.backbones.detections import Detections
from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.class_map import ClassMap
from ovsops.masks.components import Connectivity, connected_components
from ovsops.masks.regions import RegionClass
from ovsops.masks.rle import Rle, crops_to_rles, label_map_to_rles, runs_to_rles
from ovsops.masks.runs import joined_runs
from ovsops.regions.box_owners import Overlap, box_slices, doubles, pixel_owners
from ovsops.regions.reasons import BOX_MASK, DOUBLE, NO_AREA, NO_MASK


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxMasks:
    """The mask of every box of some detections, in their order."""

    size_hw: tuple[int, int]
    """Of the image, pixels."""
    rles: tuple[Rle | None, ...]
    """None: the box has no mask."""
    scores: Float64[np.ndarray, " N"]
    """The mask source's own, in [0, 1]; nan where it has none."""
    reasons: tuple[tuple[str, ...], ...]
    """Codes that the mask carries; for a box without a mask, the one reason why."""

    def __post_init__(self) -> None:
        if not len(self.rles) == len(self.scores) == len(self.reasons):
            raise ShapeError(
                f"box masks: {len(self.rles)} masks, {len(self.scores)} scores, {len(self.reasons)} reasons: one of"
                " each a box is expected"
            )
        for i, rle in enumerate(self.rles):
            if rle is None and len(self.reasons[i]) != 1:
                raise ShapeError(f"box {i} has no mask and {len(self.reasons[i])} reasons: give one")
            if rle is not None and rle.size_hw != self.size_hw:
                raise ShapeError(f"mask {i} is of size {rle.size_hw}, the image of {self.size_hw} (h, w)")

    def __len__(self) -> int:
        return len(self.rles)


@runtime_checkable
class BoxPrompter(Protocol):
    """A model that masks what a box shows."""

    def masks(
        self, image: UInt8[np.ndarray, "h w 3"], boxes_xyxy: Float[Tensor, "N 4"], labels: Int[Tensor, " N"]
    ) -> BoxMasks:
        """A mask for each box of an RGB image (pixels), or none; `labels` as in `Detections`."""


@dataclass(frozen=True, kw_only=True)
class ClassMapMaskConfig:
    """How a box and a class map make a mask: the pixels of the box whose class is the box's."""

    overlap: Overlap | Literal["share"] = "nearest"
    """Who gets a pixel that several boxes of its class cover: the one whose centre is nearest, in halves of the box's
    sides; the box of best score; the smallest; or, with `share`, all of them, so that masks of a class overlap."""
    double_iou: float | None = 0.7
    """Of boxes of one class with a larger IoU only the one of best score takes part: doubles would share out one thing
    between them. None: all do. Not for `share`."""
    min_kept_share: float = 0.2
    """A box that gets less than this share of the pixels of its class in it, against those before it (by score, or from
    the smallest), is left out as `R_DOUBLE` instead of leaving a rim. Not for `share`."""
    no_mask: Literal["drop", "component", "box"] = "drop"
    """What becomes of a box without a pixel of its class: left out; masked by the connected part of another thing that
    has most pixels in the box (left out where there is none); or masked by the box itself."""
    box_margin: float = 0.0
    """Boxes are widened on every side by this share of that side's length before pixels are taken: a tight box cuts
    the mask."""
    connectivity: Connectivity = 8
    """4 or 8: what a connected part is."""

    def __post_init__(self) -> None:
        for name in ("double_iou", "min_kept_share", "box_margin"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"box masks: {name} {value} is a share: expected 0 to 1")


def masks_from_class_map(
    detections: Detections,
    class_map: ClassMap,
    classes: Sequence[RegionClass],
    config: ClassMapMaskConfig | None = None,
) -> BoxMasks:
    """The pixels in each box that show its class; label i of `detections` is label i + 1 of the map.

    But with `overlap="share"` no two of these masks share a pixel. Masks that `no_mask` stands in for may overlap any:
    they carry a code. A mask's score is the mean score of its pixels, nan for a stand-in. A box all of whose pixels
    went to others is left out as `R_DOUBLE`. Which box is first in the list does not matter.
    """
    config = config or ClassMapMaskConfig()
    size_hw = (class_map.labels.shape[0], class_map.labels.shape[1])
    check_labels(detections, len(classes))
    if int(class_map.labels.max(initial=0)) > len(classes):
        raise ShapeError(
            f"class map: label {int(class_map.labels.max())} of {len(classes)} classes; it was made with a larger"
            " vocabulary"
        )
    boxes = pixel_boxes(detections.boxes_xyxy, size_hw, margin=config.box_margin)
    map_labels = detections.labels.cpu().numpy().astype(np.int64) + 1
    is_double = np.zeros(len(boxes), np.bool_)
    if config.overlap == "share":
        rles, scores = _shared_masks(boxes, map_labels, class_map)
        shows = ~np.isnan(scores)
    else:
        order = canonical_order(detections)
        if config.double_iou is not None:
            is_double = doubles(boxes, map_labels, order, config.double_iou)
            order = order[~is_double[order]]
        owners, shows = pixel_owners(
            boxes,
            map_labels,
            order,
            class_map.labels,
            overlap=config.overlap,
            min_kept_share=config.min_kept_share,
        )
        rles = list(label_map_to_rles(owners, len(boxes)))
        scores = _mean_scores(owners, class_map, len(boxes))

    parts: UInt32[np.ndarray, "h w"] | None = None
    found: list[Rle | None] = list(rles)
    reasons: list[tuple[str, ...]] = [() for _ in found]
    for i in np.flatnonzero(np.isnan(scores)).tolist():
        found[i], reasons[i] = None, (NO_MASK,)
        if boxes[i, 2] <= boxes[i, 0]:
            reasons[i] = (NO_AREA,)
        elif shows[i] or is_double[i]:
            reasons[i] = (DOUBLE,)
        elif config.no_mask == "box":
            found[i], reasons[i] = box_to_rle(boxes[i], size_hw), (BOX_MASK, NO_MASK)
        elif config.no_mask == "component":
            parts = _thing_parts(class_map, classes, config) if parts is None else parts
            found[i] = _largest_part(parts, boxes[i])
    return BoxMasks(size_hw=size_hw, rles=tuple(found), scores=scores, reasons=tuple(reasons))


def masks_from_boxes(detections: Detections, size_hw: tuple[int, int]) -> BoxMasks:
    """Each box as its own mask, with `R_BOX_MASK`: what a run without a segmenter has."""
    boxes = pixel_boxes(detections.boxes_xyxy, size_hw)
    rles = tuple(box_to_rle(box, size_hw) if box[2] > box[0] else None for box in boxes)
    return BoxMasks(
        size_hw=size_hw,
        rles=rles,
        scores=np.full(len(boxes), np.nan),
        reasons=tuple((NO_AREA,) if rle is None else (BOX_MASK,) for rle in rles),
    )


def pixel_boxes(
    boxes_xyxy: Float[Tensor, "N 4"], size_hw: tuple[int, int], *, margin: float = 0.0
) -> Int64[np.ndarray, "N 4"]:
    """The pixels whose centres lie in each box, as half-open boxes inside the image; zeros for a box without any.

    Raises `ShapeError` for a box that is not finite.
    """
    boxes = boxes_xyxy.detach().cpu().double().numpy()
    broken = np.flatnonzero(~np.isfinite(boxes).all(axis=1))
    if len(broken):
        raise ShapeError(f"boxes {broken[:5].tolist()} are not finite; drop what the detector got wrong")
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    wide = np.concatenate([boxes[:, :2] - margin * sides, boxes[:, 2:] + margin * sides], axis=1)
    limits = np.array([size_hw[1], size_hw[0]] * 2)
    pixels = np.ceil(wide - 0.5).clip(0, limits).astype(np.int64)
    pixels[(pixels[:, 2:] <= pixels[:, :2]).any(axis=1)] = 0
    return pixels


def box_to_rle(box_xyxy: Int64[np.ndarray, "4"], size_hw: tuple[int, int]) -> Rle:
    """The mask of a whole box of pixels."""
    x0, y0, x1, y1 = box_xyxy.tolist()
    columns = np.arange(x0, x1) * size_hw[0]
    runs = joined_runs(columns + y0, columns + y1, np.zeros(len(columns), np.int64))
    return runs_to_rles(runs, 1, size_hw)[0]


def check_labels(detections: Detections, num_classes: int) -> None:
    """Raise `ShapeError` for a label that is no place of a class, and for scores that are none."""
    if len(detections) == 0:
        return
    low, high = int(detections.labels.min()), int(detections.labels.max())
    if low < 0 or high >= num_classes:
        raise ShapeError(
            f"detections: labels {low}..{high} of {num_classes} classes: they were asked for with another vocabulary"
        )
    if not bool(torch.isfinite(detections.scores).all()):
        raise ShapeError("detections: a score is not finite; drop what the detector got wrong")


def canonical_order(detections: Detections) -> Int64[np.ndarray, " N"]:
    """Best score first, then by label and box: the same whichever way the list was shuffled."""
    boxes = detections.boxes_xyxy.cpu().double().numpy()
    scores, labels = detections.scores.cpu().double().numpy(), detections.labels.cpu().numpy()
    return np.lexsort((boxes[:, 3], boxes[:, 2], boxes[:, 0], boxes[:, 1], labels, -scores))


def _mean_scores(
    owners: UInt32[np.ndarray, "h w"], class_map: ClassMap, num_boxes: int
) -> Float64[np.ndarray, " N"]:
    """Mean score of the pixels of each owner, nan for one without any."""
    at = np.flatnonzero(owners)
    owned = owners.ravel()[at].astype(np.int64)
    areas = np.bincount(owned, minlength=num_boxes + 1)[1:]
    sums = np.bincount(owned, weights=class_map.scores.ravel()[at], minlength=num_boxes + 1)[1:]
    return np.where(areas > 0, sums / np.maximum(areas, 1), np.nan)


def _shared_masks(
    boxes: Int64[np.ndarray, "N 4"], map_labels: Int64[np.ndarray, " N"], class_map: ClassMap
) -> tuple[list[Rle], Float64[np.ndarray, " N"]]:
    rles, scores = [], np.full(len(boxes), np.nan)
    for i, box in enumerate(boxes):
        at = box_slices(box)
        mask = class_map.labels[at] == map_labels[i]
        rles += crops_to_rles([mask], [(int(box[1]), int(box[0]))], class_map.labels.shape)
        if mask.any():
            scores[i] = float(class_map.scores[at][mask].mean(dtype=np.float64))
    return rles, scores


def _thing_parts(
    class_map: ClassMap, classes: Sequence[RegionClass], config: ClassMapMaskConfig
) -> UInt32[np.ndarray, "h w"]:
    is_thing = np.array([False, *(c.kind == "thing" for c in classes)])
    things = np.where(is_thing[class_map.labels], class_map.labels, 0).astype(np.uint16)
    return connected_components(things, config.connectivity)


def _largest_part(parts: UInt32[np.ndarray, "h w"], box_xyxy: Int64[np.ndarray, "4"]) -> Rle | None:
    """What the box shows of the part that has most pixels in it; of equal ones that of the first number."""
    crop = parts[box_slices(box_xyxy)]
    numbers, counts = np.unique(crop[crop > 0], return_counts=True)
    if len(numbers) == 0:
        return None
    mask = crop == numbers[counts.argmax()]
    return crops_to_rles([mask], [(int(box_xyxy[1]), int(box_xyxy[0]))], (parts.shape[0], parts.shape[1]))[0]
