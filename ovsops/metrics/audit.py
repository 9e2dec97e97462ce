"""What a sample that people looked at says of a whole run. Axes: H strata.

    of one stratum    Clopper and Pearson's exact interval (Biometrika 26, 1934)
    of all together   the strata's shares, each with its stratum's weight; an interval by Korn and Graubard (Survey
                      Methodology 24, 1998): Clopper-Pearson with the effective number of rows

The effective number of rows is the smaller of two: p (1 - p) / variance, which knows how right and wrong ones spread
over strata, and Kish's 1 / sum(W^2 / n) (Survey Sampling, 1965, section 11.7), which holds where no row was wrong and
the variance says 0. It is lowered further where strata are many and rows few, by the ratio of Student's t.

Not measured: what was never labelled (an audit of labels sees no missing ones), how often people err, and other runs.
A census of a stratum is treated as a sample: intervals are a little too wide there, never too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64, Num
from scipy.special import betaincinv, stdtrit

from ovsops.errors import ConfigError, ShapeError

_MOST_ROWS = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share and where it may lie."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class StratumCount:
    """What was seen of one stratum."""

    size: int
    """Rows in the run."""
    judged: int
    """Rows that people judged."""
    right: int

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.judged <= self.size:
            raise ShapeError(f"{self}: right <= judged <= size is wanted")


def clopper_pearson(right: float | int, total: float | int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a share; 0 to 1 where nothing was seen. Takes effective (broken) numbers, too."""
    if not 0 <= right <= total:
        raise ShapeError(f"{right} of {total}: the hits of a share lie between 0 and its total")
    tail = (1 - confidence) / 2
    return _lower(right, total, tail), _upper(right, total, tail)


def _lower(right: float | int, total: float | int, tail: float) -> float:
    return 0.0 if right <= 0 or total <= 0 else float(betaincinv(right, total - right + 1, tail))


def _upper(right: float | int, total: float | int, tail: float) -> float:
    return 1.0 if right >= total or total <= 0 else float(betaincinv(right + 1, total - right, 1 - tail))


@dataclass(frozen=True, kw_only=True)
class StratifiedShare:
    """The share of right rows of a whole run, estimated from strata."""

    value: float
    effective_rows: float
    covered: float
    """Share of the run's rows that lie in strata of which something was judged. `value` is about these; bounds take the
    others for all wrong and all right."""

    def interval(self, confidence: float = 0.95) -> Share:
        """Two-sided."""
        tail = (1 - confidence) / 2
        return Share(value=self.value, low=self.at_least(tail), high=self.at_most(tail))

    def at_least(self, alpha: float) -> float:
        """Lower bound, one-sided, at confidence 1 - alpha."""
        return self.covered * _lower(self.value * self.effective_rows, self.effective_rows, alpha)

    def at_most(self, alpha: float) -> float:
        """Upper bound, one-sided."""
        seen = _upper(self.value * self.effective_rows, self.effective_rows, alpha)
        return self.covered * seen + 1 - self.covered


def stratified_share(strata: Sequence[StratumCount]) -> StratifiedShare:
    """Share of right rows over all strata. Raises `ShapeError` where nothing was judged."""
    seen = [each for each in strata if each.judged]
    if not seen:
        raise ShapeError("no row was judged: there is nothing to estimate from")
    sizes = np.array([each.size for each in seen], np.float64)
    judged = np.array([each.judged for each in seen], np.float64)
    right = np.array([each.right for each in seen], np.float64)
    weights, shares = sizes / sizes.sum(), right / judged
    value = float(np.clip((weights * shares).sum(), 0.0, 1.0))
    pooled = right.sum() / judged.sum()
    # A stratum of one row has no spread of its own: that of all rows stands in for it.
    spread = np.where(
        judged > 1, shares * (1 - shares) * judged / np.maximum(judged - 1, 1), pooled * (1 - pooled)
    )
    variance = float((weights**2 * spread / judged).sum())
    kish = float(1 / (weights**2 / judged).sum())
    by_variance = value * (1 - value) / variance if variance > 0 else np.inf
    rows = min(kish, by_variance)
    freedom = judged.sum() - len(seen)
    if freedom >= 1 and rows > 1:
        wide, narrow = (float(stdtrit(df, 0.975)) for df in (freedom, judged.sum() - 1))
        rows *= (narrow / wide) ** 2
    total = sum(each.size for each in strata)
    return StratifiedShare(value=value, effective_rows=max(rows, 1.0), covered=float(sizes.sum()) / total)


