"""Which weights an annotator rests on: their identity, their licences, and whether they fit each other. Loads none."""

from dataclasses import replace
from pathlib import Path

from ovsops.annotators.config import AnnotatorConfig, LlmDetConfig
from ovsops.annotators.names import asked_names
from ovsops.backbones.checkpoint import checkpoints_of, pin_checkpoints, resolve
from ovsops.backbones.fgclip2_model import read_fgclip2_config
from ovsops.backbones.florence2 import check_florence2
from ovsops.backbones.mm_grounding_dino import check_detector_model, check_detector_names
from ovsops.segmenters.kinds import (
    check_licences,
    check_models,
    checkpoint_identities,
    planes_in_memory,
    resolved_checkpoints,
)
from ovsops.text.vocabulary import Vocabulary


def pin_annotator(config: AnnotatorConfig) -> AnnotatorConfig:
    """The same with every checkpoint found on disk, its place absolute and its SHA-256 filled in."""
    parts = {
        name: None if part is None else pin_checkpoints(part)
        for name, part in (
            ("segmenter", config.segmenter),
            ("detector", config.detector),
            ("expert", config.expert),
            ("captioner", config.captioner),
            ("other", config.other),
        )
    }
    return replace(config, **parts)  # type: ignore[arg-type]


def box_checkpoints(config: AnnotatorConfig) -> dict[str, str]:
    """Identity of the detector's and the expert's weights, by the field that names them."""
    return {
        role: resolve(checkpoint).identity
        for part in (config.detector, config.expert)
        if part is not None
        for role, checkpoint in checkpoints_of(part).items()
    }


def annotator_checkpoints(config: AnnotatorConfig) -> dict[str, str]:
    """Identity of every checkpoint by role: what a manifest records."""
    own = {} if config.segmenter is None else checkpoint_identities(config.segmenter)
    other = {} if config.other is None else checkpoint_identities(config.other)
    words = {} if config.captioner is None else {"florence2": resolve(config.captioner.florence2).identity}
    return own | box_checkpoints(config) | words | {f"other.{role}": found for role, found in other.items()}


def weight_files(config: AnnotatorConfig) -> list[Path]:
    """The safetensors files of every checkpoint that takes part."""
    segmenters = [part for part in (config.segmenter, config.other) if part is not None]
    found = [place for part in segmenters for place in resolved_checkpoints(part).values()]
    for box_part in (config.detector, config.expert, config.captioner):
        if box_part is not None:
            found += [resolve(checkpoint) for checkpoint in checkpoints_of(box_part).values()]
    return [file for place in found for file in place.weight_files]


def planes_of_scores(config: AnnotatorConfig) -> int:
    """Planes of an image's pixels that scores take at once."""
    return max((planes_in_memory(part) for part in (config.segmenter, config.other) if part), default=0)


def check_annotator_licences(config: AnnotatorConfig) -> None:
    """Raise `CheckpointError` where a checkpoint's licence must be accepted first and is not."""
    for segmenter in (config.segmenter, config.other):
        if segmenter is not None:
            check_licences(segmenter)


def check_annotator_models(config: AnnotatorConfig, vocabulary: Vocabulary) -> None:
    """Raise `CheckpointError` where models do not fit the config or each other, `VocabularyError` where the detector
    cannot read a name. Reads configs and tokenizers, no weights.
    """
    for segmenter in (config.segmenter, config.other):
        if segmenter is not None:
            check_models(segmenter)
    if isinstance(config.detector, LlmDetConfig):
        place = resolve(config.detector.llmdet)
        check_detector_model(place)
        names = asked_names(config.detector, vocabulary).names
        check_detector_names(place, names, names_per_prompt=config.detector.reading.names_per_prompt)
    if config.captioner is not None:
        check_florence2(resolve(config.captioner.florence2))
    if config.expert is not None:
        read_fgclip2_config(resolve(config.expert.fgclip2))
