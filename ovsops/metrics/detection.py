"""Average precision of boxes and masks. Axes: N found, G true, A ranges of area, T overlaps, I images, B resamples.

COCO's AP (rules of `matching`, precision at 101 recalls) and LVIS' fixed AP (Dave et al., arXiv:2102.01066: no limit
per image, the best 10,000 of a class over the whole set; a class is judged only in images annotated for it). Figures
equal those of pycocotools to 1e-9; a class without true objects has no AP and is left out of the mean.

AP needs the scores of all images at once, so a state holds the outcome of every found object. States of images add up
in any order: equal scores are put in order of image and place. `ap_interval` draws the images again.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64, Num

from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.rle import Rle
from ovsops.metrics.bootstrap import BootstrapConfig, Interval
from ovsops.metrics.counts import mean_of_defined
from ovsops.metrics.matching import HIT, IGNORED, box_areas, box_ious, by_score, mask_areas, mask_ious, match

RECALLS = np.linspace(0.0, 1.0, 101)
OVERLAPS = np.linspace(0.5, 0.95, 10)
AREA_RANGES = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""Pixels, both ends closed, as COCO has it."""
FIGURES = ("AP", "AP50", "AP75", *(f"AP {name}" for name in AREA_RANGES if name != "all"), "AR")
"""Columns of `DetectionCounts.figures`."""


@dataclass(frozen=True, kw_only=True)
class DetectionConfig:
    """What is compared and how much of it."""

    kind: Literal["box", "mask"] = "box"
    max_per_image: int | None = 100
    """Found objects of a class and image that count (of all classes together where names do not count)."""
    max_per_class: int | None = None
    """Found objects of a class over the whole set."""
    is_class_agnostic: bool = False
    """Only places count: every object has the same name."""

    def __post_init__(self) -> None:
        for name, limit in (("max_per_image", self.max_per_image), ("max_per_class", self.max_per_class)):
            if limit is not None and limit < 1:
                raise ConfigError(f"detection.{name} = {limit}: at least 1, or none for no limit")


LVIS_FIXED = DetectionConfig(max_per_image=None, max_per_class=10_000)
"""LVIS' fixed AP of boxes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundObjects:
    """What was found in an image."""

    labels: Int64[np.ndarray, " N"]
    scores: Float64[np.ndarray, " N"]
    boxes_xyxy: Float64[np.ndarray, "N 4"]
    masks: Sequence[Rle] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TrueObjects:
    """What is in an image, and for which classes that is known."""

    labels: Int64[np.ndarray, " G"]
    boxes_xyxy: Float64[np.ndarray, "G 4"]
    masks: Sequence[Rle] | None = None
    is_crowd: Bool[np.ndarray, " G"] | None = None
    areas: Float64[np.ndarray, " G"] | None = None
    """Pixels, to tell small from large; COCO gives the mask's for boxes, too. Of boxes or masks where None."""
    verified_absent: Collection[int] | None = None
    """Classes known to be absent: with it, classes neither true nor verified absent are not judged here (LVIS)."""
    not_exhaustive: Collection[int] = ()
    """Classes of which not all objects are marked: what matches nothing is ignored (LVIS)."""


