"""`ovsops fit`: numbers of a label recipe's expert and of its scores, from images whose boxes are known."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console

from jobs.label_recipe import LabelRecipe
from jobs.label_resolve import ResolvedLabel, resolve
from jobs.recipe import LoadedRecipe
from jobs.truth import find_object_truth
from ovsops.annotators.annotator import Pixels
from ovsops.annotators.build import (
    compute_annotator_text,
    expert_classes,
    load_annotator,
    one_thread_on_a_cpu,
)
from ovsops.annotators.calibrated import class_groups
from ovsops.annotators.config import AnnotatorConfig
from ovsops.annotators.fingerprint import score_fingerprint
from ovsops.annotators.fit_support import FitSupport, fit_support
from ovsops.annotators.fitting import (
    FitConfig,
    FittedExpert,
    Observed,
    TrueBoxes,
    default_presence,
    fit_chances,
    fit_expert,
    judged_outcomes,
    observe,
)
from ovsops.errors import ConfigError, ImageDecodeError, RowError
from ovsops.images.decode import decode_image
from ovsops.metrics.calibration import calibration_error, reliability_table
from ovsops.regions.calibration import ScoreCalibrator
from ovsops.text.vocabulary import Vocabulary
from pipelines.evaluation.classes import check_same_classes
from pipelines.evaluation.coco_truth import CocoInstancesTruth
from pipelines.evaluation.labelled import LabelledImage
from pipelines.evaluation.plots import reliability_diagram
from pipelines.evaluation.truths import TruthSource
from pipelines.readers import read_shard

logger = logging.getLogger(__name__)

EXPERT, CALIBRATOR, REPORT, PLOT = "expert.yaml", "calibrator.json", "fit.json", "reliability.png"
"""What a fit writes into its folder."""
_NUM_BINS = 15
_LOG_EVERY = 50


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What was fitted, and how good it is on the images that fitted something else."""

    expert: FittedExpert
    calibrator: ScoreCalibrator
    num_images: int
    num_skipped: Mapping[str, int]
    """Images that were left out, by reason."""
    error_before: float
    """Expected calibration error of the joined scores, on images that the calibrator was not fitted on."""
    error_after: float
    support: FitSupport
    """How many images and true boxes that was learnt from."""

    def as_plain(self) -> dict[str, Any]:
        """For a file: every setting that was tried, and the guard's word."""
        tuned, verdict = self.expert.tuned, self.expert.verdict
        return {
            "images": self.num_images,
            "skipped": dict(self.num_skipped),
            "detector_ap50": tuned.detector_precision,
            "tried": [{**asdict(config), "ap50": value} for config, value in tuned.tried],
            "chosen": None if tuned.config is None else asdict(tuned.config),
            "guard": None if verdict is None else asdict(verdict),
            "presence_il_mcc": None if self.expert.presence is None else asdict(self.expert.presence),
            "calibration_error": {"before": self.error_before, "after": self.error_after},
            "true_boxes": dict(self.support.boxes_of_group),
            "warnings": list(self.support.warnings()),
        }


def fit_recipe(
    loaded: LoadedRecipe,
    out: Path,
    *,
    num_images: int,
    with_gate: bool = False,
    config: FitConfig | None = None,
) -> Fit:
    """Observe up to `num_images` of the recipe's images, fit, and write the numbers to `out`.

    `with_gate` fits a presence gate for an expert that has none; its boxes stay from the expert's `min_score` on.

    `truth` of the recipe says whose boxes are true. Raises `ConfigError` for a recipe without detector or expert, for
    a folder that holds something else, for a truth of other classes, and where too few boxes are known.
    """
    fit = config or FitConfig()
    if loaded.recipe.detector is None or loaded.recipe.expert is None:
        raise ConfigError(
            f"{loaded.where}: a fit needs `detector` and `expert`; there is nothing else to fit"
        )
    _check_folder(out)
    resolved = resolve(loaded)
    truth = fit_truth(resolved.recipe, resolved.vocabulary)
    one_thread_on_a_cpu(resolved.recipe.model.device)
    skipped: dict[str, int] = {}
    observed = _observed(resolved, truth, num_images, skipped)
    return _fitted(resolved, observed, skipped, out, fit, with_gate=with_gate)


