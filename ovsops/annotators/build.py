"""From the parts of a recipe to a loaded annotator. The one place of annotators that loads weights."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovsops.annotators.annotator import Annotator, BoxFinder, MapsAndBoxes
from ovsops.annotators.calibrated import BoxCalibrator, class_groups
from ovsops.annotators.captioner import CAPTIONER_LANGUAGE, BoxCaptioner, captioner_classes
from ovsops.annotators.config import (
    AnyCaptionerConfig,
    AnyDetectorConfig,
    ExpertConfig,
    LlmDetConfig,
    ProposalDetectorConfig,
    Sam3DetectorConfig,
)
from ovsops.annotators.expert import ExpertClasses, RegionExpert
from ovsops.annotators.expert_text import ExpertText, compute_expert_text
from ovsops.annotators.finders import LlmDetFinder, ProposalFinder, Sam3Finder
from ovsops.annotators.names import (
    ClassPrompt,
    DetectorNames,
    competing_classes,
    detector_names,
    exclusive_groups,
    first_prompts,
    group_names,
    rival_classes,
)
from ovsops.backbones.checkpoint import checkpoints_of, pin_checkpoints, read_config, resolve
from ovsops.backbones.fgclip2 import FgClip2
from ovsops.backbones.fgclip2_model import fgclip2_config
from ovsops.backbones.florence2 import Florence2, check_florence2
from ovsops.backbones.mm_grounding_dino import (
    LlmDet,
    check_detector_model,
    check_detector_names,
)
from ovsops.errors import ConfigError, VocabularyError
from ovsops.regions.calibration import ScoreCalibrator
from ovsops.regions.exclusive import ExclusiveConfig
from ovsops.regions.said import FLORENCE2
from ovsops.segmenters.build import tensor_dtype
from ovsops.segmenters.kinds import (
    AnySegmenterConfig,
    check_licences,
    check_models,
    checkpoint_identities,
    compute_text,
    load_segmenter,
    planes_in_memory,
    resolved_checkpoints,
)
from ovsops.segmenters.sam3 import Sam3Segmenter, phrases
from ovsops.segmenters.sam3_boxes import Sam3BoxPrompter
from ovsops.text.prompts import class_prompts
from ovsops.text.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class AnnotatorConfig:
    """Who takes part. At least a segmenter or a detector."""

    segmenter: AnySegmenterConfig | None = None
    detector: AnyDetectorConfig | None = None
    expert: ExpertConfig | None = None
    captioner: AnyCaptionerConfig | None = None
    other: AnySegmenterConfig | None = None
    """A second segmenter, whose opinion is compared with the first one's."""
    exclusive: ExclusiveConfig = field(default_factory=ExclusiveConfig)
    calibrator: ScoreCalibrator | None = None

    def __post_init__(self) -> None:
        if self.segmenter is None and self.detector is None:
            raise ConfigError("neither segmenter nor detector: give one of them, or both")
        needs_map = isinstance(self.detector, ProposalDetectorConfig)
        if needs_map and self.segmenter is None:
            raise ConfigError(
                "detector.kind is proposals: they are parts of a segmenter's map; add `segmenter`"
            )
        if isinstance(self.detector, Sam3DetectorConfig) and getattr(self.segmenter, "kind", "") != "sam3":
            raise ConfigError(
                "detector.kind is sam3: `segmenter` must be of kind sam3, too; it is asked once for both"
            )
        if isinstance(self.detector, LlmDetConfig) and self.detector.masks == "sam3":
            if getattr(self.segmenter, "kind", "") != "sam3":
                raise ConfigError(
                    "detector.masks is sam3: `segmenter` must be of kind sam3, which is shown the boxes"
                )
        if self.expert is not None and self.detector is None:
            raise ConfigError(
                "expert: there is no detector whose boxes it could judge; add `detector` (`{kind: proposals}` takes "
                "the segmenter's own things)"
            )
        if self.captioner is not None and self.detector is None:
            raise ConfigError(
                "captioner: there is no detector whose boxes it could describe; add `detector` (`{kind: proposals}` "
                "takes the segmenter's own things), or use `ask`, which describes every region"
            )
        if self.other is not None and self.segmenter is None:
            raise ConfigError("agreement: there is no first segmenter to compare with; add `segmenter`")
        if isinstance(self.detector, LlmDetConfig) and self.detector.ask == "groups":
            recalibration = None if self.expert is None else self.expert.recalibration
            if recalibration is None or recalibration.mode == "keep":
                raise ConfigError(
                    "detector.ask is groups: which class of the group a box shows must be said by `expert` with "
                    "recalibration.mode competing or global"
                )


