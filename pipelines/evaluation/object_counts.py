"""What is counted of the instances of an image. Axes: N found, G true, C places, M bins, T overlaps.

Average precision needs the outcome of every found object until the end (`DetectionCounts`, about 75 bytes an object and
kind of AP); all else adds up, a row of whole numbers an image:

concepts          7 x T   pairs of an image and a class: objects and pairs by what was found (`ovsops.metrics.concepts`)
presence          1 x 4   pairs by the presence gate and the truth: both, gate alone, neither, truth alone
absent            1 x 2   classes verified absent, and those of them that are
objects           2 x C   found and true objects by class
raw, calibrated   3 x M   instances by score: how many, sum of their scores, right ones
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64

from ovsops.errors import ConfigError
from ovsops.masks.boxes import boxes_xywh_to_xyxy
from ovsops.masks.rle import rle_from_coco
from ovsops.metrics.calibration import reliability_table
from ovsops.metrics.concepts import OVERLAPS, PAIRS_NEITHER, ConceptCounts
from ovsops.metrics.detection import (
    LVIS_FIXED,
    DetectionConfig,
    DetectionCounts,
    outcomes_at_half,
)
from ovsops.metrics.matching import HIT, IGNORED, box_ious, mask_ious
from ovsops.metrics.objects import FoundObjects, TrueObjects
from pipelines.evaluation.blocks import Blocks
from pipelines.evaluation.classes import Classes
from pipelines.evaluation.labelled import LabelledImage, score_of
from pipelines.evaluation.layout import TableLayout

PRESENT = 0.5
"""A presence score from here on says that a class is in the image."""
BOX, MASK, DETECTOR_BOX, AGNOSTIC, FIXED = "box", "mask", "detector_box", "agnostic", "fixed"
_CONFIGS: Mapping[str, DetectionConfig] = {
    BOX: DetectionConfig(),
    MASK: DetectionConfig(kind="mask"),
    DETECTOR_BOX: DetectionConfig(),
    AGNOSTIC: DetectionConfig(is_class_agnostic=True),
    FIXED: LVIS_FIXED,
}
_PARTS_AT_ONCE = 512
"""States of images that are joined together, so that no image keeps arrays of its own for long."""


@dataclass(frozen=True, kw_only=True)
class ObjectsConfig:
    """What is said of instances."""

    compute: Literal["auto", "boxes", "on", "off"] = "auto"
    """auto: boxes and masks, where the truth has objects and a run has instances of things; boxes: no AP of masks; on:
    also where nothing was found, and an error where the truth has no objects; off: nothing."""
    min_score: float = 0.0
    """Instances of a lower score do not count for cgF1, pmF1 and IL_MCC; 0.5 is what SAM 3 was published with."""
    max_found: int = 2_000_000
    """Instances of a run beyond which the evaluation stops: AP keeps some 375 bytes of each in memory."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise ConfigError(f"objects.min_score is {self.min_score}: a score lies in [0, 1]")
        if self.max_found < 1:
            raise ConfigError(f"objects.max_found is {self.max_found}: give 1 or more")


