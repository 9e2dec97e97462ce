"""Numbers of the expert and of scores, fitted on images whose true boxes are known.

Images are observed once (detector and expert run); then numbers are fitted in the order in which they act:

    exponents, mode and scale   by AP50 on one half of the images, and judged by the guard on the other
    presence gate               on the first half, with those
    chances of scores           on the other half, with all of it

So no number is fitted on what an earlier one was fitted on, but for the gate. Report figures on other images than
all of these. Axes: N boxes, K true boxes, C classes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from ovsops.annotators.annotator import Annotator, BoxFinder, Pixels
from ovsops.annotators.config import ExpertConfig, PresenceConfig
from ovsops.annotators.judging import ExpertLook, JudgedBoxes, judge_boxes, presence_evidence
from ovsops.backbones.detections import Detections
from ovsops.errors import ConfigError
from ovsops.masks.box_nms import box_iou
from ovsops.metrics.concepts import PAIRS_BOTH, PAIRS_FOUND, PAIRS_NEITHER, PAIRS_TRUE, il_mcc
from ovsops.metrics.detection import DetectionConfig, DetectionCounts
from ovsops.metrics.objects import found_objects, true_objects
from ovsops.regions.calibration import CalibrationConfig, ScoreCalibrator, fit_calibrator
from ovsops.regions.presence import EVIDENCE, GateConfig, PresenceGate, fit_gate
from ovsops.regions.tuning import (
    NO_TRUTH,
    GuardConfig,
    KnownRegions,
    Tuned,
    TuningGrid,
    Verdict,
    check_classifier,
    judge,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrueBoxes:
    """All things of an image that belong to a class of the vocabulary."""

    boxes_xyxy: Float[Tensor, "K 4"]
    labels: Int64[Tensor, " K"]
    """Places of classes, from 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """One image: what was found, what the expert saw of it, and what is true."""

    found: Detections
    look: ExpertLook
    truth: TrueBoxes


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What is tried, and when a fit is refused."""

    grid: TuningGrid = field(default_factory=TuningGrid)
    guard: GuardConfig = field(default_factory=GuardConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    match_iou: float = 0.5
    """A box is of a true one from this IoU on."""

    def __post_init__(self) -> None:
        if not 0 < self.match_iou <= 1:
            raise ConfigError(f"fit.match_iou is {self.match_iou}; it must lie in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class PresenceVerdict:
    """How well is said whether a class is in an image, over all images and asked classes: IL_MCC (arXiv:2511.16719)."""

    gate: float
    """By the gate's chance, from its threshold on; nan where every class is in every image or none is."""
    detector: float
    """By a box of the detector with a score of 0.5 or more."""


@dataclass(frozen=True, kw_only=True)
class FittedExpert:
    """An expert's config with fitted numbers, and why they are these."""

    config: ExpertConfig
    tuned: Tuned
    verdict: Verdict | None
    """Of the guard, on other images than those of the tuning; None where the detector alone was best."""
    presence: PresenceVerdict | None = None
    """Of the gate, on other images than it was fitted on; None without one."""


def observe(
    annotator: Annotator, samples: Iterable[tuple[Pixels, TrueBoxes]], *, images_at_once: int = 8
) -> Iterator[Observed]:
    """Run detector and expert on images, once. Raises `ConfigError` for an annotator without either."""
    if annotator.expert is None or not isinstance(annotator.finder, BoxFinder):
        raise ConfigError("there is nothing to fit: the recipe needs `detector` (no sam3) and `expert`")
    finder, expert = annotator.finder, annotator.expert
    for batch in _batches(samples, images_at_once):
        images = [image for image, _ in batch]
        maps = [None] * len(images) if annotator.segmenter is None else annotator.segmenter.segment(images)
        found = finder.find(images, maps)
        seen = expert.see(images)
        for each, view, (_, truth) in zip(found, seen, batch, strict=True):
            look = expert.look(view, expert.regions(view, each.detections.boxes_xyxy))
            yield Observed(found=each.detections, look=look, truth=truth)


