"""Calibrated scores of judged boxes: a calibrator, and what it must have been fitted on. Axes: N boxes, C classes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from ovsops.annotators.judging import JudgedBoxes
from ovsops.regions.calibration import ScoreCalibrator
from ovsops.text.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxCalibrator:
    """A calibrator with the group of each class; refused where other models made the scores."""

    calibrator: ScoreCalibrator
    groups: Int64[np.ndarray, " C"]
    fingerprint: str
    """Of the models and settings that make the scores of this run."""

    def chances(self, judged: JudgedBoxes) -> Float64[np.ndarray, " N"]:
        """Chance of each box to be right. Raises `CheckpointError` for a calibrator of other models."""
        return self.calibrator.calibrated(
            judged.scores.double().numpy(), self.groups[judged.labels.numpy()], fingerprint=self.fingerprint
        )


def class_groups(vocabulary: Vocabulary) -> Int64[np.ndarray, " C"]:
    """Group of each class: by the vocabulary's `group` (classes without one by their kind), in order of name."""
    place = {name: number for number, name in enumerate(group_names(vocabulary))}
    return np.array([place[spec.group or spec.kind] for spec in vocabulary.classes], np.int64)


def group_names(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Name of each group of `class_groups`."""
    return tuple(sorted({spec.group or spec.kind for spec in vocabulary.classes}))
