"""Figures of instances from their counts, with intervals from the very draws of the map figures.

Axes: B resamples, R rows that are drawn (images, or blocks of them), I images, F figures, C classes, M bins.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int64, Num

from ovsops.metrics.bootstrap import BootstrapConfig, draw_times, percentile_interval
from ovsops.metrics.calibration import calibration_error
from ovsops.metrics.concepts import (
    PAIRS_BOTH,
    PAIRS_FOUND,
    PAIRS_NEITHER,
    PAIRS_TRUE,
    il_mcc,
    pm_f1_by_overlap,
)
from ovsops.metrics.counts import mean_of_defined, ratio
from ovsops.metrics.detection import DetectionCounts
from pipelines.evaluation.classes import Classes
from pipelines.evaluation.figures import Estimate, Estimates
from pipelines.evaluation.object_counts import (
    AGNOSTIC,
    BOX,
    DETECTOR_BOX,
    FIXED,
    MASK,
    ObjectLayout,
    ObjectsConfig,
    RunObjects,
)

OBJECT_MEANINGS: Mapping[str, str] = {
    "box_ap": "AP, boxes",
    "box_ap50": "AP50, boxes",
    "box_ap75": "AP75, boxes",
    "box_ap_small": "AP, boxes, small",
    "box_ap_medium": "AP, boxes, medium",
    "box_ap_large": "AP, boxes, large",
    "box_ar100": "AR@100, boxes",
    "detector_box_ap": "AP, the detector's boxes",
    "detector_box_ap50": "AP50, the detector's boxes",
    "mask_ap": "AP, masks",
    "mask_ap50": "AP50, masks",
    "mask_ap75": "AP75, masks",
    "mask_ap_small": "AP, masks, small",
    "mask_ap_medium": "AP, masks, medium",
    "mask_ap_large": "AP, masks, large",
    "mask_ar100": "AR@100, masks",
    "agnostic_ap50": "AP50, boxes without names",
    "agnostic_ar100": "AR@100, boxes without names",
    "fixed_ap": "LVIS fixed AP, boxes",
    "cg_f1": "cgF1 (0 to 100)",
    "pm_f1": "pmF1",
    "il_mcc": "IL_MCC of what was found",
    "presence_il_mcc": "IL_MCC of presence scores",
    "verified_absent_right": "verified absent, and absent",
    "instance_ece": "ECE of instance scores, raw, by the detector's boxes",
    "instance_ece_calibrated": "ECE of instance scores, calibrated, by the detector's boxes",
}
"""What each figure is, in the order of tables."""
HEADLINES = (
    "box_ap",
    "box_ap50",
    "mask_ap",
    "agnostic_ap50",
    "cg_f1",
    "instance_ece",
    "instance_ece_calibrated",
)
"""Figures that stand out."""
PER_CLASS = ("box_ap", "box_ap50", "mask_ap")


@dataclass(frozen=True, kw_only=True)
class ObjectResults:
    """Figures of the instances of all runs; what could not be worked out for a run is nan."""

    classes: Classes
    layout: ObjectLayout
    config: ObjectsConfig
    runs: Mapping[str, RunObjects]
    estimates: Mapping[str, Estimates]
    differences: Mapping[str, Estimates] = field(default_factory=dict)
    """Of each run but the first to the first."""

    @classmethod
    def of(
        cls,
        runs: Mapping[str, RunObjects],
        classes: Classes,
        layout: ObjectLayout,
        *,
        config: ObjectsConfig,
        bootstrap: BootstrapConfig,
    ) -> "ObjectResults":
        """Work out every figure and interval; runs are drawn again with the same images."""
        times_drawn = draw_times(len(next(iter(runs.values())).blocks.states), bootstrap)
        estimates: dict[str, Estimates] = {}
        differences: dict[str, Estimates] = {}
        first: tuple[Samples, Samples] | None = None
        for name, run in runs.items():
            detections = run.detections()
            value, drawn = (
                samples(run, detections, classes, layout, times)
                for times in (np.ones((1, times_drawn.shape[1]), np.int64), times_drawn)
            )
            estimates[name] = _estimates(value, drawn, bootstrap)
            if first is None:
                first = value, drawn
            else:
                differences[name] = _estimates(_less(value, first[0]), _less(drawn, first[1]), bootstrap)
        return cls(
            classes=classes,
            layout=layout,
            config=config,
            runs=runs,
            estimates=estimates,
            differences=differences,
        )

    @property
    def scalars(self) -> list[str]:
        """Figures that are defined for any run, in the order of tables."""
        return [
            name
            for name in OBJECT_MEANINGS
            if any(not np.isnan(found[name].value) for found in self.estimates.values())
        ]

    @property
    def places(self) -> tuple[int, ...]:
        """Places of things."""
        return self.classes.of_kind("thing")

    def objects_by_place(self, run: str) -> Int64[np.ndarray, "2 C"]:
        """Found and true objects of each class."""
        return self.table(run, "objects")

    def table(self, run: str, name: str) -> Int64[np.ndarray, "m n"]:
        """A table of counts over all images."""
        return self.layout.part(self.runs[run].blocks.states.sum(axis=0), name)


Samples = Mapping[str, Float64[np.ndarray, " B"]]


def samples(
    run: RunObjects,
    detections: Mapping[str, DetectionCounts],
    classes: Classes,
    layout: ObjectLayout,
    times_drawn: Int64[np.ndarray, "B R"],
) -> dict[str, Float64[np.ndarray, " B"]]:
    """Every figure had each row been drawn so often: `box_ap`, ..., `class_box_ap/3` (place 3), ..."""
    nothing = np.full(len(times_drawn), np.nan)
    found = dict.fromkeys(OBJECT_MEANINGS, nothing)
    for kind in (BOX, MASK, DETECTOR_BOX, AGNOSTIC, FIXED):
        if kind in detections:
            found |= _precisions(kind, detections[kind], run.columns, times_drawn)
    known = {name: found.get(name, nothing) for name in OBJECT_MEANINGS}
    for figure in PER_CLASS:
        for place in classes.of_kind("thing"):
            known[f"class_{figure}/{place}"] = found.get(f"class_{figure}/{place}", nothing)
    sums = times_drawn.astype(np.float64) @ run.blocks.states.astype(np.float64)
    return known | _of_sums(sums, layout)


def _precisions(
    kind: str,
    counts: DetectionCounts,
    columns: Int64[np.ndarray, " I"],
    times_drawn: Int64[np.ndarray, "B R"],
) -> dict[str, Float64[np.ndarray, " B"]]:
    has_sizes = kind in (BOX, MASK)
    drawn = counts.resampled(times_drawn, columns[counts.images], has_sizes=has_sizes)
    found = {f"{kind}_ap": drawn.ap, f"{kind}_ap50": drawn.ap50, f"{kind}_ap75": drawn.ap75}
    found[f"{kind}_ar100"] = drawn.average_recall
    found |= {f"{kind}_ap_{size}": values for size, values in drawn.ap_by_area.items()}
    if has_sizes:
        for c, place in enumerate(drawn.labels.tolist()):
            found[f"class_{kind}_ap/{place}"] = drawn.ap_by_label[:, c]
            found[f"class_{kind}_ap50/{place}"] = drawn.ap50_by_label[:, c]
    return found


def _of_sums(sums: Num[np.ndarray, "B k"], layout: ObjectLayout) -> dict[str, Float64[np.ndarray, " B"]]:
    """Figures of what adds up."""
    concepts, absent = layout.part(sums, "concepts"), layout.part(sums, "absent")[..., 0, :]
    pm_f1, mcc = mean_of_defined(pm_f1_by_overlap(concepts)), il_mcc(concepts)
    gate = np.zeros((len(sums), 7, 1))
    gate[:, [PAIRS_BOTH, PAIRS_FOUND, PAIRS_NEITHER, PAIRS_TRUE], 0] = layout.part(sums, "presence")[:, 0]
    return {
        "cg_f1": 100 * pm_f1 * mcc,
        "pm_f1": pm_f1,
        "il_mcc": mcc,
        "presence_il_mcc": il_mcc(gate),
        "verified_absent_right": ratio(absent[..., 1], absent[..., 0]),
        "instance_ece": calibration_error(layout.part(sums, "raw")),
        "instance_ece_calibrated": calibration_error(layout.part(sums, "calibrated")),
    }


def _less(found: Samples, first: Samples) -> Samples:
    return {name: values - first[name] for name, values in found.items()}


def _estimates(value: Samples, drawn: Samples, config: BootstrapConfig) -> Estimates:
    names = list(value)
    found = percentile_interval(
        np.array([value[name][0] for name in names]),
        np.stack([drawn[name] for name in names], axis=1),
        config,
    )
    columns = zip(names, found.value, found.low, found.high, strict=True)
    return {name: _estimate(float(middle), float(low), float(high)) for name, middle, low, high in columns}


def _estimate(value: float, low: float, high: float) -> Estimate:
    """Where a figure is not defined on all images, its interval says nothing."""
    if np.isnan(value):
        low = high = value
    return Estimate(value=value, low=low, high=high)
