"""From the parts of a recipe to a loaded annotator. The one place of annotators that loads weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ovsops.annotators.annotator import Annotator, BoxFinder, MapsAndBoxes
from ovsops.annotators.captioner import CAPTIONER_LANGUAGE, BoxCaptioner, captioner_classes
from ovsops.annotators.config import (
    AnnotatorConfig,
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
from ovsops.annotators.fingerprint import box_calibrator
from ovsops.annotators.names import (
    ClassPrompt,
    asked_names,
    competing_classes,
    exclusive_groups,
    first_prompts,
    rival_classes,
)
from ovsops.backbones.checkpoint import resolve
from ovsops.backbones.fgclip2 import FgClip2
from ovsops.backbones.florence2 import Florence2
from ovsops.backbones.mm_grounding_dino import (
    LlmDet,
)
from ovsops.errors import ConfigError, VocabularyError
from ovsops.regions.said import FLORENCE2
from ovsops.segmenters.build import tensor_dtype
from ovsops.segmenters.kinds import (
    compute_text,
    load_segmenter,
)
from ovsops.segmenters.sam3 import Sam3Segmenter, phrases
from ovsops.segmenters.sam3_boxes import Sam3BoxPrompter
from ovsops.text.prompts import class_prompts
from ovsops.text.vocabulary import Vocabulary


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
        calibrator=box_calibrator(config, vocabulary),
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


def one_thread_on_a_cpu(device: str) -> None:
    """On a CPU one thread a process: two under load were ten times slower."""
    if device == "cpu":
        torch.set_num_threads(1)