def _fitted(
    resolved: ResolvedLabel,
    observed: list[Observed],
    skipped: dict[str, int],
    out: Path,
    fit: FitConfig,
    *,
    with_gate: bool,
) -> Fit:
    recipe, vocabulary = resolved.recipe, resolved.vocabulary
    assert recipe.expert is not None, "checked by fit_recipe"
    start = recipe.expert
    if with_gate and start.presence is None:
        start = replace(start, presence=default_presence(keep=start.min_score, low=start.min_score))
    classes = expert_classes(start, vocabulary, recipe.languages)
    asked = [label for label, spec in enumerate(vocabulary.classes) if spec.kind == "thing"]
    expert = fit_expert(
        observed,
        start,
        competing=classes.competing,
        has_groups=bool((classes.competing.bincount() > 1).any()),
        asked=asked,
        fit=fit,
    )
    final = replace(resolved.annotators, expert=expert.config, calibrator=None)
    calibrator = fit_chances(
        observed,
        expert.config,
        competing=classes.competing,
        class_groups=class_groups(vocabulary),
        fingerprint=score_fingerprint(final, vocabulary),
        fit=fit,
    )
    # The calibrator was fitted on the other half of the images.
    scores, right, labels = judged_outcomes(
        observed[::2], expert.config, competing=classes.competing, fit=fit
    )
    chances = calibrator.calibrated(
        scores, class_groups(vocabulary)[labels], fingerprint=calibrator.fingerprint
    )
    before, after = (reliability_table(values, right, num_bins=_NUM_BINS) for values in (scores, chances))
    found = Fit(
        expert=expert,
        calibrator=calibrator,
        num_images=len(observed),
        num_skipped=skipped,
        error_before=float(calibration_error(before)),
        error_after=float(calibration_error(after)),
        support=fit_support(observed, vocabulary, calibrator),
    )
    _write(found, out)
    (out / PLOT).write_bytes(reliability_diagram({"as joined": before, "calibrated": after}))
    return found


