"""Average precision of boxes and masks. Axes: N found, G true, A ranges of area, T overlaps, I images, B resamples.

COCO's AP (rules of `matching`, precision at 101 recalls) and LVIS' fixed AP (Dave et al., arXiv:2102.01066: no limit
per image, the best 10,000 of a class over the whole set; a class is judged only in images annotated for it). Figures
equal those of pycocotools to 1e-9; a class without true objects has no AP and is left out of the mean.

AP needs the scores of all images at once, so a state holds the outcome of every found object. States of images add up
in any order: equal scores are put in order of image and place. `ap_interval` draws the images again.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.average_precision import precision_at_hits
from ovsops.metrics.bootstrap import BootstrapConfig, Interval, draw_times, percentile_interval
from ovsops.metrics.counts import mean_of_defined
from ovsops.metrics.matching import HIT, IGNORED, box_areas, box_ious, by_score, mask_areas, mask_ious, match
from ovsops.metrics.objects import FoundObjects, TrueObjects

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
_CELLS = 1 << 22
"""Numbers of resamples by finds that are worked on at a time."""


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
        parts = [cls.zeros(config)]
        for judged in _judged(found, truth, config):
            places = np.arange(len(judged.order))
            labels = np.full_like(places, judged.label)
            parts.append(
                cls(
                    config=config,
                    images=np.zeros(0, np.int64),
                    found=np.stack([np.full_like(places, image), places, labels], axis=1),
                    scores=found.scores[judged.order],
                    outcomes=judged.outcomes,
                    true=np.array([[image, judged.label, *judged.num_true]], np.int64),
                )
            )
        whole = cls.of_parts(parts)
        return cls(**{**vars(whole), "images": np.array([image], np.int64)})

    @classmethod
    def of_images(
        cls,
        found: Sequence[FoundObjects],
        true: Sequence[TrueObjects],
        *,
        config: DetectionConfig | None = None,
    ) -> "DetectionCounts":
        """The state of images, numbered in order."""
        pairs = enumerate(zip(found, true, strict=True))
        return cls.of_parts([cls.of_image(i, mine, truth, config=config) for i, (mine, truth) in pairs])

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
        found = self.resampled(np.ones((1, len(self.images)), np.int64))
        return DetectionFigures(
            ap=float(found.ap[0]),
            ap50=float(found.ap50[0]),
            ap75=float(found.ap75[0]),
            ap_by_area={name: float(values[0]) for name, values in found.ap_by_area.items()},
            average_recall=float(found.average_recall[0]),
            ap_by_label=dict(zip(found.labels.tolist(), found.ap_by_label[0].tolist(), strict=True)),
        )

    def average_precisions(self, times_drawn: Int64[np.ndarray, "B I"]) -> Float64[np.ndarray, "B 3"]:
        """AP, AP50 and AP75 had each image been in the set so often; columns in the order of `images`."""
        found = self.resampled(times_drawn, has_sizes=False)
        return np.stack([found.ap, found.ap50, found.ap75], axis=1)

    def resampled(
        self,
        times_drawn: Int64[np.ndarray, "B R"],
        columns: Int64[np.ndarray, " I"] | None = None,
        *,
        has_sizes: bool = True,
    ) -> "ResampledFigures":
        """Figures had each image been in the set so often; `has_sizes` asks for AP by size, too.

        `columns` says for each of `images` where its draws stand, so that images drawn in blocks can share a column;
        without it, columns are in the order of `images`. Time grows with finds times resamples.
        """
        if columns is None:
            columns = np.arange(len(self.images))
        ranges = list(AREA_RANGES) if has_sizes else ["all"]
        curves = [self._curve(label, columns) for label in self._labels().tolist()]
        longest = max(
            [len(curve.columns) for curve in curves] + [len(curves) * len(ranges) * len(OVERLAPS), 1]
        )
        step = max(1, _CELLS // longest)
        parts = [
            self._resampled(times_drawn[start : start + step], curves, ranges)
            for start in range(0, len(times_drawn), step)
        ]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        sizes = {name: joined.pop(name) for name in ranges if name != "all"}
        return ResampledFigures(labels=self._labels(), ap_by_area=sizes, **joined)

    def _labels(self) -> Int64[np.ndarray, " C"]:
        """Classes that have true objects."""
        return np.unique(self.true[self.true[:, 2] > 0, 1])

    def _curve(self, label: int, columns: Int64[np.ndarray, " I"]) -> "_Curve":
        order = np.argsort(self.images)
        mine = (self.found[:, 2] == label).nonzero()[0]
        mine = mine[np.lexsort((self.found[mine, 1], self.found[mine, 0], -self.scores[mine]))]
        mine = mine[: self.config.max_per_class]
        rows = self.true[self.true[:, 1] == label]

        def columns_of(images: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
            return columns[order[np.searchsorted(self.images[order], images)]]

        return _Curve(
            columns=columns_of(self.found[mine, 0]),
            outcomes=self.outcomes[mine],
            columns_of_true=columns_of(rows[:, 0]),
            num_true=rows[:, 2:],
        )

    def figures(self, times_drawn: Int64[np.ndarray, "B I"]) -> Float64[np.ndarray, "B F"]:
        """The figures of FIGURES had each image been in the set so often; columns in the order of `images`."""
        found = self.resampled(times_drawn)
        sizes = found.ap_by_area.values()
        return np.stack([found.ap, found.ap50, found.ap75, *sizes, found.average_recall], axis=1)

    def _resampled(
        self, times_drawn: Int64[np.ndarray, "B R"], curves: Sequence["_Curve"], ranges: Sequence[str]
    ) -> dict[str, Float64[np.ndarray, "B *C"]]:
        shape = (len(times_drawn), len(curves), len(ranges), len(OVERLAPS))
        precision, recall = np.full(shape, np.nan), np.full(shape, np.nan)
        for c, curve in enumerate(curves):
            for a, name in enumerate(ranges):
                found = curve.at_overlaps(times_drawn, list(AREA_RANGES).index(name))
                precision[:, c, a], recall[:, c, a] = found
        of_all, batch = precision[:, :, 0], len(times_drawn)
        return {
            "ap": mean_of_defined(of_all.reshape(batch, -1)),
            "ap50": mean_of_defined(of_all[:, :, 0]),
            "ap75": mean_of_defined(of_all[:, :, 5]),
            "average_recall": mean_of_defined(recall[:, :, 0].reshape(batch, -1)),
            "ap_by_label": of_all.mean(axis=2),
            "ap50_by_label": of_all[:, :, 0].copy(),
            **{
                name: mean_of_defined(precision[:, :, a].reshape(batch, -1))
                for a, name in enumerate(ranges)
                if name != "all"
            },
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class ResampledFigures:
    """Figures of many resamples; nan where no class has true objects among what was drawn."""

    labels: Int64[np.ndarray, " C"]
    """Classes that have true objects."""
    ap: Float64[np.ndarray, " B"]
    ap50: Float64[np.ndarray, " B"]
    ap75: Float64[np.ndarray, " B"]
    ap_by_area: dict[str, Float64[np.ndarray, " B"]]
    average_recall: Float64[np.ndarray, " B"]
    ap_by_label: Float64[np.ndarray, "B C"]
    ap50_by_label: Float64[np.ndarray, "B C"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Curve:
    """Finds of a class in order of score, and its true objects."""

    columns: Int64[np.ndarray, " N"]
    """Where the draws of a find's image stand."""
    outcomes: Int8[np.ndarray, "N A T"]
    columns_of_true: Int64[np.ndarray, " K"]
    num_true: Int64[np.ndarray, "K A"]

    def at_overlaps(
        self, times_drawn: Int64[np.ndarray, "B R"], area: int
    ) -> tuple[Float64[np.ndarray, "B T"], Float64[np.ndarray, "B T"]]:
        """AP and last recall at each overlap, for true objects of a range of areas."""
        weights = times_drawn[:, self.columns]
        num_true = times_drawn[:, self.columns_of_true] @ self.num_true[:, area]
        num_finds: dict[bytes, Int64[np.ndarray, "B N"]] = {}
        both = []
        for t in range(len(OVERLAPS)):
            outcome = self.outcomes[:, area, t]
            counts, is_hit = outcome != IGNORED, outcome == HIT
            key = counts.tobytes()  # most overlaps ignore the same finds
            if key not in num_finds:
                num_finds = {key: np.cumsum(weights * counts, axis=1)}
            both.append(precision_at_hits(num_finds[key][:, is_hit], weights[:, is_hit], num_true))
        precision, recall = (np.stack(columns, axis=1) for columns in zip(*both, strict=True))
        return precision, recall