@dataclass(frozen=True, kw_only=True)
class ObjectLayout(TableLayout):
    """Where each table of an image's instances lies."""

    num_places: int
    num_bins: int

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shape of each table by name."""
        return {
            "concepts": (7, len(OVERLAPS)),
            "presence": (1, 4),
            "absent": (1, 2),
            "objects": (2, self.num_places),
            "raw": (3, self.num_bins),
            "calibrated": (3, self.num_bins),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundInstances:
    """Instances of things of an image, as a run has them."""

    found: FoundObjects
    """With the tight boxes of their masks."""
    detector_boxes_xyxy: Float64[np.ndarray, "N 4"]
    """As a detector drew them; of what none drew, the tight ones."""
    is_detected: bool
    """Whether a detector drew any."""
    calibrated: Float64[np.ndarray, " N"]
    """nan where there is none."""


def found_instances(image: LabelledImage, classes: Classes) -> FoundInstances:
    """The regions of things; a segmenter's connected parts as well as a detector's instances."""
    things = set(classes.of_kind("thing"))
    placed = [(classes.place_of(region["category_id"]), region) for region in image.regions]
    chosen = [(place, region) for place, region in placed if place in things]
    regions = [region for _, region in chosen]
    return FoundInstances(
        found=FoundObjects(
            labels=np.array([place for place, _ in chosen], np.int64),
            scores=np.array([score_of(image, region) for region in regions], np.float64),
            boxes_xyxy=_corners([region["bbox"] for region in regions]),
            masks=tuple(rle_from_coco(region["segmentation"]) for region in regions),
        ),
        detector_boxes_xyxy=_corners([region["bbox_detector"] or region["bbox"] for region in regions]),
        is_detected=any(region["bbox_detector"] is not None for region in regions),
        calibrated=np.array(
            [
                np.nan if region["score_calibrated"] is None else score_of(image, region, "score_calibrated")
                for region in regions
            ],
            np.float64,
        ),
    )


def _corners(boxes_xywh: list[list[float]]) -> Float64[np.ndarray, "N 4"]:
    return boxes_xywh_to_xyxy(np.array(boxes_xywh, np.float64).reshape(-1, 4))


class ObjectCounter:
    """Counts instances of single images against their truth."""

    def __init__(self, classes: Classes, config: ObjectsConfig, *, num_bins: int, has_masks: bool) -> None:
        self.classes, self.config, self.num_bins = classes, config, num_bins
        self.layout = ObjectLayout(num_places=classes.num_places, num_bins=num_bins)
        self.has_masks = has_masks and config.compute != "boxes"
        self.things = frozenset(classes.of_kind("thing"))

    def row(self, image: LabelledImage, mine: FoundInstances, truth: TrueObjects) -> Int64[np.ndarray, "k"]:
        """All that adds up. `truth` holds things alone."""
        # a detector's score is about the box that it drew, not about the one around the mask made of it
        outcomes = outcomes_at_half(replace(mine.found, boxes_xyxy=mine.detector_boxes_xyxy), truth)
        has_calibrated = ~np.isnan(mine.calibrated)
        num_places = self.classes.num_places
        counts = [np.bincount(labels, minlength=num_places) for labels in (mine.found.labels, truth.labels)]
        return self.layout.join(
            {
                "concepts": self._concepts(mine.found, truth),
                "presence": self._presence(image, truth),
                "absent": self._absent(image, truth),
                "objects": np.stack(counts).astype(np.int64),
                "raw": self._reliability(mine.found.scores, outcomes),
                "calibrated": self._reliability(mine.calibrated[has_calibrated], outcomes[has_calibrated]),
            }
        )

    def detections(
        self, number: int, mine: FoundInstances, truth: TrueObjects
    ) -> Mapping[str, DetectionCounts]:
        """Outcomes of every kind of AP."""
        found = mine.found
        founds = {BOX: found, DETECTOR_BOX: replace(found, boxes_xyxy=mine.detector_boxes_xyxy), FIXED: found}
        founds[AGNOSTIC] = _of_judged(found, truth)
        if self.has_masks:
            founds[MASK] = found
        truths = dict.fromkeys(founds, truth)
        truths[AGNOSTIC] = replace(truth, verified_absent=None, not_exhaustive=())
        return {
            kind: DetectionCounts.of_image(number, founds[kind], truths[kind], config=config)
            for kind, config in _CONFIGS.items()
            if kind in founds
        }

    def _judged(self, truth: TrueObjects) -> set[int]:
        """Things of which the truth says whether they are there."""
        if truth.verified_absent is None:
            return set(self.things)
        return {*truth.labels.tolist(), *truth.verified_absent} & self.things

    def _concepts(self, found: FoundObjects, truth: TrueObjects) -> Int64[np.ndarray, "7 T"]:
        """Pairs whose objects are all marked one by one; of classes on neither side there is nothing to look at."""
        crowds = _crowds(truth)
        judged = self._judged(truth) - set(truth.not_exhaustive) - set(truth.labels[crowds].tolist())
        concepts = ConceptCounts.zeros(threshold=self.config.min_score)
        seen = judged & {*found.labels.tolist(), *truth.labels.tolist()}
        for label in sorted(seen):
            one, two = (found.labels == label).nonzero()[0], (truth.labels == label).nonzero()[0]
            concepts = concepts.update(self._ious(found, truth, one, two), found.scores[one])
        counts = concepts.counts.copy()
        counts[PAIRS_NEITHER] += len(judged) - len(seen)
        return counts

    def _ious(
        self,
        found: FoundObjects,
        truth: TrueObjects,
        one: Int64[np.ndarray, " n"],
        two: Int64[np.ndarray, " m"],
    ) -> Float64[np.ndarray, "n m"]:
        """Of masks where both sides have them."""
        if self.has_masks and found.masks is not None and truth.masks is not None:
            masks, true_masks = found.masks, truth.masks
            return mask_ious([masks[i] for i in one.tolist()], [true_masks[i] for i in two.tolist()])
        return box_ious(found.boxes_xyxy[one], truth.boxes_xyxy[two])

    def _presence(self, image: LabelledImage, truth: TrueObjects) -> Int64[np.ndarray, "1 4"]:
        scores = {self.classes.place_of(i): score for i, score in image.presence.items()}
        table = np.zeros((1, 4), np.int64)
        present = set(truth.labels.tolist())
        for label in self._judged(truth) & scores.keys():
            says, is_true = scores[label] >= PRESENT, label in present
            table[0, (0 if is_true else 1) if says else (3 if is_true else 2)] += 1
        return table

    def _absent(self, image: LabelledImage, truth: TrueObjects) -> Int64[np.ndarray, "1 2"]:
        said = {self.classes.place_of(i) for i in image.verified_absent} & self._judged(truth)
        return np.array([[len(said), len(said - set(truth.labels.tolist()))]], np.int64)

    def _reliability(
        self, scores: Float64[np.ndarray, " n"], outcomes: Int8[np.ndarray, " n"]
    ) -> Int64[np.ndarray, "3 M"]:
        counts = outcomes != IGNORED
        return reliability_table(scores[counts], outcomes[counts] == HIT, num_bins=self.num_bins)


@dataclass(kw_only=True)
class RunObjects:
    """What is known of a run's instances so far."""

    blocks: Blocks
    max_found: int
    num_found: int = 0
    is_detected: bool = False
    _parts: dict[str, list[DetectionCounts]] = field(default_factory=dict)

    def add(
        self, image: LabelledImage, counter: ObjectCounter, mine: FoundInstances, truth: TrueObjects
    ) -> None:
        """Count one more image. Raises `ConfigError` where a run has more instances than memory is meant for."""
        self.num_found += len(mine.found.labels)
        if self.num_found > self.max_found:
            raise ConfigError(
                f"{image.where}: up to here the run has {self.num_found} instances of things, more than"
                f" objects.max_found = {self.max_found}; raise it where memory allows (some 375 bytes each), evaluate"
                " fewer shards, or set objects.compute to off"
            )
        self.is_detected |= mine.is_detected
        for kind, counts in counter.detections(self.blocks.num_images, mine, truth).items():
            parts = self._parts.setdefault(kind, [])
            parts.append(counts)
            if len(parts) >= 2 * _PARTS_AT_ONCE:
                parts[-_PARTS_AT_ONCE:] = [DetectionCounts.of_parts(parts[-_PARTS_AT_ONCE:])]
        self.blocks.add(counter.row(image, mine, truth))

    def detections(self) -> dict[str, DetectionCounts]:
        """Outcomes of all images; boxes of a detector only where there was one. Only one kind is copied at a time."""
        if not self.is_detected:
            self._parts.pop(DETECTOR_BOX, None)
        for kind, parts in self._parts.items():
            self._parts[kind] = [DetectionCounts.of_parts(parts)]
        return {kind: whole for kind, (whole,) in self._parts.items()}

    @property
    def columns(self) -> Int64[np.ndarray, " I"]:
        """Block of each image, in the order in which they came."""
        return np.arange(self.blocks.num_images) // self.blocks.images_per_block


