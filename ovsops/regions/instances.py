"""Boxes and their masks to instances: one of each thing, with what speaks for and against it. Axes: N boxes, K kept.

Three steps. Masks that a better one covers go (`rle_nms`). Each that stays is compared: the detector's box with the
mask's tight box, and the mask with a second source's. And each is looked at for what is seldom right: too small, too
large, in pieces, hollow, a plain box, cut by the image's edge. None of these drops an instance: it carries the code.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from ovsops.backbones.detections import Detections
from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.boxes import boxes_xyxy_to_xywh
from ovsops.masks.components import Connectivity
from ovsops.masks.regions import CAPPED, OVER_CAP, Region, RegionClass
from ovsops.masks.rle import Rle
from ovsops.masks.rle_nms import rle_nms
from ovsops.masks.run_overlaps import count_parts, pixels_in, runs_of_rles
from ovsops.masks.runs import Runs, run_areas, run_boxes_xyxy
from ovsops.regions.box_masks import BoxMasks, check_labels
from ovsops.regions.reasons import (
    DOUBLE,
    FILLS_BOX,
    FRAGMENTED,
    HOLLOW,
    HUGE,
    LOW_AGREEMENT,
    NO_MASK,
    SEGMENTERS_DISAGREE,
    TINY,
    TOUCHES_BORDER,
)


@dataclass(frozen=True, kw_only=True)
class InstanceConfig:
    """Which masks are one thing, and when an instance carries a code."""

    nms_iou: float | None = 0.5
    """Of two masks with a larger IoU the one of better score stays; None: all stay."""
    nms_containment: float | None = None
    """A mask goes also when a better one holds more than this share of it; None: no such test."""
    nms_scope: Literal["class", "image"] = "class"
    """Whether masks suppress those of their own class, or all in the image."""
    max_instances: int = 1000
    """Instances kept of an image, the best ones; those of such an image carry `R_CAPPED`."""

    min_agreement: float = 0.5
    """`R_LOW_AGREEMENT` below this IoU of the detector's box and the mask's tight box; 0 switches it off."""
    min_mask_agreement: float = 0.5
    """`R_SEGMENTERS_DISAGREE` below this IoU of the masks of two sources; 0 switches it off."""
    border_pixels: int = 1
    """`R_TOUCHES_BORDER` for a mask in the image's outermost rows or columns, this many of them; 0 switches it off."""
    max_parts: int = 3
    """`R_FRAGMENTED` for a mask of more connected parts."""
    min_part_share: float = 0.05
    """Parts below this share of the mask's largest are specks and do not count."""
    connectivity: Connectivity = 8
    """4 or 8: whether pixels that touch at a corner only are one part."""
    tiny_pixels: int = 16
    """`R_TINY` for a mask of fewer pixels; 0 switches it off."""
    hollow_share: float = 0.15
    """`R_HOLLOW` for a mask that covers less than this share of its tight box; 0 switches it off."""
    filled_share: float = 0.98
    """`R_FILLS_BOX` for a mask that covers at least this share of its tight box."""
    huge_share: float = 0.9
    """`R_HUGE` for a mask that covers at least this share of the image."""

    def __post_init__(self) -> None:
        shares = ("nms_iou", "nms_containment", "min_agreement", "min_mask_agreement", "min_part_share")
        for name in (*shares, "hollow_share", "filled_share", "huge_share"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"instances: {name} {value} is a share: expected 0 to 1")
        for name, least in (("max_instances", 1), ("max_parts", 1), ("border_pixels", 0), ("tiny_pixels", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"instances: {name} {getattr(self, name)}: expected at least {least}")
        if self.hollow_share > self.filled_share:
            raise ConfigError(
                f"instances: hollow_share {self.hollow_share} is over filled_share {self.filled_share}: a mask would be"
                " hollow and filled"
            )


@dataclass(frozen=True, kw_only=True)
class Instance(Region):
    """One thing: a region with a detector's box. `score` is the detection's, `agreement` that of box and mask.

    The agreement is the IoU of the detector's box, cut to the image, and the tight box of the mask.
    """

    detection: int
    """Place of its box in the detections that were given."""
    label: int
    """Place of its class in the vocabulary, from 0."""
    detector_box_xyxy: tuple[float, float, float, float]
    """The box as the detector gave it, pixels."""
    mask_score: float | None = None
    """The mask source's own score, in [0, 1]; None where it gave none."""
    mask_agreement: float | None = None
    """IoU of the mask with a second source's; 0 where that has no mask for this box, None where none was asked."""

    @property
    def box_xyxy(self) -> tuple[float, float, float, float]:
        """The mask's tight box in corner form, half-open pixels."""
        x, y, width, height = self.bbox_xywh
        return x, y, x + width, y + height


@dataclass(frozen=True, kw_only=True)
class FoundInstances:
    """The instances of an image, and how many detections became none."""

    instances: tuple[Instance, ...] = ()
    """Best score first."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Detections without an instance, counted by reason: all that are missing are here."""


def build_instances(
    detections: Detections,
    masks: BoxMasks,
    classes: Sequence[RegionClass],
    config: InstanceConfig | None = None,
    *,
    second: BoxMasks | None = None,
) -> FoundInstances:
    """Instances of one image from its detections and a mask for each; `second` are masks of another source.

    Every detection is an instance or is counted in `dropped`. The result does not depend on the order of the
    detections, but for `detection`, which is a place in it. No detections, no instances, whatever the vocabulary.
    """
    config = config or InstanceConfig()
    check_labels(detections, len(classes))
    _check_belong(detections, masks, second)
    order = _order(detections, masks)
    rles = [rle for rle in (masks.rles[i] for i in order) if rle is not None]
    places = np.array([i for i in order if masks.rles[i] is not None], np.int64)
    dropped = Counter(masks.reasons[i][0] for i in order if masks.rles[i] is None)
    scores = detections.scores.cpu().double().numpy()
    labels = detections.labels.cpu().numpy().astype(np.int64)

    kept = rle_nms(
        rles,
        scores[places],
        iou=config.nms_iou,
        containment=config.nms_containment,
        groups=labels[places] if config.nms_scope == "class" else None,
    )
    num_empty = int((run_areas(runs_of_rles(rles), len(rles)) == 0).sum())
    dropped[NO_MASK] += num_empty
    dropped[DOUBLE] += len(rles) - num_empty - len(kept)
    num_over = max(0, len(kept) - config.max_instances)
    dropped[OVER_CAP] += num_over
    kept = kept[: config.max_instances]
    places = places[kept]
    rles = [rles[i] for i in kept]
    look = _look(rles, masks.size_hw, config)
    boxes = detections.boxes_xyxy.cpu().double().numpy()[places]
    agreements = _box_agreements(boxes, look.boxes_xyxy, masks.size_hw)
    others = None if second is None else [second.rles[i] for i in places]
    mask_agreements = None if others is None else _mask_agreements(rles, others)

    codes = look.codes | {LOW_AGREEMENT: agreements < config.min_agreement}
    if mask_agreements is not None:
        codes[SEGMENTERS_DISAGREE] = mask_agreements < config.min_mask_agreement
    instances = []
    tight = boxes_xyxy_to_xywh(look.boxes_xyxy).astype(float).tolist()
    for i, place in enumerate(places.tolist()):
        mine = {code for code, holds in codes.items() if holds[i]} | set(masks.reasons[place])
        if num_over:
            mine.add(CAPPED)
        x, y, width, height = tight[i]
        x0, y0, x1, y1 = boxes[i].tolist()
        mask_score = float(masks.scores[place])
        instance = Instance(
            category_id=classes[int(labels[place])].id,
            label=int(labels[place]),
            detection=place,
            detector_box_xyxy=(x0, y0, x1, y1),
            rle=rles[i],
            bbox_xywh=(x, y, width, height),
            area=int(look.areas[i]),
            score=float(scores[place]),
            mask_score=None if np.isnan(mask_score) else mask_score,
            agreement=float(agreements[i]),
            mask_agreement=None if mask_agreements is None else float(mask_agreements[i]),
            reasons=tuple(sorted(mine)),
        )
        instances.append(instance)
    return FoundInstances(
        instances=tuple(instances), dropped={code: n for code, n in sorted(dropped.items()) if n}
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Look:
    """What masks look like by themselves."""

    areas: Int64[np.ndarray, " K"]
    boxes_xyxy: Int64[np.ndarray, "K 4"]
    codes: dict[str, Bool[np.ndarray, " K"]]


def _look(rles: Sequence[Rle], size_hw: tuple[int, int], config: InstanceConfig) -> _Look:
    height, width = size_hw
    runs = runs_of_rles(rles)
    areas, boxes = run_areas(runs, len(rles)), run_boxes_xyxy(runs, len(rles), height)
    extent = areas / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1)
    parts = count_parts(
        runs, len(rles), height, connectivity=config.connectivity, min_part_share=config.min_part_share
    )
    border = config.border_pixels
    touches = (boxes[:, :2] < border).any(axis=1) | (boxes[:, 2:] > np.array([width, height]) - border).any(
        axis=1
    )
    codes = {
        FILLS_BOX: extent >= config.filled_share,
        FRAGMENTED: parts > config.max_parts,
        HOLLOW: extent < config.hollow_share,
        HUGE: areas >= config.huge_share * height * width,
        TINY: areas < config.tiny_pixels,
        TOUCHES_BORDER: touches & (border > 0),
    }
    return _Look(areas=areas, boxes_xyxy=boxes, codes=codes)


def _box_agreements(
    boxes_xyxy: Float64[np.ndarray, "K 4"], tight_xyxy: Int64[np.ndarray, "K 4"], size_hw: tuple[int, int]
) -> Float64[np.ndarray, " K"]:
    """IoU of each two, the detector's cut to the image."""
    cut = boxes_xyxy.clip(0, np.array([size_hw[1], size_hw[0]] * 2, np.float64))
    low, high = np.maximum(cut[:, :2], tight_xyxy[:, :2]), np.minimum(cut[:, 2:], tight_xyxy[:, 2:])
    shared = (high - low).clip(0).prod(axis=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1) for boxes in (cut, tight_xyxy)]
    return shared / (areas[0] + areas[1] - shared)


