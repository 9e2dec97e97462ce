"""What the miniature LLMDet and FG-CLIP 2 reach together on held-out scenes, with numbers fitted on validation scenes.

Names of plain nouns, names of a colour and a noun, presence, chances of scores, masks from the fused segmenter. All of
it is about the drawn world and says nothing about photographs.

python -m benchmarks.box_quality [--scenes 300] [--fit-scenes 200] [--only nouns,colours,presence,chances,masks]
    [--language en] [--detector FOLDER] [--plot reliability.png] [--write FOLDER] [--json FILE]

`--detector FOLDER` takes another LLMDet, such as one that was never told what is absent: published detectors learn
from captions, which name what a picture shows. `train_llmdet_miniature.yaml` makes one with
`--set program.told_absent=false --set loop.num_steps=2400`.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.miniature_quality import Row, markdown
from jobs.named_settings import named_detector, named_segmenter
from ovsops.annotators.build import compute_annotator_text, expert_classes, load_annotator
from ovsops.annotators.calibrated import class_groups
from ovsops.annotators.config import AnnotatorConfig, ExpertConfig
from ovsops.annotators.fingerprint import score_fingerprint
from ovsops.annotators.fitting import (
    FitConfig,
    FittedExpert,
    Observed,
    TrueBoxes,
    default_presence,
    detection_counts,
    fit_chances,
    fit_expert,
    judged_outcomes,
    observe,
)
from ovsops.annotators.judging import JudgedBoxes, judge_boxes, unjudged
from ovsops.annotators.regions import InstancesConfig, cut_regions
from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.detections import Detections
from ovsops.masks.regions import RegionConfig
from ovsops.metrics.bootstrap import BootstrapConfig, Interval
from ovsops.metrics.calibration import calibration_error, reliability_table
from ovsops.metrics.detection import DetectionConfig, DetectionCounts, ap_interval
from ovsops.metrics.objects import true_objects
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.regions.calibration import ScoreCalibrator
from ovsops.segmenters.kinds import compute_text, load_segmenter
from ovsops.text.vocabulary import Vocabulary
from ovsops.training.box_quality import (
    BoxScene,
    ap50_difference,
    as_the_gate_says,
    box_scenes,
    colour_noun_vocabulary,
    concept_counts,
    concept_intervals,
    half_absent,
    region_objects,
    spread_over_groups,
)
from ovsops.training.shipping import world_vocabulary
from pipelines.evaluation.plots import reliability_diagram

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--fit-scenes", type=int, default=200)
    parser.add_argument("--only", default="nouns,colours,presence,chances,masks")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument("--detector", default="miniature:llmdet", help="a folder; the shipped one by default")
    parser.add_argument("--plot", type=Path, help="reliability before and after, as PNG")
    parser.add_argument("--write", type=Path, help="write expert.yaml and the calibrator here")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = arguments.only.split(",")
    options = {
        "language": arguments.language,
        "detector_source": arguments.detector,
        "sizes": (arguments.fit_scenes, arguments.scenes),
    }
    figures: dict[str, list[Row]] = {}
    nouns = study(world_vocabulary(), "classes", **options)
    if "nouns" in chosen:
        figures["nouns"] = recalibration_table(nouns)
    if "colours" in chosen:
        colours = study(colour_noun_vocabulary(), "groups", **options)
        figures["colour and noun"] = recalibration_table(colours)
    if "presence" in chosen:
        figures["presence, half of the prompts absent"] = presence_table(nouns)
    if "chances" in chosen:
        figures["chances"] = chances_table(nouns, arguments.plot, arguments.write)
    if "masks" in chosen:
        figures["masks"] = mask_table(nouns)
    for name, rows in figures.items():
        print(f"\n{name}: {arguments.scenes} test scenes, prompts in {arguments.language}\n")
        print(markdown(rows), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8")


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


def recalibration_table(found: Study) -> list[Row]:
    """The detector alone, the published mean, and what the tuning chose; the guard's word beside it."""
    alone = [
        spread_over_groups(o.found, found.competing)
        if found.annotators.detector.ask == "groups"  # type: ignore[union-attr]
        else unjudged(o.found)
        for o in found.test
    ]
    bare = replace(found.fitted.config, presence=None)
    rows: list[Row] = []
    tuned = found.fitted.tuned.config
    systems = {"detector alone": alone}
    if tuned is not None:
        published = replace(
            bare, recalibration=replace(tuned, mode="global", alpha=0.5, beta=0.5, scale=100.0)
        )
        systems["global, geometric mean (published)"] = found.judged(published)
        systems[f"tuned: {tuned.mode}, {tuned.alpha:g}/{tuned.beta:g}, scale {tuned.scale:g}"] = found.judged(
            replace(bare, recalibration=tuned)
        )
    before = detection_counts(alone, found.truths())
    for name, judged in systems.items():
        counts = detection_counts(judged, found.truths())
        interval = ap_interval(counts, config=DRAWS)
        change = ap50_difference(counts, before, DRAWS)
        rows.append(
            {
                "scores": name,
                "AP": shown(interval, 0),
                "AP50": shown(interval, 1),
                "change of AP50": ""
                if name == "detector alone"
                else f"{change.value:+.3f} ({change.low:+.3f} to {change.high:+.3f})",
            }
        )
    agnostic = ap_interval(
        detection_counts(alone, found.truths(), config=DetectionConfig(is_class_agnostic=True)), config=DRAWS
    )
    rows.append(
        {
            "scores": "detector alone, names not looked at",
            "AP": shown(agnostic, 0),
            "AP50": shown(agnostic, 1),
            "change of AP50": "",
        }
    )
    verdict = found.fitted.verdict
    guard = "the detector alone was best" if verdict is None else verdict.reason
    print(
        f"\nguard on {found.vocabulary.name}: {'refused: ' if verdict and verdict.is_refused else ''}{guard}"
    )
    if verdict is not None:
        print(f"region classifier alone: {verdict.classifier_accuracy:.3f}, chance {verdict.chance:.3f}")
    return rows