@dataclass(frozen=True, kw_only=True)
class AnnotatorText:
    """What the parts computed from a vocabulary, as bytes that travel; None for a part that is not there."""

    segmenter: bytes | None = field(default=None, repr=False)
    expert: bytes | None = field(default=None, repr=False)
    other: bytes | None = field(default=None, repr=False)
    identity: str = ""
    """What they were computed from."""


def compute_annotator_text(
    config: AnnotatorConfig,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    cache_dir: Path | None = None,
) -> AnnotatorText:
    """The vocabulary's features in every text space that takes part, cached on disk."""
    options: dict[str, Any] = {"device": device, "dtype": dtype, "cache_dir": cache_dir}
    own = (
        None if config.segmenter is None else compute_text(config.segmenter, vocabulary, languages, **options)
    )
    other = None if config.other is None else compute_text(config.other, vocabulary, languages, **options)
    expert = (
        None
        if config.expert is None
        else compute_expert_text(config.expert, vocabulary, languages, **options)
    )
    present = [part.identity for part in (own, expert, other) if part is not None]
    return AnnotatorText(
        segmenter=None if own is None else own.to_bytes(),
        expert=None if expert is None else expert.to_bytes(),
        other=None if other is None else other.to_bytes(),
        identity=" | ".join(present),
    )


def load_annotator(
    config: AnnotatorConfig,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    text: AnnotatorText,
    *,
    device: str = "cpu",
    dtype: str = "auto",
) -> Annotator:
    """Load the weights of all parts; `text` is what `compute_annotator_text` gave for the same arguments."""
    options: dict[str, Any] = {"device": device, "dtype": dtype}
    segmenter = None
    if config.segmenter is not None and text.segmenter is not None:
        segmenter = load_segmenter(config.segmenter, vocabulary, text.segmenter, **options)
    other = None
    if config.other is not None and text.other is not None:
        other = load_segmenter(config.other, vocabulary, text.other, **options)
    words = first_prompts(vocabulary, languages)
    expert = None
    if config.expert is not None and text.expert is not None:
        expert = _load_expert(config.expert, vocabulary, languages, text.expert, **options)
    return Annotator(
        segmenter=segmenter,
        finder=_finder(config.detector, segmenter, vocabulary, languages, words, **options),
        prompter=_prompter(config.detector, segmenter),
        expert=expert,
        captioner=_captioner(config.captioner, expert, vocabulary, languages, **options),
        other=other,
        exclusive=(exclusive_groups(vocabulary), config.exclusive),
        calibrator=_box_calibrator(config, vocabulary),
        first_prompts=words,
    )


def _captioner(
    config: AnyCaptionerConfig | None,
    expert: RegionExpert | None,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    *,
    device: str,
    dtype: str,
) -> BoxCaptioner | None:
    if config is None:
        return None
    number = tensor_dtype(dtype, device=device)
    model = Florence2(resolve(config.florence2), config.reading, device=device, dtype=number)
    grounder = None if expert is None else expert.grounder(config, language=CAPTIONER_LANGUAGE)
    classes = captioner_classes(vocabulary, languages, is_checked=grounder is not None)
    return BoxCaptioner(
        model, source=FLORENCE2, classes=classes, max_regions=config.max_regions, grounder=grounder
    )


def asked_names(config: LlmDetConfig, vocabulary: Vocabulary) -> DetectorNames:
    """What the detector is asked for."""
    if config.ask == "groups":
        return group_names(vocabulary)
    return detector_names(vocabulary, config.languages)


