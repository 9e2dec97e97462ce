"""Figures from counts: one function gives all of them for any batch of states. Axes: B batch, F figures, C places."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Num

from ovsops.metrics.bootstrap import BootstrapConfig, bootstrap, paired_bootstrap
from ovsops.metrics.boundary import boundary_f, mean_boundary_f
from ovsops.metrics.calibration import PIXEL_UNIT, calibration_error
from ovsops.metrics.counts import mean_of_defined, ratio
from ovsops.metrics.segmentation import accuracy, iou, mean_iou, pixel_accuracy
from pipelines.evaluation.classes import Classes
from pipelines.evaluation.counting import CountLayout

MEANINGS: Mapping[str, str] = {
    "mean_iou": "mIoU, all classes",
    "mean_iou_stuff": "mIoU, stuff",
    "mean_iou_things": "mIoU, things",
    "mean_iou_things_background": "mIoU, things + background",
    "mean_accuracy": "mean class accuracy",
    "pixel_accuracy": "pixel accuracy",
    "mean_boundary_f": "mean boundary F",
    "mean_boundary_iou": "mean boundary IoU",
    "region_accuracy": "regions named right",
    "region_accuracy_by_area": "regions named right, by area",
    "calibration_error": "ECE of region scores",
    "calibration_error_by_area": "ECE of region scores, by area",
    "labelled_share": "pixels with a label",
}
"""What each figure is, in the order of tables."""
CEILING = ("mean_iou", "mean_iou_stuff", "mean_iou_things", "mean_iou_things_background", "pixel_accuracy")
"""Figures of which the ceiling of a patch grid is shown."""
PER_CLASS = ("iou", "accuracy", "boundary_f", "boundary_iou")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its interval; nan where it is not defined."""

    value: float
    low: float
    high: float

    def to_plain(self) -> dict[str, float | None]:
        """For JSON, which has no nan."""
        return {name: None if np.isnan(v) else float(v) for name, v in vars(self).items()}


Estimates = Mapping[str, Estimate]


class Figures:
    """Names of all figures, and how they follow from states."""

    def __init__(self, classes: Classes, layout: CountLayout) -> None:
        self.classes, self.layout = classes, layout
        self._functions: dict[str, Callable[[Num[np.ndarray, "B k"]], Float64[np.ndarray, "B F"]]] = {}
        self._add_means("areas", "")
        self._add("mean_boundary_f", lambda s: mean_boundary_f(self._part(s, "outlines"), classes.counted))
        self._add("mean_boundary_iou", lambda s: mean_iou(self._part(s, "bands"), classes.counted))
        self._add("region_accuracy", lambda s: _right_share(self._part(s, "scores")))
        self._add("region_accuracy_by_area", lambda s: _right_share(self._part(s, "by_area")))
        self._add("calibration_error", lambda s: calibration_error(self._part(s, "scores")))
        self._add(
            "calibration_error_by_area",
            lambda s: calibration_error(self._part(s, "by_area"), unit=PIXEL_UNIT),
        )
        if layout.has_ceiling:
            self._add_means("hard", "hard_")
            self._add_means("soft", "soft_")
        for name, per_class in (
            ("iou", lambda s: iou(self._own(s))),
            ("accuracy", lambda s: accuracy(self._own(s))),
            ("boundary_f", lambda s: boundary_f(self._part(s, "outlines"))),
            ("boundary_iou", lambda s: iou(self._part(s, "bands"))),
        ):
            self._functions[f"class_{name}"] = per_class

    def _add(self, name: str, figure: Callable[[Num[np.ndarray, "B k"]], Float64[np.ndarray, "B"]]) -> None:
        self._functions[name] = lambda states: figure(states)[..., None]

    def _add_means(self, table: str, prefix: str) -> None:
        """Figures of an area table, as the run's or as a ceiling's."""
        classes, merged = self.classes, self.classes.num_places
        groups = {
            "mean_iou": classes.counted,
            "mean_iou_stuff": classes.of_kind("stuff"),
            "mean_iou_things": classes.of_kind("thing"),
            "mean_iou_things_background": (*classes.of_kind("thing"), merged),
        }
        if not groups["mean_iou_things"] or not groups["mean_iou_stuff"]:
            groups = {"mean_iou": classes.counted}  # the groups would say the same again
        for name, places in groups.items():
            self._add(f"{prefix}{name}", self._mean_iou(table, places))
        counted = classes.counted
        self._add(f"{prefix}pixel_accuracy", lambda s: pixel_accuracy(self._part(s, table), counted))
        if not prefix:
            self._add("mean_accuracy", lambda s: mean_of_defined(accuracy(self._own(s)), counted))
            self._add("labelled_share", lambda s: _labelled_share(self._own(s)))

    def _mean_iou(
        self, table: str, places: Sequence[int]
    ) -> Callable[[Num[np.ndarray, "B k"]], Float64[np.ndarray, "B"]]:
        return lambda states: mean_iou(self._part(states, table), places)

    def _part(self, states: Num[np.ndarray, "*b k"], name: str) -> Num[np.ndarray, "*b m n"]:
        return self.layout.part(states, name)

    def _own(self, states: Num[np.ndarray, "*b k"]) -> Num[np.ndarray, "*b 3 C"]:
        return self._part(states, "areas")[..., : self.classes.num_places]

    def names(self) -> list[str]:
        """One name a column: `mean_iou`, ..., `class_iou/3` (place 3), ..."""
        names = []
        for name in self._functions:
            is_per_class = name.startswith("class_")
            names += [f"{name}/{c}" for c in range(self.classes.num_places)] if is_per_class else [name]
        return names

    def compute(self, states: Num[np.ndarray, "B k"]) -> Float64[np.ndarray, "B F"]:
        """All figures of a batch of states."""
        return np.concatenate([function(states) for function in self._functions.values()], axis=-1)

    def estimate(self, states: Int64[np.ndarray, "I k"], config: BootstrapConfig) -> dict[str, Estimate]:
        """Every figure with its interval."""
        found = bootstrap(states, self.compute, config=config)
        return self._named(found.value, found.low, found.high)

    def differences(
        self, states: Int64[np.ndarray, "I k"], baseline: Int64[np.ndarray, "I k"], config: BootstrapConfig
    ) -> dict[str, Estimate]:
        """Every figure less that of a baseline on the same images."""
        found = paired_bootstrap(states, baseline, self.compute, config=config)
        return self._named(found.value, found.low, found.high)

    def _named(self, *columns: Float64[np.ndarray, "F"]) -> dict[str, Estimate]:
        return {
            name: Estimate(value=float(value), low=float(low), high=float(high))
            for name, value, low, high in zip(self.names(), *columns, strict=True)
        }


def _right_share(scores: Num[np.ndarray, "*b 3 M"]) -> Float64[np.ndarray, "*b"]:
    return ratio(scores[..., 2, :].sum(axis=-1), scores[..., 0, :].sum(axis=-1))


def _labelled_share(areas: Num[np.ndarray, "*b 3 C"]) -> Float64[np.ndarray, "*b"]:
    predicted = areas[..., 2, :]
    return ratio(predicted[..., 1:].sum(axis=-1), predicted.sum(axis=-1))