def presence_table(found: Study) -> list[Row]:
    """IL_MCC and cgF1 at the threshold that was best on validation, and at 0.5, which is the metric's own.

    The last row takes presence from the gate alone: its chance that a class is there, from the threshold on that was
    fitted with it; boxes of what is there count from the score of the column on, at least the best one.
    """
    things = [i for i, spec in enumerate(found.vocabulary.classes) if spec.kind == "thing"]
    config = found.fitted.config
    assert config.presence is not None
    bare = replace(config, presence=None)
    fit_truths = [o.truth for o in found.fitting]
    fit_asked = half_absent(fit_truths, things, seed=1)
    asked = half_absent(found.truths(), things)
    gated = replace(config, presence=replace(config.presence, keep=0.0, low=0.0))
    rows: list[Row] = []
    systems = {
        "detector alone": (
            [unjudged(o.found) for o in found.fitting],
            [unjudged(o.found) for o in found.test],
        ),
    }
    if bare.recalibration is not None:
        systems["recalibrated"] = (fitting_boxes(found, bare), found.judged(bare))
    chances = chances_of(found, bare)
    systems["chances instead of scores"] = (
        [chances(boxes) for boxes in fitting_boxes(found, bare)],
        [chances(boxes) for boxes in found.judged(bare)],
    )
    systems["without the classes that the gate calls absent"] = (
        fitting_boxes(found, gated),
        found.judged(gated),
    )
    systems["presence is the gate's word"] = systems["without the classes that the gate calls absent"]
    for name, (fitting, test) in systems.items():
        present = config.presence.gate.present if name == "presence is the gate's word" else None
        counted = partial(counts_at, present=present)
        best = max(
            np.linspace(0.05, 0.6, 12).tolist(),
            key=lambda t: float(cg_of(counted(fitting, fit_truths, fit_asked, t))),
        )
        mcc, cgf1 = concept_intervals(counted(test, found.truths(), asked, best), DRAWS)
        fixed = counted(test, found.truths(), asked, 0.5)
        rows.append(
            {
                "boxes": name,
                "threshold (fitted)": f"{best:.2f}",
                "IL_MCC": shown(mcc),
                "cgF1": shown(cgf1),
                "IL_MCC at 0.5": shown(concept_intervals(fixed, DRAWS)[0]),
                "cgF1 at 0.5": shown(concept_intervals(fixed, DRAWS)[1]),
            }
        )
    return rows