@dataclass(frozen=True, kw_only=True, eq=False)
class _Judged:
    """A class that is judged in an image."""

    label: int
    order: Int64[np.ndarray, " K"]
    """Places of the found objects that count, best first."""
    outcomes: Int8[np.ndarray, "K A T"]
    num_true: list[int]
    """By range of areas."""


def _judged(found: FoundObjects, truth: TrueObjects, config: DetectionConfig) -> Iterator[_Judged]:
    """Every class that was found or is true, unless the truth says nothing of it."""
    found_labels, true_labels = (
        np.zeros_like(labels) if config.is_class_agnostic else labels
        for labels in (found.labels, truth.labels)
    )
    ious, found_areas, true_areas = _overlaps(found, truth, config)
    for label in np.union1d(found_labels, true_labels).tolist():
        mine = (true_labels == label).nonzero()[0]
        if not (truth.verified_absent is None or len(mine) or label in truth.verified_absent):
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
        num_true: list[int] = (~is_ignored).sum(axis=1).tolist()
        yield _Judged(label=label, order=order, outcomes=outcomes, num_true=num_true)


def outcomes_at_half(
    found: FoundObjects, truth: TrueObjects, *, config: DetectionConfig | None = None
) -> Int8[np.ndarray, " N"]:
    """`HIT`, `MISS` or `IGNORED` for each found object at IoU 0.5, all sizes.

    Ignored are also finds of classes that are not judged here, and those beyond `max_per_image`.
    """
    outcomes = np.full(len(found.labels), IGNORED, np.int8)
    for judged in _judged(found, truth, config or DetectionConfig()):
        outcomes[judged.order] = judged.outcomes[:, 0, 0]
    return outcomes


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
    resampled = figure(draw_times(num_images, config))
    value = figure(np.ones((1, num_images), np.int64))[0]
    return percentile_interval(value, resampled, config)


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