def _write(found: Fit, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    plain = json.loads(json.dumps(asdict(found.expert.config)))
    head = "# Numbers of the region expert as `ovsops fit` found them: `expert: {use: THIS FILE}` in a recipe.\n\n"
    text = head + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    (out / EXPERT).write_text(text, "utf-8")
    (out / CALIBRATOR).write_text(json.dumps(found.calibrator.to_json(), indent=1) + "\n", "utf-8")
    (out / REPORT).write_text(json.dumps(found.as_plain(), indent=1) + "\n", "utf-8")


def _check_folder(out: Path) -> None:
    """A folder that is new, empty, or of an earlier fit: nothing else is overwritten."""
    if out.is_dir() and any(out.iterdir()) and not (out / REPORT).is_file():
        raise ConfigError(f"--out {out}: it holds something that no fit wrote; choose another folder")


def _observed(
    resolved: ResolvedLabel, truth: TruthSource, num_images: int, skipped: dict[str, int]
) -> list[Observed]:
    recipe = resolved.recipe
    parts: AnnotatorConfig = replace(resolved.annotators, other=None, captioner=None, calibrator=None)
    text = compute_annotator_text(
        parts, resolved.vocabulary, recipe.languages, dtype="float32", cache_dir=recipe.cache_dir
    )
    annotator = load_annotator(
        parts,
        resolved.vocabulary,
        recipe.languages,
        text,
        device=recipe.model.device,
        dtype=recipe.model.dtype,
    )
    samples = _samples(resolved, truth, num_images, skipped)
    observed = []
    for each in observe(annotator, samples):
        observed.append(each)
        if len(observed) % _LOG_EVERY == 0:
            logger.info("%d images observed", len(observed))
    if not observed:
        raise ConfigError(
            f"no image of {', '.join(recipe.input.shards)} has usable truth: "
            f"{', '.join(f'{code} {count}' for code, count in sorted(skipped.items())) or 'there are no images'}"
        )
    return observed


def _samples(
    resolved: ResolvedLabel, truth: TruthSource, num_images: int, skipped: dict[str, int]
) -> Iterator[tuple[Pixels, TrueBoxes]]:
    recipe, left = resolved.recipe, num_images
    for shard in resolved.shards:
        for table in read_shard(shard, recipe.input.reader, recipe.storage):
            for row in table.to_pylist():
                if left == 0:
                    return
                if row["closing"]:
                    continue
                try:
                    if row["error_code"]:
                        raise RowError(row["error_code"], row["error_message"] or "")
                    pixels = decode_image(row["image"], recipe.decode).pixels
                    image = _undecided(shard.name, row, (pixels.shape[0], pixels.shape[1]))
                    boxes = true_boxes(truth, image, resolved.vocabulary)
                except (RowError, ImageDecodeError) as error:
                    skipped[error.code] = skipped.get(error.code, 0) + 1
                    logger.warning("%s %s is left out: %s", shard.name, row["key"], error)
                    continue
                left -= 1
                yield pixels, boxes


def _undecided(shard: str, row: Mapping[str, Any], size_hw: tuple[int, int]) -> LabelledImage:
    """A row of a shard as truths are asked for it: nobody has labelled it yet."""
    return LabelledImage(
        image_uid="",
        shard=shard,
        index=0,
        key=row["key"],
        sha256=None,
        size_hw=size_hw,
        sidecar=row["sidecar"],
        status="",
        error="",
        regions=(),
    )


def fit_truth(recipe: LabelRecipe, vocabulary: Vocabulary) -> TruthSource:
    """Who knows the boxes of the recipe's images. Raises `ConfigError` for classes that are not the vocabulary's, and
    for a file in the manner of LVIS: what it does not mark in an image would be taken for absent.
    """
    truth = find_object_truth(recipe.truth, recipe.storage, vocabulary=vocabulary)
    check_same_classes(truth.classes, vocabulary, run="the recipe", truth=truth.name)
    if isinstance(truth, CocoInstancesTruth) and truth.instances.is_federated:
        raise ConfigError(
            f"truth.annotations: {truth.name} marks only some classes in each image (neg_category_ids); a fit needs"
            " images in which every class is marked, as in COCO"
        )
    return truth


def true_boxes(truth: TruthSource, image: LabelledImage, vocabulary: Vocabulary) -> TrueBoxes:
    """The single objects of an image; what COCO calls a crowd is none. Raises `RowError` where there is no truth."""
    objects = truth.objects(image)
    label_of = {class_id: label for label, class_id in enumerate(vocabulary.ids)}
    is_single = np.ones(len(objects.labels), bool) if objects.is_crowd is None else ~objects.is_crowd
    labels = [label_of[truth.classes.ids[place]] for place in objects.labels[is_single].tolist()]
    return TrueBoxes(
        boxes_xyxy=torch.from_numpy(objects.boxes_xyxy[is_single]).float(),
        labels=torch.tensor(labels, dtype=torch.int64),
    )


def print_fit(found: Fit, out: Path, console: Console) -> None:
    """What was chosen and why, in a few lines, and what is unsure."""
    tuned, verdict = found.expert.tuned, found.expert.verdict
    lines = [f"{found.num_images} images, {sum(found.num_skipped.values())} left out"]
    if tuned.config is None:
        lines.append(f"no recalibration: the detector alone was best (AP50 {tuned.detector_precision:.3f})")
    elif verdict is not None and verdict.is_refused:
        lines.append(f"no recalibration, the guard refuses: {verdict.reason}")
    elif verdict is not None:
        chosen = tuned.config
        lines.append(
            f"recalibration {chosen.mode}, alpha {chosen.alpha:g}, beta {chosen.beta:g}, scale {chosen.scale:g}: "
            f"{verdict.reason} on other images"
        )
    if (presence := found.expert.presence) is not None:
        lines.append(
            f"is a class in an image (IL_MCC): gate {presence.gate:.3f}, detector from 0.5 on {presence.detector:.3f}"
        )
    lines.append(f"calibration error of scores {found.error_before:.3f}, calibrated {found.error_after:.3f}")
    lines += [f"warning: {warning}" for warning in found.support.warnings()]
    lines.append(f"in a label recipe: expert: {{use: {out / EXPERT}}} and calibrator: {out / CALIBRATOR}")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