def counts_at(
    boxes: Sequence[JudgedBoxes],
    truths: Sequence[TrueBoxes],
    asked: Sequence[Sequence[int]],
    threshold: float,
    *,
    present: float | None,
) -> np.ndarray:
    """Counts of boxes from a score on; with `present` the gate says from that presence score on what is there."""
    if present is not None:
        boxes = [as_the_gate_says(each, present=present, threshold=threshold) for each in boxes]
    return concept_counts(boxes, truths, asked=asked, threshold=threshold)


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


def fitting_boxes(found: Study, config: ExpertConfig) -> list[JudgedBoxes]:
    """The fitting split's boxes under a config."""
    return [judge_boxes(o.look, o.found, config, competing=found.competing) for o in found.fitting]


def cg_of(rows: np.ndarray) -> float:
    """cgF1 of all images; nan counts as nothing."""
    return float(np.nan_to_num(concept_intervals(rows, BootstrapConfig(num_resamples=1))[1].value))


def chances_table(found: Study, plot: Path | None, write: Path | None) -> list[Row]:
    """ECE of final scores before and after the calibrator, on the test split."""
    config = replace(found.fitted.config, presence=None)
    calibrator = fitted_calibrator(found, config)
    scores, right, labels = judged_outcomes(found.test, config, competing=found.competing, fit=FITTING)
    chances = calibrator.calibrated(
        scores, class_groups(found.vocabulary)[labels], fingerprint=calibrator.fingerprint
    )
    tables = [reliability_table(values, right, num_bins=15) for values in (scores, chances)]
    before, after = (float(calibration_error(table)) for table in tables)
    if plot is not None:
        plot.write_bytes(reliability_diagram(dict(zip(("scores", "chances"), tables, strict=True))))
    if write is not None:
        write.mkdir(parents=True, exist_ok=True)
        (write / "boxes.json").write_text(json.dumps(calibrator.to_json(), indent=1) + "\n", "utf-8")
    return [
        {
            "scores": "as joined",
            "ECE": f"{before:.3f}",
            "boxes": f"{len(scores)}",
            "right": f"{right.mean():.3f}",
        },
        {"scores": "calibrated", "ECE": f"{after:.3f}", "boxes": "", "right": ""},
    ]


def mask_table(found: Study) -> list[Row]:
    """AP of masks that boxes cut out of the fused segmenter's map, beside the AP of the boxes themselves."""
    config = named_segmenter("fused_miniature")
    text = compute_text(config, found.vocabulary, ("en",))
    segmenter = load_segmenter(config, found.vocabulary, text.to_bytes())
    judged = found.judged(replace(found.fitted.config, presence=None))
    masks, boxes = [], []
    for number, (scene, each) in enumerate(zip(found.scenes, judged, strict=True)):
        [class_map] = segmenter.segment([scene.image])
        cut = cut_regions(
            class_map,
            found.vocabulary.classes,
            size_hw=(scene.image.shape[0], scene.image.shape[1]),
            regions=RegionConfig(),
            boxes=Detections(boxes_xyxy=each.boxes_xyxy, scores=each.scores, labels=each.labels),
            instances=InstancesConfig(),
        )
        regions = [c.region for c in cut.regions if c.box is not None]
        truth = true_objects(scene.truth, masks=scene.masks)
        objects = region_objects(regions, found.vocabulary)
        masks.append(DetectionCounts.of_image(number, objects, truth, config=DetectionConfig(kind="mask")))
        boxes.append(DetectionCounts.of_image(number, objects, truth))
    raw = ap_interval(detection_counts(judged, found.truths()), config=DRAWS)
    tight = ap_interval(DetectionCounts.of_parts(boxes), config=DRAWS)
    drawn = ap_interval(DetectionCounts.of_parts(masks), config=DRAWS)
    return [
        {"objects": name, "AP": shown(each, 0), "AP50": shown(each, 1), "AP75": shown(each, 2)}
        for name, each in (
            ("boxes of the detector", raw),
            ("tight boxes of the masks", tight),
            ("masks: box and segmenter", drawn),
        )
    ]


if __name__ == "__main__":
    main()
