"""What is counted of one image: a few rows of whole numbers that add up. Axes: h w pixels, C places, M bins.

areas      3 x C+1   pixels of intersection, truth, prediction; the last place is stuff and nothing taken together
outlines   4 x C     boundary pixels (`ovsops.metrics.boundary`)
bands      3 x C     pixels in bands along outlines
scores     3 x M     regions by score: how many, sum of their scores, right ones (`ovsops.metrics.calibration`)
by_area    3 x M     the same, each region weighing its known pixels
hard, soft 3 x C+1   areas of the truth seen through a patch grid, where one is given
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Int32, Int64, Num

from ovsops.errors import ConfigError
from ovsops.metrics.boundary import BandCounts, BoundaryConfig, BoundaryCounts
from ovsops.metrics.calibration import PIXEL_UNIT, reliability_table
from ovsops.metrics.ceiling import through_patches
from ovsops.metrics.counts import ratio
from ovsops.metrics.segmentation import ConfusionCounts
from pipelines.evaluation.classes import IGNORED, Classes
from pipelines.evaluation.labelled import LabelledImage, paint, region_masks, score_of
from pipelines.evaluation.layout import TableLayout


@dataclass(frozen=True, kw_only=True)
class CountConfig:
    """Numbers that change figures."""

    boundary: BoundaryConfig = field(default_factory=BoundaryConfig)
    """Distances of boundary F and boundary IoU."""
    num_bins: int = 15
    """Bins of equal width that scores are put in for the calibration error."""
    grid: int | None = None
    """Patches on a side of the picture; with it the ceiling of that grid stands beside the figures."""

    def __post_init__(self) -> None:
        if self.num_bins < 1:
            raise ConfigError(f"counts.num_bins is {self.num_bins}: give 1 or more")
        if self.grid is not None and self.grid < 1:
            raise ConfigError(f"counts.grid is {self.grid}: give 1 or more patches on a side, or null")


@dataclass(frozen=True, kw_only=True)
class CountLayout(TableLayout):
    """Where each table lies in the flat row of an image."""

    num_places: int
    num_bins: int
    has_ceiling: bool

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shape of each table by name."""
        c = self.num_places
        shapes = {"areas": (3, c + 1), "outlines": (4, c), "bands": (3, c)}
        shapes |= {"scores": (3, self.num_bins), "by_area": (3, self.num_bins)}
        return shapes | ({"hard": (3, c + 1), "soft": (3, c + 1)} if self.has_ceiling else {})


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageCounts:
    """Counts of one image under one run."""

    state: Int64[np.ndarray, "k"]
    confusion: Int64[np.ndarray, "C C"]
    """Pixels by true place (row) and predicted place."""
    mean_iou: float
    """Over the classes that occur in this image or were predicted in it; what worst images are sorted by."""
    num_contested: int
    """Pixels that more than one region covers."""


class Counter:
    """Counts images against their truth. The part that depends on the truth alone is worked out once an image."""

    def __init__(self, classes: Classes, config: CountConfig) -> None:
        self.classes, self.config = classes, config
        self.layout = CountLayout(
            num_places=classes.num_places, num_bins=config.num_bins, has_ceiling=config.grid is not None
        )
        self._is_thing = np.isin(np.arange(classes.num_places), classes.of_kind("thing")).astype(np.int64)

    def ceiling(self, truth: Int32[np.ndarray, "h w"]) -> dict[str, Int64[np.ndarray, "3 D"]]:
        """Areas of a perfect classifier of the grid's patches."""
        if self.config.grid is None:
            return {}
        grid_hw = (min(self.config.grid, truth.shape[0]), min(self.config.grid, truth.shape[1]))
        hard = through_patches(truth, grid_hw, kind="hard", ignore=IGNORED)
        soft = through_patches(truth, grid_hw, kind="soft", ignore=IGNORED)
        return {
            "hard": self._areas(self._confusion(truth, hard)),
            "soft": self._areas(self._confusion(truth, soft)),
        }

    def count(
        self,
        image: LabelledImage,
        truth: Int32[np.ndarray, "h w"],
        ceiling: dict[str, Int64[np.ndarray, "3 D"]],
    ) -> ImageCounts:
        """Counts of an image; one without labels is nothing everywhere, which is wrong wherever a class is true."""
        painted = paint(image, (truth.shape[0], truth.shape[1]))
        predicted = self.classes.places(painted.labels, where=f"{image.where}: prediction")
        confusion = self._confusion(truth, predicted)
        c = self.classes.num_places
        outlines = BoundaryCounts.zeros(c).update(
            truth, predicted, config=self.config.boundary, ignore=IGNORED
        )
        bands = BandCounts.zeros(c).update(truth, predicted, config=self.config.boundary, ignore=IGNORED)
        areas = self._areas(confusion)
        state = self.layout.join(
            {
                "areas": areas,
                "outlines": outlines.counts,
                "bands": bands.areas,
                **self._scores(image, truth),
                **ceiling,
            }
        )
        counted = list(self.classes.counted)
        union = (areas[1] + areas[2] - areas[0])[counted]
        return ImageCounts(
            state=state,
            confusion=confusion,
            mean_iou=float(np.nanmean(ratio(areas[0, counted], union))) if union.any() else math.nan,
            num_contested=painted.num_contested,
        )

    def _confusion(
        self, truth: Int32[np.ndarray, "h w"], predicted: Num[np.ndarray, "h w"]
    ) -> Int64[np.ndarray, "C C"]:
        zeros = ConfusionCounts.zeros(self.classes.num_places)
        return zeros.update(truth, predicted.astype(np.int64), ignore=IGNORED).counts

    def _areas(self, confusion: Int64[np.ndarray, "C C"]) -> Int64[np.ndarray, "3 D"]:
        """Areas of every place, and of stuff and nothing as one background."""
        own = ConfusionCounts(counts=confusion)
        return np.concatenate([own.areas, own.remapped(self._is_thing).areas[:, :1]], axis=1)

    def _scores(
        self, image: LabelledImage, truth: Int32[np.ndarray, "h w"]
    ) -> dict[str, Int64[np.ndarray, "3 M"]]:
        """Regions by score. A region is right when most of its known pixels are truly of its class."""
        scores: list[float] = []
        is_right: list[bool] = []
        num_known: list[int] = []
        size_hw = (truth.shape[0], truth.shape[1])
        for region, mask in zip(image.regions, region_masks(image, size_hw), strict=True):
            known = truth[mask]
            known = known[known != IGNORED]
            if len(known) == 0:
                continue  # the truth says nothing about this region
            majority = self.classes.ids[int(np.bincount(known).argmax())]
            calibrated = region["score_calibrated"]
            scores.append(score_of(image, region, "score" if calibrated is None else "score_calibrated"))
            is_right.append(majority == region["category_id"])
            num_known.append(len(known))
        values, right = np.array(scores, np.float64), np.array(is_right, bool)
        num_bins, areas = self.config.num_bins, np.array(num_known, np.int64)
        return {
            "scores": reliability_table(values, right, num_bins=num_bins),
            "by_area": reliability_table(values, right, num_bins=num_bins, weights=areas, unit=PIXEL_UNIT),
        }
