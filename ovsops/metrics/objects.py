"""Objects that were found in an image, and those that are true, as metrics take them. Axes: N found, G true."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ovsops.masks.rle import Rle


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundObjects:
    """What was found in an image."""

    labels: Int64[np.ndarray, " N"]
    scores: Float64[np.ndarray, " N"]
    boxes_xyxy: Float64[np.ndarray, "N 4"]
    masks: Sequence[Rle] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TrueObjects:
    """What is in an image, and for which classes that is known."""

    labels: Int64[np.ndarray, " G"]
    boxes_xyxy: Float64[np.ndarray, "G 4"]
    masks: Sequence[Rle] | None = None
    is_crowd: Bool[np.ndarray, " G"] | None = None
    areas: Float64[np.ndarray, " G"] | None = None
    """Pixels, to tell small from large; COCO gives the mask's for boxes, too. Of boxes or masks where None."""
    verified_absent: Collection[int] | None = None
    """Classes known to be absent: with it, classes neither true nor verified absent are not judged here (LVIS)."""
    not_exhaustive: Collection[int] = ()
    """Classes of which not all objects are marked: what matches nothing is ignored (LVIS)."""


@runtime_checkable
class NamedBoxes(Protocol):
    """Boxes with labels, as tensors."""

    @property
    def boxes_xyxy(self) -> Tensor:
        """N 4, pixels."""

    @property
    def labels(self) -> Tensor:
        """N."""


@runtime_checkable
class ScoredBoxes(NamedBoxes, Protocol):
    """Boxes with labels and scores: a detector's `Detections`, or what an expert made of them."""

    @property
    def scores(self) -> Tensor:
        """N."""


def found_objects(boxes: ScoredBoxes) -> FoundObjects:
    """Boxes in main memory as the metrics take them."""
    return FoundObjects(
        labels=boxes.labels.numpy().astype(np.int64),
        scores=boxes.scores.double().numpy(),
        boxes_xyxy=boxes.boxes_xyxy.double().numpy(),
    )


def true_objects(boxes: NamedBoxes, *, masks: Sequence[Rle] | None = None) -> TrueObjects:
    """Every object of an image of which all classes are marked."""
    return TrueObjects(
        labels=boxes.labels.numpy().astype(np.int64),
        boxes_xyxy=boxes.boxes_xyxy.double().numpy(),
        masks=masks,
    )
