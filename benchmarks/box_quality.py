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
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.boxes.presence import presence_table
from benchmarks.boxes.study import (
    DRAWS,
    FITTING,
    Study,
    fitted_calibrator,
    shown,
    study,
)
from benchmarks.miniature_quality import Row, markdown
from jobs.named_settings import named_segmenter
from ovsops.annotators.calibrated import class_groups
from ovsops.annotators.fitting import (
    detection_counts,
    judged_outcomes,
)
from ovsops.annotators.judging import unjudged
from ovsops.annotators.regions import InstancesConfig, cut_regions
from ovsops.backbones.detections import Detections
from ovsops.masks.regions import RegionConfig
from ovsops.metrics.calibration import calibration_error, reliability_table
from ovsops.metrics.detection import DetectionConfig, DetectionCounts, ap_interval
from ovsops.metrics.objects import true_objects
from ovsops.segmenters.kinds import compute_text, load_segmenter
from ovsops.training.box_quality import (
    ap50_difference,
    colour_noun_vocabulary,
    region_objects,
    spread_over_groups,
)
from ovsops.training.shipping import world_vocabulary
from pipelines.evaluation.plots import reliability_diagram


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