def fit_expert(
    observed: Sequence[Observed],
    config: ExpertConfig,
    *,
    competing: Int64[Tensor, " C"],
    has_groups: bool,
    asked: Sequence[int],
    fit: FitConfig | None = None,
) -> FittedExpert:
    """Recalibration by tuning and guard, then the presence gate on the classes `asked` (places of things).

    Where the guard refuses, or the detector alone is best, `recalibration` is None.
    """
    fit = fit or FitConfig()
    first, second = observed[::2], observed[1::2]
    bare = replace(config, presence=None)
    tuned = tuned_by_ap50(first, bare, competing=competing, has_groups=has_groups, fit=fit)
    verdict = None
    chosen = tuned.config
    if chosen is not None:
        verdict = guarded(second, replace(bare, recalibration=chosen), competing=competing, fit=fit)
        chosen = None if verdict.is_refused else chosen
    full = replace(bare, recalibration=chosen)
    presence = None
    if config.presence is not None:
        gate = fitted_gate(first, full, competing=competing, asked=asked, fit=fit)
        presence = judged_presence(second, full, gate, competing=competing, asked=asked)
        full = replace(full, presence=replace(config.presence, gate=gate))
    return FittedExpert(config=full, tuned=tuned, verdict=verdict, presence=presence)


def tuned_by_ap50(
    observed: Sequence[Observed],
    config: ExpertConfig,
    *,
    competing: Int64[Tensor, " C"],
    has_groups: bool,
    fit: FitConfig,
) -> Tuned:
    """The setting of highest AP50 after doubles are removed; of equal ones the first, the detector alone before all."""
    alone = ap50(observed, replace(config, recalibration=None), competing=competing)
    tried = [
        (each, ap50(observed, replace(config, recalibration=each), competing=competing))
        for each in fit.grid.configs(has_groups=has_groups)
    ]
    best, precision = max(tried, key=lambda pair: pair[1], default=(None, alone))
    if not precision > alone:
        best, precision = None, alone
    return Tuned(config=best, precision=precision, detector_precision=alone, tried=tuple(tried))


def guarded(
    observed: Sequence[Observed], config: ExpertConfig, *, competing: Int64[Tensor, " C"], fit: FitConfig
) -> Verdict:
    """Whether the expert may speak: it names regions better than chance, and AP50 does not fall."""
    assert config.recalibration is not None, "there is a recalibration to judge"
    known = known_regions(observed, competing, fit.match_iou)
    check = check_classifier(known, config.recalibration, guard=fit.guard)
    before = ap50(observed, replace(config, recalibration=None), competing=competing)
    after = ap50(observed, config, competing=competing)
    return judge(check, before=before, after=after, guard=fit.guard)


def ap50(observed: Sequence[Observed], config: ExpertConfig, *, competing: Int64[Tensor, " C"]) -> float:
    """COCO's AP50 of the judged boxes of all images; 0 where no class has a true box."""
    if not observed:
        raise ConfigError("there are no images to fit on")
    judged = [judge_boxes(each.look, each.found, config, competing=competing) for each in observed]
    counts = detection_counts(judged, [each.truth for each in observed])
    value = float(counts.average_precisions(np.ones((1, len(counts.images)), np.int64))[0, 1])
    return 0.0 if np.isnan(value) else value


def detection_counts(
    judged: Sequence[JudgedBoxes], truths: Sequence[TrueBoxes], *, config: DetectionConfig | None = None
) -> DetectionCounts:
    """COCO's counts of the boxes of all images."""
    found, true = [found_objects(each) for each in judged], [true_objects(each) for each in truths]
    return DetectionCounts.of_images(found, true, config=config)


def fitted_gate(
    observed: Sequence[Observed],
    config: ExpertConfig,
    *,
    competing: Int64[Tensor, " C"],
    asked: Sequence[int],
    fit: FitConfig,
) -> PresenceGate:
    """A gate from every (image, asked class) of the observed images."""
    evidence, is_present = _asked_presence(observed, config, competing=competing, asked=asked)
    return fit_gate(evidence, is_present, config=fit.gate)


def judged_presence(
    observed: Sequence[Observed],
    config: ExpertConfig,
    gate: PresenceGate,
    *,
    competing: Int64[Tensor, " C"],
    asked: Sequence[int],
) -> PresenceVerdict:
    """The gate's word and the detector's about every (image, asked class), against the truth."""
    evidence, is_present = _asked_presence(observed, config, competing=competing, asked=asked)
    has_box = [
        np.isin(np.array(asked), each.found.labels[each.found.scores >= 0.5].numpy()) for each in observed
    ]
    return PresenceVerdict(
        gate=_mcc(gate.chances(evidence) >= gate.present, is_present),
        detector=_mcc(np.concatenate(has_box), is_present),
    )


def _asked_presence(
    observed: Sequence[Observed],
    config: ExpertConfig,
    *,
    competing: Int64[Tensor, " C"],
    asked: Sequence[int],
) -> tuple[Float64[np.ndarray, "S E"], Bool[np.ndarray, " S"]]:
    """Evidence and truth of each sample, an image and an asked class."""
    places = np.array(asked, np.int64)
    evidence, is_present = [], []
    for each in observed:
        judged = judge_boxes(each.look, each.found, config, competing=competing)
        evidence.append(presence_evidence(each.look, judged)[places])
        is_present.append(np.isin(places, each.truth.labels.numpy()))
    return np.concatenate(evidence), np.concatenate(is_present)