def _mask_agreements(rles: Sequence[Rle], others: Sequence[Rle | None]) -> Float64[np.ndarray, " K"]:
    """IoU of each two masks; 0 where the second is missing or both are empty."""
    found = np.zeros(len(rles))
    for i, (rle, other) in enumerate(zip(rles, others, strict=True)):
        if other is not None:
            one, two = runs_of_rles([rle]), runs_of_rles([other])
            shared = int(pixels_in(one, two.starts, two.ends).sum())
            union = _area(one) + _area(two) - shared
            found[i] = shared / union if union else 0.0
    return found


def _area(runs: Runs) -> int:
    return int((runs.ends - runs.starts).sum())


def _order(detections: Detections, masks: BoxMasks) -> list[int]:
    """Best first; of equal detections the one whose mask is first by its bytes."""
    boxes, labels = detections.boxes_xyxy.tolist(), detections.labels.tolist()
    scores = detections.scores.tolist()
    counts = ["" if rle is None else rle.counts for rle in masks.rles]
    return sorted(range(len(scores)), key=lambda i: (-scores[i], labels[i], boxes[i], counts[i]))


def _check_belong(detections: Detections, masks: BoxMasks, second: BoxMasks | None) -> None:
    for name, given in (("masks", masks), ("second masks", second)):
        if given is not None and len(given) != len(detections):
            raise ShapeError(f"{len(given)} {name} for {len(detections)} boxes: give one, or None, for each")
    if second is not None and second.size_hw != masks.size_hw:
        raise ShapeError(f"masks of {masks.size_hw} and of {second.size_hw} (h, w): one image has one size")
