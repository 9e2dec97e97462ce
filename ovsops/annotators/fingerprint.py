"""Whose scores a calibrator was fitted on, and the calibrator as an annotator uses it."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

import numpy as np

from ovsops.annotators.calibrated import BoxCalibrator, class_groups
from ovsops.annotators.checkpoints import box_checkpoints
from ovsops.annotators.config import AnnotatorConfig, ProposalDetectorConfig, Sam3DetectorConfig
from ovsops.text.vocabulary import Vocabulary


def box_calibrator(config: AnnotatorConfig, vocabulary: Vocabulary) -> BoxCalibrator | None:
    """The recipe's calibrator with the classes' groups and the fingerprint of its scores; None without one."""
    if config.calibrator is None:
        return None
    return BoxCalibrator(
        calibrator=config.calibrator,
        groups=class_groups(vocabulary),
        fingerprint=score_fingerprint(config, vocabulary),
    )


def check_calibrator(config: AnnotatorConfig, vocabulary: Vocabulary) -> None:
    """Raise `CheckpointError` for a calibrator that was fitted on the scores of other models or settings."""
    found = box_calibrator(config, vocabulary)
    if found is not None:
        nothing = np.zeros(0)
        found.calibrator.calibrated(nothing, nothing.astype(np.int64), fingerprint=found.fingerprint)


def score_fingerprint(config: AnnotatorConfig, vocabulary: Vocabulary) -> str:
    """Digest of all that makes the scores of boxes: detector, expert, their settings, and the groups of classes.

    Reads every weight file of both once. A calibrator belongs to one fingerprint.
    """
    parts: dict[str, Any] = {
        "detector": _plain_without(config.detector),
        "expert": _plain_without(config.expert, "captions", "caption_language", "verify"),
        "groups": sorted({spec.group or spec.kind for spec in vocabulary.classes}),
        "weights": {role: identity.rpartition(" ")[2] for role, identity in box_checkpoints(config).items()},
    }
    if isinstance(config.detector, ProposalDetectorConfig | Sam3DetectorConfig):
        parts["segmenter"] = _plain_without(config.segmenter)
    text = json.dumps(_without_places(parts), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain_without(part: Any, *names: str) -> dict[str, Any] | None:
    """A config as plain data without the fields that no score depends on."""
    if part is None:
        return None
    return {name: value for name, value in asdict(part).items() if name not in names}


def _without_places(plain: Any) -> Any:
    """Plain data without the sources of checkpoints: their content is in `weights`."""
    if isinstance(plain, dict):
        if {"source", "revision", "sha256"} <= plain.keys():
            return None
        return {key: _without_places(value) for key, value in plain.items() if key != "pairs_per_pass"}
    return [_without_places(value) for value in plain] if isinstance(plain, list | tuple) else plain
