"""Whether two populations of labels differ, and whether chance explains it. Axes: I images, K cells, B permutations.

Two distances between shares p (first run) and q (second run) of the same K cells:

    PSI = sum (p - q) ln(p / q)              population stability index (Siddiqi, Credit Risk Scorecards, 2006); it is
                                             Jeffreys' divergence (Proc. R. Soc. A 186, 1946, eq. 1), 0 to infinity
    JS  = (KL(p | m) + KL(q | m)) / 2        Jensen-Shannon divergence in bits, m = (p + q) / 2, 0 to 1
                                             (Lin, IEEE Trans. Inf. Theory 37, 1991, eq. 4.1)

Both grow by chance alone as samples shrink: of equal populations with n and m independent labels, PSI is near
(1/n + 1/m)(K - 1) (Yurdakul, Statistical Properties of Population Stability Index, 2018). Rules of thumb such as 0.25
say nothing about that, so a distance alarms only where a permutation test agrees. Images are permuted, not labels:
labels of one image go together. An image that is in both runs keeps its pair, and the two change places.

Not measured: whether labels are right, drift inside a cell, and which of several changes moved the figures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Num
from scipy.special import ndtri

from ovsops.errors import ConfigError, ShapeError

PSEUDO_COUNT = 0.5
"""Labels added to every cell before PSI is taken: an empty cell has no logarithm."""
NO_PARTNER = -1
_CELLS_AT_ONCE = 1 << 22


@dataclass(frozen=True, kw_only=True)
class DriftConfig:
    """When populations count as different."""

    psi: float = 0.25
    """Least PSI that can alarm. 0.1 is commonly called a small shift, 0.25 a large one."""
    js: float = 0.05
    """Least Jensen-Shannon divergence, in bits, that can alarm."""
    rate: float = 0.02
    """Least difference of two shares, such as that of failed images, that can alarm."""
    alpha: float = 0.01
    """Chance of any alarm at all where nothing differs, over all tests of one comparison together."""
    num_permutations: int = 4999
    min_images: int = 20
    """With fewer images in either run nothing is tested, and nothing alarms."""
    max_images: int = 2000
    """Images of each run that are permuted, chosen by a hash of their content; distances are those of all images."""
    num_bins: int = 10
    """Cells that scores and sizes are put into, of about equal counts in both runs together."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("psi", "js", "rate"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"drift.{name} is {getattr(self, name)}: give a finite number of 0 or more")
        if not 0 < self.alpha < 1:
            raise ConfigError(f"drift.alpha is {self.alpha}: give a chance in (0, 1), such as 0.01")
        for name, least in (("num_permutations", 1), ("min_images", 2), ("max_images", 2), ("num_bins", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"drift.{name} is {getattr(self, name)}: give {least} or more")


def population_stability_index(
    first: Num[np.ndarray, "*B K"], second: Num[np.ndarray, "*B K"]
) -> Float64[np.ndarray, "*B"]:
    """PSI of counts, each cell with `PSEUDO_COUNT` more. 0 where neither has a label."""
    p, q = (_shares(counts + PSEUDO_COUNT) for counts in (first, second))
    return np.asarray(((p - q) * np.log(p / q)).sum(axis=-1))


def jensen_shannon_divergence(
    first: Num[np.ndarray, "*B K"], second: Num[np.ndarray, "*B K"]
) -> Float64[np.ndarray, "*B"]:
    """Bits, in [0, 1]; nan where one of the two has no label at all."""
    p, q = _shares(first), _shares(second)
    middle = (p + q) / 2
    return np.asarray((_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2)


def _relative_entropy(p: Num[np.ndarray, "*B K"], q: Num[np.ndarray, "*B K"]) -> Float64[np.ndarray, "*B"]:
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return np.asarray((p * np.log2(ratio)).sum(axis=-1))


def _shares(counts: Num[np.ndarray, "*B K"]) -> Float64[np.ndarray, "*B K"]:
    total = counts.sum(axis=-1, keepdims=True).astype(np.float64)
    return np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)


def cell_bins(counts: Int64[np.ndarray, " C"], num_bins: int) -> Int64[np.ndarray, " C"]:
    """The bin of each fine cell, so that bins of neighbouring cells hold about equal counts.

    `counts` are those of both runs together: bins that depend on one run alone would spoil the permutation test.
    """
    total = int(counts.sum())
    if total == 0:
        return np.zeros(len(counts), np.int64)
    before = np.concatenate([[0], counts.cumsum()[:-1]])
    places = np.minimum(before * num_bins // total, num_bins - 1)
    return np.unique(places, return_inverse=True)[1].astype(np.int64)


def memberships(
    is_first: Bool[np.ndarray, " I"],
    partners: Int64[np.ndarray, " I"],
    *,
    num_permutations: int,
    seed: int,
) -> Iterator[Bool[np.ndarray, "B I"]]:
    """Who is in the first run, had chance alone decided: a block of permutations at a time.

    `partners` is the place of the same image in the other run, or `NO_PARTNER`. Images without one are shuffled, so
    that both runs keep their number of images.
    """
    generator = np.random.default_rng(seed)
    places = np.arange(len(is_first))
    alone = (partners == NO_PARTNER).nonzero()[0]
    one = ((partners != NO_PARTNER) & is_first).nonzero()[0]
    if (
        not (partners[partners[one]] == one).all()
        or is_first[partners[one]].any()
        or len(one) * 2 + len(alone) != len(places)
    ):
        raise ShapeError("partners: each image of a pair names the other one, which is in the other run")
    left = num_permutations
    while left:
        size = min(left, max(1, _CELLS_AT_ONCE // max(1, len(places))))
        drawn = np.zeros((size, len(places)), bool)
        drawn[:, alone] = generator.permuted(np.tile(is_first[alone], (size, 1)), axis=1)
        stays = generator.random((size, len(one))) < 0.5
        drawn[:, one], drawn[:, partners[one]] = stays, ~stays
        yield drawn
        left -= size


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How far one feature moved, and what chance alone would give."""

    psi: float
    psi_by_chance: float
    """95th percentile of PSI over permutations."""
    psi_p: float
    js: float
    js_by_chance: float
    js_p: float
    """Share of permutations at least as far apart, the observed one among them (Phipson and Smyth 2010)."""


@dataclass(frozen=True, kw_only=True)
class RateShift:
    """How a share of images moved."""

    first: float
    second: float
    low: float
    high: float
    """Of the difference second - first, 95 % (Newcombe, Stat. Med. 17, 1998, method 10: as for different images)."""
    p: float

    @property
    def difference(self) -> float:
        """Second share minus first."""
        return self.second - self.first


@dataclass(frozen=True, kw_only=True, eq=False)
class Membership:
    """The images that are permuted: their runs, pairs, and how."""

    is_first: Bool[np.ndarray, " I"]
    partners: Int64[np.ndarray, " I"]
    num_permutations: int
    seed: int = 0

    def sums(
        self, counts: Float64[np.ndarray, "I K"]
    ) -> tuple[Float64[np.ndarray, "B K"], Float64[np.ndarray, "B K"]]:
        """Counts of both runs; row 0 is what was observed, the others are permutations.

        Columns of several features side by side cost one pass.
        """
        rows = [self.is_first[None].astype(np.float64) @ counts]
        rows += [
            drawn.astype(np.float64) @ counts
            for drawn in memberships(
                self.is_first, self.partners, num_permutations=self.num_permutations, seed=self.seed
            )
        ]
        first = np.concatenate(rows)
        return first, counts.sum(axis=0) - first


def shift_of(
    sums: tuple[Float64[np.ndarray, "B K"], Float64[np.ndarray, "B K"]],
    *,
    first: Num[np.ndarray, " K"],
    second: Num[np.ndarray, " K"],
) -> Shift:
    """Distances of the whole runs (`first`, `second`), and how often chance gives what the images permuted show.

    `sums` is what `Membership.sums` gave for the images that were permuted.
    """
    figures: dict[str, float] = {}
    for name, distance in (("psi", population_stability_index), ("js", jensen_shannon_divergence)):
        drawn = np.nan_to_num(distance(*sums))
        figures |= {
            name: float(np.nan_to_num(distance(first, second))),
            f"{name}_by_chance": float(np.quantile(drawn[1:], 0.95)),
            f"{name}_p": permutation_p(drawn),
        }
    return Shift(**figures)


def rate_shift_of(
    sums: tuple[Float64[np.ndarray, "B 2"], Float64[np.ndarray, "B 2"]],
    *,
    first: tuple[int, int],
    second: tuple[int, int],
) -> RateShift:
    """Difference of two shares; columns of `sums` are hits and others, `first` and `second` hits and all images."""
    rates = [_shares(part)[:, 0] for part in sums]
    low, high = newcombe_interval(first, second)
    return RateShift(
        first=first[0] / first[1],
        second=second[0] / second[1],
        low=low,
        high=high,
        p=permutation_p(np.abs(rates[1] - rates[0])),
    )


def permutation_p(drawn: Float64[np.ndarray, " B"]) -> float:
    """Share of all draws that reach the first one, which is among them: never 0."""
    return float((drawn >= drawn[0] * (1 - 1e-12)).mean())


def newcombe_interval(
    first: tuple[int, int], second: tuple[int, int], confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of the difference of two independent shares, from the Wilson interval of each."""
    one, two = (wilson_interval(*each, confidence=confidence) for each in (first, second))
    a, b = first[0] / first[1], second[0] / second[1]
    low = (b - a) - float(np.hypot(b - two[0], one[1] - a))
    high = (b - a) + float(np.hypot(two[1] - b, a - one[0]))
    return low, high


def wilson_interval(hits: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (JASA 22, 1927)."""
    if not 0 <= hits <= total or total == 0:
        raise ShapeError(f"{hits} of {total}: a share needs at least one, and no more hits than there are")
    z = float(ndtri((1 + confidence) / 2))
    share, shrink = hits / total, 1 / (1 + z * z / total)
    middle = shrink * (share + z * z / (2 * total))
    reach = shrink * z * float(np.sqrt(share * (1 - share) / total + z * z / (4 * total * total)))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for how many there are (Holm, Scand. J. Stat. 6, 1979): any <= alpha has chance <= alpha."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    raised = [p_values[place] * (len(p_values) - rank) for rank, place in enumerate(order)]
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0) if raised else []
    return [float(value) for value in adjusted]


def check_power(num_tests: int, config: DriftConfig) -> None:
    """Raise `ConfigError` where so few permutations can never give a p-value that alarms."""
    least = num_tests / (config.num_permutations + 1)
    if num_tests and least > config.alpha:
        raise ConfigError(
            f"drift.num_permutations is {config.num_permutations}: with {num_tests} tests no p-value can go below"
            f" {least:.3g}, so alpha {config.alpha} is never reached; give {int(num_tests / config.alpha)} or more"
        )