def things_alone(truth: TrueObjects, things: Iterable[int]) -> TrueObjects:
    """The truth without objects of stuff."""
    kept = np.isin(truth.labels, np.array(sorted(things), np.int64)).nonzero()[0]
    return replace(
        truth,
        labels=truth.labels[kept],
        boxes_xyxy=truth.boxes_xyxy[kept],
        masks=None if truth.masks is None else tuple(truth.masks[i] for i in kept.tolist()),
        is_crowd=None if truth.is_crowd is None else truth.is_crowd[kept],
        areas=None if truth.areas is None else truth.areas[kept],
    )


def _crowds(truth: TrueObjects) -> Bool[np.ndarray, " G"]:
    return np.zeros(len(truth.labels), bool) if truth.is_crowd is None else truth.is_crowd


def _of_judged(found: FoundObjects, truth: TrueObjects) -> FoundObjects:
    """Without finds of classes that the truth says nothing of: without names they could not be told from wrong ones."""
    if truth.verified_absent is None:
        return found
    judged = np.array(sorted({*truth.labels.tolist(), *truth.verified_absent}), np.int64)
    kept = np.isin(found.labels, judged)
    return FoundObjects(
        labels=found.labels[kept], scores=found.scores[kept], boxes_xyxy=found.boxes_xyxy[kept]
    )
