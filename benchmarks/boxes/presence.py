"""Which of the asked classes an image shows: IL_MCC and cgF1 of boxes, of chances, and of the gate's own word."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.boxes.study import DRAWS, Study, chances_of, fitting_boxes, shown
from benchmarks.miniature_quality import Row
from ovsops.annotators.fitting import (
    TrueBoxes,
)
from ovsops.annotators.judging import JudgedBoxes, unjudged
from ovsops.metrics.bootstrap import BootstrapConfig
from ovsops.training.box_quality import (
    as_the_gate_says,
    concept_counts,
    concept_intervals,
    half_absent,
)


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


def cg_of(rows: np.ndarray) -> float:
    """cgF1 of all images; nan counts as nothing."""
    return float(np.nan_to_num(concept_intervals(rows, BootstrapConfig(num_resamples=1))[1].value))