def _finder(
    config: AnyDetectorConfig | None,
    segmenter: Any,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    words: Sequence[ClassPrompt],
    *,
    device: str,
    dtype: str,
) -> BoxFinder | MapsAndBoxes | None:
    match config:
        case None:
            return None
        case LlmDetConfig():
            model = LlmDet(
                resolve(config.llmdet),
                device=device,
                dtype=tensor_dtype(dtype, device=device),
                config=config.reading,
            )
            return LlmDetFinder(model, asked_names(config, vocabulary))
        case ProposalDetectorConfig():
            return ProposalFinder(config.proposals, vocabulary.classes, words)
        case Sam3DetectorConfig():
            if not isinstance(segmenter, Sam3Segmenter):
                raise ConfigError("detector.kind is sam3, but the segmenter is not")
            return Sam3Finder(segmenter, _sam3_prompts(vocabulary, languages))


def _prompter(config: AnyDetectorConfig | None, segmenter: Any) -> Sam3BoxPrompter | None:
    """What draws masks for boxes, where the recipe wants that."""
    if isinstance(config, LlmDetConfig) and config.masks == "sam3":
        return Sam3BoxPrompter(segmenter, config.sam3_boxes)
    return None


def _sam3_prompts(vocabulary: Vocabulary, languages: Sequence[str]) -> tuple[ClassPrompt, ...]:
    """Class and language of each phrase of SAM 3's text features, in their order; label -1 for background."""
    table = class_prompts(vocabulary, tuple(languages))
    language: dict[tuple[int, str], str] = {}
    for entry in (*table.of_role("class"), *table.of_role("background")):
        language.setdefault((entry.class_index + 1, entry.prompt), entry.language)
    return tuple(
        ClassPrompt(label=owner - 1, prompt=prompt, language=language[owner, prompt])
        for owner, prompt in zip(*phrases(table), strict=True)
    )


def _load_expert(
    config: ExpertConfig,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    text: bytes,
    *,
    device: str,
    dtype: str,
) -> RegionExpert:
    features = ExpertText.from_bytes(text)
    if features.class_ids != vocabulary.ids:
        raise ConfigError(
            f"vocabulary {vocabulary.name}: its ids are not those of the expert's text; compute it again"
        )
    model = FgClip2(resolve(config.fgclip2), device=device, dtype=tensor_dtype(dtype, device=device))
    return RegionExpert(
        config, features, model, classes=expert_classes(config, vocabulary, languages), device=device
    )


def expert_classes(config: ExpertConfig, vocabulary: Vocabulary, languages: Sequence[str]) -> ExpertClasses:
    """What the expert knows of the classes. Raises `VocabularyError` where a caption's noun is missing."""
    language = config.caption_language or languages[0]
    nouns = first_prompts(vocabulary, (language, *languages))
    foreign = [
        spec.name for spec, words in zip(vocabulary.classes, nouns, strict=True) if words.language != language
    ]
    if config.captions is not None and foreign:
        raise VocabularyError(
            f"vocabulary {vocabulary.name}: captions are written in {language}, and {', '.join(foreign[:5])} "
            f"has no prompt there; add one, or set expert.caption_language"
        )
    return ExpertClasses(
        competing=competing_classes(vocabulary, config.competing_by),
        rivals=rival_classes(vocabulary),
        names=tuple(spec.name for spec in vocabulary.classes),
        nouns=tuple(words.prompt for words in nouns),
        is_stuff=tuple(spec.kind == "stuff" for spec in vocabulary.classes),
        caption_language=language,
    )


def _box_calibrator(config: AnnotatorConfig, vocabulary: Vocabulary) -> BoxCalibrator | None:
    if config.calibrator is None:
        return None
    return BoxCalibrator(
        calibrator=config.calibrator,
        groups=class_groups(vocabulary),
        fingerprint=score_fingerprint(config, vocabulary),
    )


def check_calibrator(config: AnnotatorConfig, vocabulary: Vocabulary) -> None:
    """Raise `CheckpointError` for a calibrator that was fitted on the scores of other models or settings."""
    found = _box_calibrator(config, vocabulary)
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
        expert = resolve(config.expert.fgclip2)
        fgclip2_config(read_config(expert), place=str(expert.folder))


def one_thread_on_a_cpu(device: str) -> None:
    """On a CPU one thread a process: two under load were ten times slower."""
    if device == "cpu":
        torch.set_num_threads(1)
