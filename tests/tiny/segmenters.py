"""Segmenters without weights: what they must find is known from the pixels."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ovsops.annotators.annotation import Annotation
from ovsops.masks.class_map import ClassMap
from pipelines.records import RegionClass

CLASSES = (
    RegionClass(id=1, kind="thing", prompt="red thing", language="en"),
    RegionClass(id=7, kind="stuff", prompt="bright stuff", language="en"),
)


class MapsAlone:
    """What a segmenter says, and nothing else; loads no torch."""

    def __init__(self, segmenter: Any) -> None:
        self.segmenter = segmenter

    def annotate(self, images: Sequence[np.ndarray]) -> list[Annotation]:
        return [Annotation(class_map=found) for found in self.segmenter.segment(images)]


class ColourSegmenter:
    """Class 1 where red dominates, class 2 where all channels are bright, else background."""

    def segment(self, images: Sequence[np.ndarray]) -> list[ClassMap]:
        maps = []
        for image in images:
            red, green, blue = (image[..., c].astype(np.int16) for c in range(3))
            labels = np.zeros(image.shape[:2], np.uint16)
            labels[(red > green + 60) & (red > blue + 60)] = 1
            labels[(red > 170) & (green > 170) & (blue > 170)] = 2
            scores = image.max(axis=2).astype(np.float32) / 255
            maps.append(ClassMap(labels=labels, scores=scores))
        return maps


@dataclass
class ColourFactory:
    """Builds a ColourSegmenter on the worker."""

    seconds_per_batch: float = 0.0
    refuse_width: int = 0
    pid_file: str = ""
    """The worker leaves its process id here."""
    hold_until: str = ""
    """On images of `hold_width`, wait (30 s at most) for this file to appear: the worker is alive until then."""
    hold_width: int = 0

    def build(self) -> MapsAlone:
        if self.pid_file:
            Path(self.pid_file).write_text(str(os.getpid()))
        return MapsAlone(self)

    def segment(self, images: Sequence[np.ndarray]) -> list[ClassMap]:
        if self.hold_until and any(image.shape[1] == self.hold_width for image in images):
            patience = time.monotonic() + 30
            while not Path(self.hold_until).exists() and time.monotonic() < patience:
                time.sleep(0.02)
        if self.seconds_per_batch:
            time.sleep(self.seconds_per_batch)
        if self.refuse_width and any(image.shape[1] == self.refuse_width for image in images):
            raise RuntimeError(f"no memory for {self.refuse_width} px")
        return ColourSegmenter().segment(images)