@dataclass(frozen=True, kw_only=True)
class DetectionFigures:
    """AP in [0, 1]; nan where no class has true objects. Not measured: whether scores mean anything (`calibration`),
    classes that were never asked for, and duplicates below the last true find.
    """

    ap: float
    """Mean over overlaps 0.50 to 0.95 and classes."""
    ap50: float
    ap75: float
    ap_by_area: dict[str, float]
    average_recall: float
    """Recall of all that counts, mean over overlaps and classes."""
    ap_by_label: dict[int, float]
    """Of the classes that have true objects."""

    def ap_of(self, labels: Collection[int]) -> float:
        """Mean AP of some classes (rare, common, frequent), of those that have true objects."""
        values = [self.ap_by_label[label] for label in labels if label in self.ap_by_label]
        return float(mean_of_defined(np.array(values, np.float64)))


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionCounts:
    """Outcomes of all found objects, and the number of true ones, by image and class."""

    config: DetectionConfig
    images: Int64[np.ndarray, " I"]
    found: Int64[np.ndarray, "N 3"]
    """Image, place in it by score, class."""
    scores: Float64[np.ndarray, " N"]
    outcomes: Int8[np.ndarray, "N A T"]
    true: Int64[np.ndarray, "K 2+A"]
    """Image, class, true objects by range of area; one row for each class of an image."""

    @classmethod
    def zeros(cls, config: DetectionConfig | None = None) -> "DetectionCounts":
        """Nothing counted yet."""
        return cls(
            config=config or DetectionConfig(),
            images=np.zeros(0, np.int64),
            found=np.zeros((0, 3), np.int64),
            scores=np.zeros(0),
            outcomes=np.zeros((0, len(AREA_RANGES), len(OVERLAPS)), np.int8),
            true=np.zeros((0, 2 + len(AREA_RANGES)), np.int64),
        )

    @classmethod
    def of_image(
        cls, image: int, found: FoundObjects, truth: TrueObjects, *, config: DetectionConfig | None = None
    ) -> "DetectionCounts":
        """The state of one image; `image` is its number, the same one in every run."""
        config = config or DetectionConfig()
        if not np.isfinite(found.scores).all():
            raise ShapeError(f"image {image}: scores that are not finite cannot be put in order")
        found_labels, true_labels = (
            np.zeros_like(labels) if config.is_class_agnostic else labels
            for labels in (found.labels, truth.labels)
        )
        ious, found_areas, true_areas = _overlaps(found, truth, config)
        parts = [cls.zeros(config)]
        for label in np.union1d(found_labels, true_labels).tolist():
            mine = (true_labels == label).nonzero()[0]
            is_judged = truth.verified_absent is None or len(mine) or label in truth.verified_absent
            if not is_judged:
                continue
            candidates = (found_labels == label).nonzero()[0]
            order = candidates[by_score(found.scores[candidates], config.max_per_image)]
            crowds = np.zeros(len(mine), bool) if truth.is_crowd is None else truth.is_crowd[mine]
            is_ignored = _outside(true_areas[mine]) | crowds
            outcomes = match(
                ious[np.ix_(order, mine)],
                overlaps=OVERLAPS,
                is_ignored=is_ignored,
                is_crowd=crowds,
                is_outside=_outside(found_areas[order]) | (label in truth.not_exhaustive),
            )
            places = np.arange(len(order))
            parts.append(
                cls(
                    config=config,
                    images=np.zeros(0, np.int64),
                    found=np.stack(
                        [np.full_like(places, image), places, np.full_like(places, label)], axis=1
                    ),
                    scores=found.scores[order],
                    outcomes=outcomes,
                    true=np.array([[image, label, *(~is_ignored).sum(axis=1)]], np.int64),
                )
            )
        whole = cls.of_parts(parts)
        return cls(**{**vars(whole), "images": np.array([image], np.int64)})

    @classmethod
    def of_parts(cls, parts: Sequence["DetectionCounts"]) -> "DetectionCounts":
        """The sum of many states, at once."""
        if not parts:
            return cls.zeros()
        if len({part.config for part in parts}) > 1:
            raise ShapeError(
                "states of different detection configs count different things: merge like with like"
            )
        names = ("images", "found", "scores", "outcomes", "true")
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        if len(np.unique(joined["images"])) < len(joined["images"]):
            raise ShapeError("an image was counted twice: give every image its own number, and each once")
        return cls(config=parts[0].config, **joined)

    def __add__(self, other: "DetectionCounts") -> "DetectionCounts":
        return self.of_parts([self, other])

    def compute(self) -> DetectionFigures:
        """All figures of the images counted."""
        labels, precision, recall = self._curves(np.ones((1, len(self.images)), np.int64))
        by_label = precision[0]  # C A T
        areas = dict(
            zip(
                AREA_RANGES,
                mean_of_defined(by_label.swapaxes(0, 1).reshape(len(AREA_RANGES), -1)),
                strict=True,
            )
        )
        return DetectionFigures(
            ap=float(areas.pop("all")),
            ap50=float(mean_of_defined(by_label[:, 0, 0])),
            ap75=float(mean_of_defined(by_label[:, 0, 5])),
            ap_by_area={name: float(value) for name, value in areas.items()},
            average_recall=float(mean_of_defined(recall[0, :, 0].ravel())),
            ap_by_label=dict(zip(labels.tolist(), by_label[:, 0].mean(axis=1).tolist(), strict=True)),
        )

    def average_precisions(self, times_drawn: Int64[np.ndarray, "B I"]) -> Float64[np.ndarray, "B 3"]:
        """AP, AP50 and AP75 had each image been in the set so often; columns in the order of `images`."""
        _, precision, _ = self._curves(times_drawn, ranges=("all",))
        flat = precision[:, :, 0]
        return np.stack(
            [mean_of_defined(flat.reshape(len(flat), -1)), *(mean_of_defined(flat[:, :, k]) for k in (0, 5))],
            axis=1,
        )

    def figures(self, times_drawn: Int64[np.ndarray, "B I"]) -> Float64[np.ndarray, "B F"]:
        """The figures of FIGURES had each image been in the set so often; columns in the order of `images`."""
        _, precision, recall = self._curves(times_drawn)
        of_all = precision[:, :, 0]
        by_area = precision[:, :, 1:].swapaxes(1, 2)  # B A C T
        return np.stack(
            [
                mean_of_defined(of_all.reshape(len(of_all), -1)),
                *(mean_of_defined(of_all[:, :, k]) for k in (0, 5)),
                *mean_of_defined(by_area.reshape(*by_area.shape[:2], -1)).T,
                mean_of_defined(recall[:, :, 0].reshape(len(recall), -1)),
            ],
            axis=1,
        )

    def _curves(
        self, times_drawn: Int64[np.ndarray, "B I"], *, ranges: Sequence[str] = tuple(AREA_RANGES)
    ) -> tuple[Int64[np.ndarray, " C"], Float64[np.ndarray, "B C A T"], Float64[np.ndarray, "B C A T"]]:
        """Classes, and AP and recall of each."""
        labels = np.unique(self.true[self.true[:, 2] > 0, 1])
        shape = (len(times_drawn), len(labels), len(ranges), len(OVERLAPS))
        precision, recall = np.full(shape, np.nan), np.full(shape, np.nan)
        order_of_images = np.argsort(self.images)
        for c, label in enumerate(labels):
            mine = (self.found[:, 2] == label).nonzero()[0]
            mine = mine[np.lexsort((self.found[mine, 1], self.found[mine, 0], -self.scores[mine]))]
            mine = mine[: self.config.max_per_class]
            rows = self.true[self.true[:, 1] == label]
            columns = self._columns(self.found[mine, 0], order_of_images)
            weights = times_drawn[:, columns]  # B N
            for a, name in enumerate(ranges):
                place = list(AREA_RANGES).index(name)
                num_true = times_drawn[:, self._columns(rows[:, 0], order_of_images)] @ rows[:, 2 + place]
                for t in range(len(OVERLAPS)):
                    outcome = self.outcomes[mine, place, t]
                    counts = outcome != IGNORED
                    curve = precision_and_recall(weights[:, counts], outcome[counts] == HIT, num_true)
                    precision[:, c, a, t], recall[:, c, a, t] = curve
        return labels, precision, recall

    def _columns(
        self, images: Int64[np.ndarray, " N"], order: Int64[np.ndarray, " I"]
    ) -> Int64[np.ndarray, " N"]:
        return order[np.searchsorted(self.images[order], images)]


