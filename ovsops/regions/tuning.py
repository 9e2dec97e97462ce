"""Whether to recalibrate a detector at all, and with which exponents. Axes: N boxes, C names.

A region classifier that does not know the names of a vocabulary ruins a detector that does. So it is measured first, on
boxes of known name: `judge` refuses where the classifier is no better than chance or where names get worse
than the detector's own. `tune` picks mode, exponents and scale on such a split, with "leave the detector alone" among
the candidates. Report figures on other images than those: the best of many settings is lucky on its own split.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ovsops.errors import ConfigError, ShapeError
from ovsops.regions.recalibrate import Mode, Recalibrated, RecalibrationConfig, recalibrate

NO_TRUTH = -1
"""True name of a box that lies on nothing: whatever it is called is wrong."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TuningSplit:
    """Boxes of a detector with their true names."""

    similarity: Float[Tensor, "N C"]
    detector_labels: Int64[Tensor, " N"]
    detector_scores: Float[Tensor, " N"]
    true_labels: Int64[Tensor, " N"]
    """Place of the true name, or -1 for a box that lies on nothing."""
    groups: Int64[Tensor, " C"] | None = None
    """Names that compete; see `recalibrate`."""
    scores_by_name: Float[Tensor, "N C"] | None = None

    def recalibrated(self, config: RecalibrationConfig) -> Recalibrated:
        """What `config` makes of these boxes."""
        return recalibrate(
            self.similarity,
            self.detector_labels,
            self.detector_scores,
            config=config,
            groups=self.groups,
            scores_by_name=self.scores_by_name,
        )


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """When recalibration is refused."""

    min_regions: int = 50
    """Fewer boxes with a true name prove nothing."""
    z: float = 1.96
    """Width of the one-sided bound on the classifier's accuracy, in standard errors."""
    max_loss: float = 0.01
    """By how much the average precision of names may fall."""

    def __post_init__(self) -> None:
        if self.min_regions < 1 or not self.z >= 0 or not self.max_loss >= 0:
            raise ConfigError(f"{self}: min_regions is at least 1, z and max_loss are not negative")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the guard measured, and what it says."""

    is_refused: bool
    reason: str
    """Why, in words for the report; also where it was allowed."""
    num_regions: int
    chance: float
    """Accuracy of guessing among the names that the classifier chooses from."""
    classifier_accuracy: float
    """Of the region classifier alone on boxes with a true name; ties are wrong. nan without such boxes."""
    detector_precision: float
    """Average precision of names, detector alone."""
    recalibrated_precision: float


@dataclass(frozen=True, kw_only=True)
class TuningGrid:
    """Settings to try. Exponents are a share and 1 - share: the order of boxes depends on their ratio alone."""

    modes: tuple[Mode, ...] = ("keep", "global", "competing")
    detector_shares: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    scales: tuple[float, ...] = (10.0, 30.0, 100.0)

    def __post_init__(self) -> None:
        if not (self.modes and self.detector_shares and self.scales):
            raise ConfigError(
                "recalibration tuning: no mode, share or scale to try; give at least one of each"
            )
        if not all(0 <= share < 1 for share in self.detector_shares):
            raise ConfigError(
                f"recalibration tuning: detector_shares {self.detector_shares} lie in [0, 1);"
                " the detector alone, share 1, is always tried"
            )

    def configs(self, *, has_groups: bool) -> list[RecalibrationConfig]:
        """All settings; competing ones only where names have groups."""
        return [
            RecalibrationConfig(mode=mode, alpha=share, beta=round(1 - share, 9), scale=scale)
            for mode, share, scale in product(self.modes, self.detector_shares, self.scales)
            if mode != "competing" or has_groups
        ]


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The best setting, or None where the detector alone was at least as good."""

    config: RecalibrationConfig | None
    precision: float
    detector_precision: float
    tried: tuple[tuple[RecalibrationConfig, float], ...]
    """Every setting with its average precision of names, for the report."""


