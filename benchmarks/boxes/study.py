"""What LLMDet and FG-CLIP 2 see in two splits, observed once for one vocabulary; numbers fitted on the first split."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from jobs.named_settings import named_detector
from ovsops.annotators.build import compute_annotator_text, expert_classes, load_annotator
from ovsops.annotators.calibrated import class_groups
from ovsops.annotators.config import AnnotatorConfig, ExpertConfig
from ovsops.annotators.fingerprint import score_fingerprint
from ovsops.annotators.fitting import (
    FitConfig,
    FittedExpert,
    Observed,
    default_presence,
    fit_chances,
    fit_expert,
    observe,
)
from ovsops.annotators.judging import JudgedBoxes, judge_boxes
from ovsops.backbones.checkpoint import Checkpoint
from ovsops.metrics.bootstrap import BootstrapConfig, Interval
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.regions.calibration import ScoreCalibrator
from ovsops.text.vocabulary import Vocabulary
from ovsops.training.box_quality import (
    BoxScene,
    box_scenes,
)
from ovsops.training.shipping import world_vocabulary

DRAWS = BootstrapConfig(num_resamples=200)
FITTING = FitConfig()


@dataclass(frozen=True, kw_only=True)
class Study:
    """One vocabulary: what was observed of both splits, and the numbers that were fitted on the first."""

    vocabulary: Vocabulary
    annotators: AnnotatorConfig
    expert: ExpertConfig
    competing: torch.Tensor
    fitting: list[Observed]
    test: list[Observed]
    fitted: FittedExpert
    scenes: list[BoxScene]

    def judged(self, config: ExpertConfig) -> list[JudgedBoxes]:
        """The test split's boxes under a config."""
        return [judge_boxes(o.look, o.found, config, competing=self.competing) for o in self.test]

    def truths(self) -> list[Any]:
        """The test split's true boxes."""
        return [o.truth for o in self.test]


def study(
    vocabulary: Vocabulary,
    ask: Literal["classes", "groups"],
    *,
    language: str,
    detector_source: str,
    sizes: tuple[int, int],
) -> Study:
    """Observe both splits and fit on the first."""
    expert = ExpertConfig(
        fgclip2=Checkpoint(source="miniature:fgclip2"),
        presence=default_presence(),
        nms_iou=0.7,
        min_score=0.0,
    )
    checkpoint = {"source": detector_source}
    detector = named_detector("llmdet_miniature", languages=[language], ask=ask, llmdet=checkpoint)
    if language == "zh" and ask == "groups":
        vocabulary = in_chinese(vocabulary)
    annotators = AnnotatorConfig(detector=detector, expert=expert)
    text = compute_annotator_text(annotators, vocabulary, (language,))
    annotator = load_annotator(annotators, vocabulary, (language,), text)
    classes = expert_classes(expert, vocabulary, (language,))
    split = {"validation": sizes[0], "test": sizes[1]}
    scenes = {
        name: list(box_scenes(map(draw_scene, seeds_of(name)[:count]), vocabulary))  # type: ignore[arg-type]
        for name, count in split.items()
    }
    observed = {
        name: list(observe(annotator, ((s.image, s.truth) for s in some))) for name, some in scenes.items()
    }
    fitted = fit_expert(
        observed["validation"],
        expert,
        competing=classes.competing,
        has_groups=True,
        asked=[i for i, spec in enumerate(vocabulary.classes) if spec.kind == "thing"],
        fit=FITTING,
    )
    return Study(
        vocabulary=vocabulary,
        annotators=annotators,
        expert=expert,
        competing=classes.competing,
        fitting=observed["validation"],
        test=observed["test"],
        fitted=fitted,
        scenes=scenes["test"],
    )


def in_chinese(vocabulary: Vocabulary) -> Vocabulary:
    """The same classes with groups in Chinese, for a detector that is asked for groups."""
    nouns = {spec.name: spec.prompts["zh"][0] for spec in world_vocabulary().classes}
    return replace(
        vocabulary,
        classes=tuple(replace(spec, group=nouns[spec.group]) for spec in vocabulary.classes),
    )


def shown(interval: Interval, place: int | None = None) -> str:
    """`0.843 (0.821 to 0.860)`."""
    value, low, high = (
        np.atleast_1d(each)[place or 0] for each in (interval.value, interval.low, interval.high)
    )
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def fitting_boxes(found: Study, config: ExpertConfig) -> list[JudgedBoxes]:
    """The fitting split's boxes under a config."""
    return [judge_boxes(o.look, o.found, config, competing=found.competing) for o in found.fitting]


def fitted_calibrator(found: Study, config: ExpertConfig) -> ScoreCalibrator:
    """Chances of the final scores under a config, from validation scenes."""
    final = replace(found.annotators, expert=config)
    return fit_chances(
        found.fitting,
        config,
        competing=found.competing,
        class_groups=class_groups(found.vocabulary),
        fingerprint=score_fingerprint(final, found.vocabulary),
        fit=FITTING,
    )


def chances_of(found: Study, config: ExpertConfig) -> Callable[[JudgedBoxes], JudgedBoxes]:
    """The same boxes with the calibrator's chances as their scores."""
    groups = class_groups(found.vocabulary)
    calibrator = fitted_calibrator(found, config)

    def replaced(judged: JudgedBoxes) -> JudgedBoxes:
        chances = calibrator.calibrated(
            judged.scores.double().numpy(), groups[judged.labels.numpy()], fingerprint=calibrator.fingerprint
        )
        return replace(judged, scores=torch.from_numpy(chances).float())

    return replaced