def precision_and_recall(
    weights: Num[np.ndarray, "B N"], is_hit: Bool[np.ndarray, " N"], num_true: Num[np.ndarray, " B"]
) -> tuple[Float64[np.ndarray, " B"], Float64[np.ndarray, " B"]]:
    """AP over 101 recalls and the last recall of finds in order of score; nan where nothing is true.

    Precision at a recall is the best at this or any higher recall, 0 beyond the last one.
    """
    hits = np.cumsum(weights * is_hit, axis=1, dtype=np.float64)
    finds = np.cumsum(weights, axis=1, dtype=np.float64)
    average, last = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    for b in (num_true > 0).nonzero()[0]:
        recall = hits[b] / num_true[b]
        precision = np.divide(hits[b], finds[b], out=np.zeros_like(finds[b]), where=finds[b] > 0)
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        average[b] = envelope[np.searchsorted(recall, RECALLS, side="left")].mean()
        last[b] = recall[-1] if len(recall) else 0.0
    return average, last


def ap_interval(counts: DetectionCounts, *, config: BootstrapConfig | None = None) -> Interval:
    """Percentile bootstrap over images of AP, AP50, AP75; the same seed gives the same interval."""
    return _drawn_again(counts, counts.average_precisions, config)


def figure_intervals(
    counts: DetectionCounts, *, config: BootstrapConfig | None = None
) -> dict[str, Interval]:
    """The same for every figure of FIGURES, by name."""
    found = _drawn_again(counts, counts.figures, config)
    parts = (found.value, found.low, found.high, found.num_defined)
    return {
        name: Interval(value=value, low=low, high=high, num_defined=num_defined)
        for name, value, low, high, num_defined in zip(FIGURES, *map(_single, parts), strict=True)
    }