def name_precision(
    labels: Int64[Tensor, " N"], scores: Float[Tensor, " N"], true_labels: Int64[Tensor, " N"]
) -> float:
    """Average precision of names: over boxes by falling score, the mean precision at each rightly named one.

    The mean runs over all boxes that have a true name, so one that is named wrong costs its place; of equal scores the
    wrong ones come first. Does not measure boxes that were not found or found twice (`metrics.detection` does).
    """
    num_true = int((true_labels != NO_TRUTH).sum())
    if num_true == 0:
        raise ShapeError("no box of the split has a true name: match boxes with the truth first")
    is_right = ((labels == true_labels) & (true_labels != NO_TRUTH)).cpu().numpy()
    order = np.lexsort((is_right, -scores.double().cpu().numpy()))
    right = is_right[order]
    return float((right.cumsum() / np.arange(1, len(right) + 1))[right].sum() / num_true)


def judge(split: TuningSplit, config: RecalibrationConfig, *, guard: GuardConfig | None = None) -> Verdict:
    """Measure the region classifier on boxes of known name, and say whether it may speak."""
    guard = guard or GuardConfig()
    has_truth = split.true_labels != NO_TRUTH
    num_regions = int(has_truth.sum())
    is_right, chance = _classified(split, config)
    accuracy = float(is_right.double().mean()) if num_regions else float("nan")
    if num_regions:
        recalibrated = split.recalibrated(config)
        before = name_precision(split.detector_labels, split.detector_scores, split.true_labels)
        after = name_precision(recalibrated.labels, recalibrated.scores, split.true_labels)
    else:
        before = after = float("nan")
    bound = _lower_bound(accuracy, num_regions, guard.z)
    if num_regions < guard.min_regions:
        reason = f"{num_regions} regions of known name, {guard.min_regions} are needed"
    elif chance == 1:
        reason = "no name has a rival, so there is nothing to choose from"
    elif not bound > chance:
        reason = (
            f"the region classifier names {accuracy:.3f} right (at least {bound:.3f}), chance is {chance:.3f}"
        )
    elif after < before - guard.max_loss:
        reason = f"average precision of names would fall from {before:.3f} to {after:.3f}"
    else:
        reason = ""
    return Verdict(
        is_refused=bool(reason),
        reason=reason or f"average precision of names goes from {before:.3f} to {after:.3f}",
        num_regions=num_regions,
        chance=chance,
        classifier_accuracy=accuracy,
        detector_precision=before,
        recalibrated_precision=after,
    )


def tune(split: TuningSplit, *, grid: TuningGrid | None = None) -> Tuned:
    """The setting of highest average precision of names; of equal ones the first, the detector alone before all."""
    before = name_precision(split.detector_labels, split.detector_scores, split.true_labels)
    tried: list[tuple[RecalibrationConfig, float]] = []
    for config in (grid or TuningGrid()).configs(has_groups=split.groups is not None):
        found = split.recalibrated(config)
        tried.append((config, name_precision(found.labels, found.scores, split.true_labels)))
    best, precision = max(tried, key=lambda pair: pair[1], default=(None, before))
    if not precision > before:
        best, precision = None, before
    return Tuned(config=best, precision=precision, detector_precision=before, tried=tuple(tried))


def _classified(split: TuningSplit, config: RecalibrationConfig) -> tuple[Bool[Tensor, " R"], float]:
    """Whether the classifier alone names each box of known name right, and the chance to do so by guessing.

    In competing mode it chooses among the names that compete with the true one: what it is asked in earnest.
    """
    has_truth = split.true_labels != NO_TRUTH
    similarity, truth = split.similarity[has_truth], split.true_labels[has_truth]
    rivals = torch.ones_like(similarity, dtype=torch.bool)
    if config.mode == "competing" and split.groups is not None:
        rivals = split.groups[truth][:, None] == split.groups[None]
    own = similarity.gather(1, truth[:, None])
    num_as_good = ((similarity >= own) & rivals).sum(dim=1)
    chance = float((1 / rivals.sum(dim=1).double()).mean()) if len(truth) else float("nan")
    return num_as_good == 1, chance


def _lower_bound(share: float, num: int, z: float) -> float:
    """Wilson's lower bound of a share (Wilson 1927, eq. 4)."""
    if num == 0:
        return float("nan")
    center = share + z**2 / (2 * num)
    width = z * (share * (1 - share) / num + z**2 / (4 * num**2)) ** 0.5
    return (center - width) / (1 + z**2 / num)