Decision = Literal["accepted", "rejected", "undecided"]


@dataclass(frozen=True, kw_only=True)
class AcceptanceConfig:
    """What quality a run must have, and how sure that must be."""

    quality: float = 0.95
    """Least share of right labels."""
    alpha: float = 0.05
    """Chance to accept a run that is just not good enough, and to reject one that just is."""

    def __post_init__(self) -> None:
        if not 0 < self.quality < 1:
            raise ConfigError(f"acceptance.quality is {self.quality}: give a share in (0, 1), such as 0.95")
        if not 0 < self.alpha < 0.5:
            raise ConfigError(f"acceptance.alpha is {self.alpha}: give a chance in (0, 0.5), such as 0.05")


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """Whether a run is good enough."""

    decision: Decision
    at_least: float
    """Lower bound of the share of right labels, one-sided."""
    at_most: float
    rows_more: int | None
    """Rows to judge beside those judged, until a run of the share seen would be decided; None where none would do, or
    the run is decided."""


def accept(share: StratifiedShare, config: AcceptanceConfig) -> Acceptance:
    """Accepted where the share is at least `quality` with confidence 1 - alpha; rejected where it is below so."""
    low, high = share.at_least(config.alpha), share.at_most(config.alpha)
    decision: Decision = (
        "accepted" if low >= config.quality else "rejected" if high < config.quality else "undecided"
    )
    more = None
    if decision == "undecided":
        needed = rows_to_decide(share.value, config)
        if needed is not None:
            more = max(1, int(np.ceil(needed - share.effective_rows)))
    return Acceptance(decision=decision, at_least=low, at_most=high, rows_more=more)


def rows_to_decide(value: float, config: AcceptanceConfig) -> int | None:
    """Fewest rows of a plain sample with this share of right ones that would decide; None for the limit itself."""

    def decides(rows: int) -> bool:
        right = value * rows
        if value >= config.quality:
            return _lower(right, rows, config.alpha) >= config.quality
        return _upper(right, rows, config.alpha) < config.quality

    if not decides(_MOST_ROWS):
        return None
    low, high = 0, 1
    while not decides(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def allocate(
    sizes: Sequence[int], budget: int, *, least: int = 2, power: float = 0.5
) -> Int64[np.ndarray, " H"]:
    """Rows to draw from each stratum: `least` of each, the rest by size ** power, never more than there are.

    Bankier's power allocation (The American Statistician 42, 1988): 1 is best for the whole, 0 for the strata alike,
    and 0.5 stands between. What is left over by rounding goes to the largest remainders, of equal ones to the first.
    """
    room = np.array(sizes, np.int64)
    if (room < 0).any() or budget < 0 or least < 0:
        raise ShapeError("sizes, budget and least rows are 0 or more")
    budget = min(budget, int(room.sum()))
    rows = np.minimum(room, least)
    if rows.sum() > budget:
        raise ConfigError(
            f"{budget} rows do not give {least} to each of {len(room)} strata: give {int(rows.sum())} or"
            " more, or coarser"
            " strata"
        )
    while (left := budget - int(rows.sum())) > 0:
        free = room - rows
        pull = np.where(free > 0, room.astype(np.float64) ** power, 0.0)
        wanted = left * pull / pull.sum()
        given = np.minimum(np.floor(wanted).astype(np.int64), free)
        if not given.sum():
            order = np.lexsort((np.arange(len(room)), -np.where(free > 0, wanted, -1.0)))
            given[order[: min(left, int((free > 0).sum()))]] = 1
        rows = rows + given
    return rows


def design_weights(sizes: Num[np.ndarray, " H"], rows: Num[np.ndarray, " H"]) -> Num[np.ndarray, " H"]:
    """How many rows of the run each judged row stands for."""
    return np.divide(sizes, rows, out=np.zeros(len(sizes)), where=rows > 0)