def _mcc(said: Bool[np.ndarray, " S"], true: Bool[np.ndarray, " S"]) -> float:
    counts = np.zeros((7, 1))
    counts[[PAIRS_BOTH, PAIRS_FOUND, PAIRS_NEITHER, PAIRS_TRUE], 0] = [
        (said & true).sum(),
        (said & ~true).sum(),
        (~said & ~true).sum(),
        (~said & true).sum(),
    ]
    return float(il_mcc(counts))


def fit_chances(
    observed: Sequence[Observed],
    config: ExpertConfig,
    *,
    competing: Int64[Tensor, " C"],
    class_groups: Int64[np.ndarray, " C"],
    fingerprint: str,
    source: str = "truth",
    fit: FitConfig | None = None,
) -> ScoreCalibrator:
    """A map of final scores to chances, on the half of the images that tuned nothing."""
    fit = fit or FitConfig()
    scores, right, labels = judged_outcomes(observed[1::2], config, competing=competing, fit=fit)
    return fit_calibrator(
        scores,
        right,
        class_groups[labels],
        fingerprint=fingerprint,
        source=source,
        config=fit.calibration,
    )


def judged_outcomes(
    observed: Sequence[Observed],
    config: ExpertConfig,
    *,
    competing: Int64[Tensor, " C"],
    fit: FitConfig,
) -> tuple[Float64[np.ndarray, " N"], Bool[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """Score, whether it is right, and class, of every judged box of all images.

    Right is a box that is the best of its class for a true one of that class; a second box for it is wrong.
    """
    scores, right, labels = [], [], []
    for each in observed:
        judged = judge_boxes(each.look, each.found, config, competing=competing)
        scores.append(judged.scores.double().numpy())
        right.append(hits(judged, each.truth, iou=fit.match_iou))
        labels.append(judged.labels.numpy())
    nothing = np.zeros(0)
    return (
        np.concatenate(scores or [nothing]),
        np.concatenate(right or [nothing.astype(bool)]),
        np.concatenate(labels or [nothing.astype(np.int64)]),
    )


def hits(judged: JudgedBoxes, truth: TrueBoxes, *, iou: float) -> Bool[np.ndarray, " N"]:
    """Which boxes are right, best score first: each true box is found once."""
    overlaps = box_iou(judged.boxes_xyxy, truth.boxes_xyxy)
    overlaps = overlaps.masked_fill(judged.labels[:, None] != truth.labels[None], 0.0)
    is_open = torch.ones(len(truth.labels), dtype=torch.bool)
    found = np.zeros(len(judged), bool)
    for place in judged.scores.argsort(descending=True, stable=True).tolist():
        if not bool(is_open.any()):
            break
        open_overlaps = overlaps[place].masked_fill(~is_open, 0.0)
        best = int(open_overlaps.argmax())
        if float(open_overlaps[best]) >= iou:
            found[place], is_open[best] = True, False
    return found


def known_regions(
    observed: Sequence[Observed], groups: Int64[Tensor, " C"] | None, match_iou: float
) -> KnownRegions:
    """Boxes of all images with the name of the true box that they overlap most."""
    if not observed:
        raise ConfigError("there are no images to fit on")
    return KnownRegions(
        similarity=torch.cat([each.look.similarity for each in observed]),
        true_labels=torch.cat([_true_labels(each, match_iou) for each in observed]),
        groups=groups,
    )


def default_presence(*, keep: float = 0.3, low: float = 0.1) -> PresenceConfig:
    """A presence config whose gate says nothing yet, to be fitted."""
    silent = PresenceGate(names=EVIDENCE, weights=(0.0,) * len(EVIDENCE), bias=0.0, absent=0.0, present=0.0)
    return PresenceConfig(gate=silent, keep=keep, low=low)


def _true_labels(each: Observed, match_iou: float) -> Int64[Tensor, " N"]:
    if not len(each.truth.labels):
        return torch.full_like(each.found.labels, NO_TRUTH)
    best, places = box_iou(each.found.boxes_xyxy, each.truth.boxes_xyxy).max(dim=1)
    return torch.where(best >= match_iou, each.truth.labels[places], NO_TRUTH)


def _batches(
    samples: Iterable[tuple[Pixels, TrueBoxes]], size: int
) -> Iterator[list[tuple[Pixels, TrueBoxes]]]:
    batch: list[tuple[Pixels, TrueBoxes]] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
