"""Whether to recalibrate a detector at all, and with which exponents. Axes: N boxes, C names.

A region classifier that does not know the names of a vocabulary ruins a detector that does. So it is measured first, on
boxes of known name: `check_classifier` refuses where it is no better than chance, `judge` also where the boxes
get worse than the detector's own. `ovsops.annotators.fitting` tries the settings of a `TuningGrid`, with "leave the
detector alone" among them. Report figures on other images than those: the best of many settings is lucky on its own
split.
"""

from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ovsops.errors import ConfigError
from ovsops.regions.recalibrate import Mode, RecalibrationConfig

NO_TRUTH = -1
"""True name of a box that lies on nothing: whatever it is called is wrong."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownRegions:
    """What the region classifier sees of boxes whose true names are known."""

    similarity: Float[Tensor, "N C"]
    true_labels: Int64[Tensor, " N"]
    """Place of the true name, or -1 for a box that lies on nothing."""
    groups: Int64[Tensor, " C"] | None = None
    """Names that compete; see `recalibrate`."""


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """When recalibration is refused."""

    min_regions: int = 50
    """Fewer boxes with a true name prove nothing."""
    z: float = 1.96
    """Width of the one-sided bound on the classifier's accuracy, in standard errors."""
    max_loss: float = 0.01
    """By how much AP50 of boxes with names may fall."""

    def __post_init__(self) -> None:
        if self.min_regions < 1 or not self.z >= 0 or not self.max_loss >= 0:
            raise ConfigError(f"{self}: min_regions is at least 1, z and max_loss are not negative")


@dataclass(frozen=True, kw_only=True)
class ClassifierCheck:
    """How well the region classifier alone names boxes, and whether that is enough for it to speak."""

    fault: str
    """Why it may not speak, in words for the report; empty where it may."""
    num_regions: int
    chance: float
    """Accuracy of guessing among the names that the classifier chooses from."""
    accuracy: float
    """On boxes with a true name; ties are wrong. nan without such boxes."""


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
    """AP50 of boxes with names, detector alone."""
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
    """AP50 of boxes with names."""
    detector_precision: float
    """Of the detector alone."""
    tried: tuple[tuple[RecalibrationConfig, float], ...]
    """Every setting with its AP50, for the report."""


def check_classifier(
    known: KnownRegions, config: RecalibrationConfig, *, guard: GuardConfig | None = None
) -> ClassifierCheck:
    """Measure the region classifier on boxes of known name: is it better than guessing?"""
    guard = guard or GuardConfig()
    num_regions = int((known.true_labels != NO_TRUTH).sum())
    is_right, chance = _classified(known, config)
    accuracy = float(is_right.double().mean()) if num_regions else float("nan")
    bound = _lower_bound(accuracy, num_regions, guard.z)
    if num_regions < guard.min_regions:
        fault = f"{num_regions} regions of known name, {guard.min_regions} are needed"
    elif chance == 1:
        fault = "no name has a rival, so there is nothing to choose from"
    elif not bound > chance:
        fault = (
            f"the region classifier names {accuracy:.3f} right (at least {bound:.3f}), chance is {chance:.3f}"
        )
    else:
        fault = ""
    return ClassifierCheck(fault=fault, num_regions=num_regions, chance=chance, accuracy=accuracy)


def judge(
    check: ClassifierCheck, *, before: float, after: float, guard: GuardConfig | None = None
) -> Verdict:
    """Whether the classifier may speak: it knows the names, and AP50 does not fall from `before` to `after`."""
    guard = guard or GuardConfig()
    falls = "" if after > before - guard.max_loss else f"AP50 would fall from {before:.3f} to {after:.3f}"
    fault = check.fault or falls
    return Verdict(
        is_refused=bool(fault),
        reason=fault or f"AP50 goes from {before:.3f} to {after:.3f}",
        num_regions=check.num_regions,
        chance=check.chance,
        classifier_accuracy=check.accuracy,
        detector_precision=before,
        recalibrated_precision=after,
    )


def _classified(known: KnownRegions, config: RecalibrationConfig) -> tuple[Bool[Tensor, " R"], float]:
    """Whether the classifier alone names each box of known name right, and the chance to do so by guessing.

    In competing mode it chooses among the names that compete with the true one: what it is asked in earnest.
    """
    has_truth = known.true_labels != NO_TRUTH
    similarity, truth = known.similarity[has_truth], known.true_labels[has_truth]
    rivals = torch.ones_like(similarity, dtype=torch.bool)
    if config.mode == "competing" and known.groups is not None:
        rivals = known.groups[truth][:, None] == known.groups[None]
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
