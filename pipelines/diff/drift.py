"""Drift of two populations: distances, tests, and which of them alarm. Axes: I images, K cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64

from ovsops.metrics.drift import (
    NO_PARTNER,
    DriftConfig,
    Membership,
    RateShift,
    Shift,
    cell_bins,
    check_power,
    holm,
    rate_shift_of,
    shift_of,
)
from pipelines.counted import counted
from pipelines.diff.population import DECISIONS, Feature, Population

FAILED = "failed_share"
MOVERS = 5


@dataclass(frozen=True, kw_only=True)
class Mover:
    """A cell whose share changed."""

    name: str
    first: float
    second: float


@dataclass(frozen=True, kw_only=True)
class FeatureDrift:
    """One feature of two populations."""

    name: str
    of_data: bool
    first: float
    """Labels (or images) counted in the first run."""
    second: float
    medians: tuple[float, float] | None
    """Of ordered features."""
    movers: tuple[Mover, ...]
    """Cells that moved most; of ordered features, the bins."""
    shift: Shift | None
    """None where nothing was tested."""
    psi_p_adjusted: float = 1.0
    """By Holm, over all tests of the comparison."""
    js_p_adjusted: float = 1.0
    alarm: str = ""
    """A sentence, or nothing."""


@dataclass(frozen=True, kw_only=True)
class FailedShare:
    """Images that failed."""

    shift: RateShift | None
    p_adjusted: float = 1.0
    alarm: str = ""


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """All features of two populations."""

    features: tuple[FeatureDrift, ...]
    failed: FailedShare
    num_permuted: tuple[int, int]
    """Images of each run that the tests permuted."""
    num_pairs: int
    """Of these, images that are in both runs."""
    not_tested: str
    """Why nothing was tested, or nothing."""

    @property
    def alarms(self) -> tuple[str, ...]:
        """All sentences that alarm."""
        found = [*(each.alarm for each in self.features), self.failed.alarm]
        return tuple(alarm for alarm in found if alarm)


def compare_populations(
    first: Population,
    second: Population,
    features: Mapping[str, Feature],
    pairs: Int64[np.ndarray, "P 2"],
    config: DriftConfig,
    *,
    class_names: Sequence[str],
    outcomes: Sequence[str],
) -> DriftReport:
    """Compare every feature that either run has; nothing is tested with fewer than `min_images` images in a run."""
    names = {"class_mix": class_names, "class_area": class_names, "decision": DECISIONS, "outcome": outcomes}
    present = [
        feature
        for feature in features.values()
        if first.totals[feature.name].sum() + second.totals[feature.name].sum() > 0
    ]
    least = min(first.num_images, second.num_images)
    if least < config.min_images:
        reason = (
            f"one run has {counted(least, 'images')}, and nothing is tested below"
            f" {config.min_images} (drift.min_images)"
        )
        untested = tuple(_described(each, first, second, None, names, config) for each in present)
        return DriftReport(
            features=untested,
            failed=FailedShare(shift=None),
            num_permuted=(len(first.sample), len(second.sample)),
            num_pairs=0,
            not_tested=reason,
        )
    check_power(2 * len(present) + 1, config)
    membership, num_pairs = _membership(first, second, pairs, config)
    blocks = [_sampled(feature, first, second, config) for feature in present]
    failed = failed_counts(first, second, outcomes)
    sums = membership.sums(np.concatenate([*blocks, failed], axis=1).astype(np.float64))
    ends = np.cumsum([0, *(block.shape[1] for block in blocks), 2])
    parts = [(sums[0][:, a:b], sums[1][:, a:b]) for a, b in pairwise(ends.tolist())]
    shifts = [
        shift_of(part, first=one, second=two)
        for part, (one, two) in zip(
            parts, (_binned(feature, first, second, config) for feature in present), strict=False
        )
    ]
    rate = rate_shift_of(
        parts[-1],
        first=(first.num_failed, first.num_images),
        second=(second.num_failed, second.num_images),
    )
    adjusted = holm([p for shift in shifts for p in (shift.psi_p, shift.js_p)] + [rate.p])
    described = [
        _alarmed(
            _described(feature, first, second, shift, names, config), config, adjusted[2 * n : 2 * n + 2]
        )
        for n, (feature, shift) in enumerate(zip(present, shifts, strict=True))
    ]
    return DriftReport(
        features=tuple(described),
        failed=_failed_alarm(rate, adjusted[-1], config),
        num_permuted=(len(first.sample), len(second.sample)),
        num_pairs=num_pairs,
        not_tested="",
    )


def _membership(
    first: Population, second: Population, pairs: Int64[np.ndarray, "P 2"], config: DriftConfig
) -> tuple[Membership, int]:
    """The sampled images of both runs, one after the other, with the pairs among them."""
    ordinals = []
    for population, offset in ((first, 0), (second, len(first.sample))):
        places = np.full(population.num_images, NO_PARTNER, np.int64)
        places[population.sample] = np.arange(len(population.sample)) + offset
        ordinals.append(places)
    one, two = ordinals[0][pairs[:, 0]], ordinals[1][pairs[:, 1]]
    both = (one != NO_PARTNER) & (two != NO_PARTNER)
    alone = len(first.sample) - both.sum(), len(second.sample) - both.sum()
    if max(alone) > 0 and min(alone) < config.min_images:
        # Pairs and images that only one run has leave nothing to shuffle. Shuffling all is valid, too: labels of the
        # same image are alike, so that the runs are closer than by chance, never farther.
        both &= False
    partners = np.full(len(first.sample) + len(second.sample), NO_PARTNER, np.int64)
    partners[one[both]], partners[two[both]] = two[both], one[both]
    is_first = np.arange(len(partners)) < len(first.sample)
    membership = Membership(
        is_first=is_first, partners=partners, num_permutations=config.num_permutations, seed=config.seed
    )
    return membership, int(both.sum())


def _bins(feature: Feature, first: Population, second: Population, config: DriftConfig) -> np.ndarray:
    """The bin of each fine cell."""
    pooled = first.totals[feature.name] + second.totals[feature.name]
    if feature.is_ordered:
        return cell_bins(np.rint(pooled).astype(np.int64), config.num_bins)
    # Cells that neither run has are none.
    return np.where(pooled > 0, np.cumsum(pooled > 0) - 1, 0)


def _merged(counts: np.ndarray, bins: np.ndarray) -> Float64[np.ndarray, "*I K"]:
    merged = np.zeros((*counts.shape[:-1], int(bins.max(initial=0)) + 1))
    np.add.at(merged.T, bins, counts.T)
    return merged


def _binned(
    feature: Feature, first: Population, second: Population, config: DriftConfig
) -> tuple[np.ndarray, np.ndarray]:
    bins = _bins(feature, first, second, config)
    return _merged(first.totals[feature.name], bins), _merged(second.totals[feature.name], bins)


def _sampled(
    feature: Feature, first: Population, second: Population, config: DriftConfig
) -> Float64[np.ndarray, "I K"]:
    bins = _bins(feature, first, second, config)
    rows = np.concatenate([first.sampled[feature.name], second.sampled[feature.name]])
    return _merged(rows, bins)


def failed_counts(
    first: Population, second: Population, outcomes: Sequence[str]
) -> Float64[np.ndarray, "I 2"]:
    """For each sampled image whether it failed, and whether not."""
    is_failed = np.array([name.startswith("failed") for name in outcomes])
    rows = np.concatenate([first.sampled["outcome"], second.sampled["outcome"]])
    return np.stack([rows[:, is_failed].sum(axis=1), rows[:, ~is_failed].sum(axis=1)], axis=1).astype(
        np.float64
    )


def _described(
    feature: Feature,
    first: Population,
    second: Population,
    shift: Shift | None,
    names: Mapping[str, Sequence[str]],
    config: DriftConfig,
) -> FeatureDrift:
    totals = first.totals[feature.name], second.totals[feature.name]
    medians = None
    if feature.is_ordered:
        medians = (_median(totals[0], feature), _median(totals[1], feature))
        bins = _bins(feature, first, second, config)
        shares = [_share(_merged(each, bins)) for each in totals]
        labels = [_range_of(feature, bins, n) for n in range(len(shares[0]))]
    else:
        shares = [_share(each) for each in totals]
        labels = list(names[feature.name])
    order = np.argsort(-np.abs(shares[1] - shares[0]), kind="stable")[
        : None if feature.is_ordered else MOVERS
    ]
    order = np.sort(order) if feature.is_ordered else order
    return FeatureDrift(
        name=feature.name,
        of_data=feature.of_data,
        first=float(totals[0].sum()),
        second=float(totals[1].sum()),
        medians=medians,
        movers=tuple(
            Mover(name=labels[n], first=float(shares[0][n]), second=float(shares[1][n]))
            for n in order.tolist()
            if shares[0][n] or shares[1][n]
        ),
        shift=shift,
    )


def _share(counts: np.ndarray) -> np.ndarray:
    total = counts.sum()
    return counts / total if total else np.zeros_like(counts)


def _median(counts: np.ndarray, feature: Feature) -> float:
    if not counts.sum():
        return float("nan")
    middle = np.searchsorted(counts.cumsum(), counts.sum() / 2)
    return float(feature.value_of(np.array([middle]))[0])


def _range_of(feature: Feature, bins: np.ndarray, number: int) -> str:
    cells = (bins == number).nonzero()[0]
    low, high = feature.value_of(cells[[0, -1]])
    return f"{low:.3g} to {high:.3g}"


def _alarmed(drift: FeatureDrift, config: DriftConfig, adjusted: Sequence[float]) -> FeatureDrift:
    shift = drift.shift
    assert shift is not None, "only what was tested can alarm"
    reasons = []
    for name, value, least, p in (
        ("PSI", shift.psi, config.psi, adjusted[0]),
        ("JS", shift.js, config.js, adjusted[1]),
    ):
        if value >= least and p <= config.alpha:
            reasons.append(f"{name} {value:.3f} (limit {least:g}, adjusted p {p:.2g})")
    return FeatureDrift(
        **vars(drift)
        | {
            "psi_p_adjusted": adjusted[0],
            "js_p_adjusted": adjusted[1],
            "alarm": f"{drift.name} drifted: {' and '.join(reasons)}" if reasons else "",
        }
    )


def _failed_alarm(rate: RateShift, p: float, config: DriftConfig) -> FailedShare:
    is_far = abs(rate.difference) >= config.rate and p <= config.alpha
    alarm = (
        f"{FAILED} went from {rate.first:.2%} to {rate.second:.2%} (limit {config.rate:.2%} apart, adjusted p {p:.2g})"
        if is_far
        else ""
    )
    return FailedShare(shift=rate, p_adjusted=p, alarm=alarm)