def _single(values: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(value) for value in values]


def _drawn_again(
    counts: DetectionCounts,
    figure: Callable[[Int64[np.ndarray, "B I"]], Float64[np.ndarray, "B F"]],
    config: BootstrapConfig | None,
) -> Interval:
    config = config or BootstrapConfig(num_resamples=200)
    num_images = len(counts.images)
    if num_images == 0:
        raise ShapeError("there are no images to draw from: give the states of at least one")
    generator = np.random.default_rng(config.seed)
    times_drawn = generator.multinomial(
        num_images, np.full(num_images, 1 / num_images), size=config.num_resamples
    )
    resampled = figure(times_drawn)
    value = figure(np.ones((1, num_images), np.int64))[0]
    tail, is_defined = (1 - config.confidence) / 2, ~np.isnan(resampled)
    low, high = np.nanquantile(np.where(is_defined.any(axis=0), resampled, 0.0), [tail, 1 - tail], axis=0)
    nan = np.where(is_defined.any(axis=0), 0.0, np.nan)
    return Interval(value=value, low=low + nan, high=high + nan, num_defined=is_defined.sum(axis=0))


def _overlaps(
    found: FoundObjects, truth: TrueObjects, config: DetectionConfig
) -> tuple[Float64[np.ndarray, "N G"], Float64[np.ndarray, " N"], Float64[np.ndarray, " G"]]:
    """IoU of all pairs, and the areas of both sides."""
    if config.kind == "box":
        ious = box_ious(found.boxes_xyxy, truth.boxes_xyxy, truth.is_crowd)
        found_areas, true_areas = box_areas(found.boxes_xyxy), box_areas(truth.boxes_xyxy)
    else:
        if found.masks is None or truth.masks is None:
            raise ShapeError("AP of masks needs the masks of both sides: give `masks`, or measure boxes")
        ious = mask_ious(found.masks, truth.masks, truth.is_crowd)
        found_areas, true_areas = mask_areas(found.masks), mask_areas(truth.masks)
    return ious, found_areas, true_areas if truth.areas is None else truth.areas


def _outside(areas: Float64[np.ndarray, " N"]) -> Bool[np.ndarray, "A N"]:
    limits = np.array(list(AREA_RANGES.values()))
    return (areas[None] < limits[:, :1]) | (areas[None] > limits[:, 1:])
