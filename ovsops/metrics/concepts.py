"""Is a phrase in the image, and are all its instances found? cgF1, pmF1, IL_MCC. Axes: N found, G true, T overlaps.

The figures of SAM 3 (arXiv:2511.16719; facebookresearch/sam3, commit bc2090d, sam3/eval/cgf1_eval.py): a pair of an
image and a phrase is one sample, only objects of score >= 0.5 count.

    IL_MCC  Matthews correlation of "something was found" with "something is there", over all pairs
    pmF1    on pairs where something is there: found and true are matched one to one for the largest sum of IoU; hits,
            misses and false finds summed over pairs, F1, mean over overlaps 0.50 to 0.95
    cgF1    100 * pmF1 * IL_MCC

`mode="upstream"` adds the small numbers (1e-4, 1e-6) to the denominators that the reference code adds.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, Num
from scipy.optimize import linear_sum_assignment

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.counts import added, mean_of_defined, ratio

OVERLAPS = np.linspace(0.5, 0.95, 10)
HITS, FALSE_FINDS, MISSES, PAIRS_BOTH, PAIRS_FOUND, PAIRS_NEITHER, PAIRS_TRUE = range(7)
"""Rows: objects on pairs that have some; pairs where both sides have some, only found, none, onlytrue."""
Mode = Literal["corrected", "upstream"]


@dataclass(frozen=True, kw_only=True)
class ConceptFigures:
    """Does not measure how scores above the threshold are ordered (AP does), nor phrases that nobody asked for."""

    cg_f1: float
    """0 to 100."""
    pm_f1: float
    """0 to 1; nan where no pair has a true object."""
    il_mcc: float
    """-1 to 1; nan where all pairs have a true object or none has."""
    pm_f1_by_overlap: Float64[np.ndarray, " T"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ConceptCounts:
    """Objects and pairs; the four counts of pairs stand in every column."""

    threshold: float
    counts: Int64[np.ndarray, "7 T"]

    @classmethod
    def zeros(cls, *, threshold: float = 0.5) -> "ConceptCounts":
        """Nothing counted yet; objects with a score below `threshold` do not count."""
        if not 0 <= threshold <= 1:
            raise ConfigError(f"concepts: threshold = {threshold}: a score lies in [0, 1]")
        return cls(threshold=threshold, counts=np.zeros((7, len(OVERLAPS)), np.int64))

    def update(
        self,
        ious: Float64[np.ndarray, "N G"],
        scores: Float64[np.ndarray, " N"],
        *,
        is_ignored: Bool[np.ndarray, " G"] | None = None,
    ) -> "ConceptCounts":
        """These counts and those of one more pair; leave out pairs whose objects are not all marked.

        Ignored true objects are left out on their side; finds of them are false finds, as in the reference.
        """
        if not ((scores >= 0) & (scores <= 1)).all() or not ((ious >= 0) & (ious <= 1 + 1e-9)).all():
            raise ShapeError("scores or IoUs outside [0, 1] or nan cannot be counted")
        kept = ious[scores >= self.threshold]
        kept = kept if is_ignored is None else kept[:, ~is_ignored]
        num_found, num_true = kept.shape
        counts = self.counts.copy()
        if num_true:
            rows, columns = linear_sum_assignment(-kept)
            hits = (kept[rows, columns][:, None] >= OVERLAPS).sum(axis=0)
            counts[HITS] += hits
            counts[FALSE_FINDS] += num_found - hits
            counts[MISSES] += num_true - hits
        pair = {(True, True): PAIRS_BOTH, (True, False): PAIRS_FOUND, (False, False): PAIRS_NEITHER}
        counts[pair.get((num_found > 0, num_true > 0), PAIRS_TRUE)] += 1
        return ConceptCounts(threshold=self.threshold, counts=counts)

    def __add__(self, other: "ConceptCounts") -> "ConceptCounts":
        if self.threshold != other.threshold:
            raise ShapeError(f"thresholds {self.threshold} and {other.threshold}: merge like with like")
        return ConceptCounts(
            threshold=self.threshold, counts=added(self.counts, other.counts, what="concept counts")
        )

    def compute(self, *, mode: Mode = "corrected") -> ConceptFigures:
        """All figures of the pairs counted."""
        by_overlap = pm_f1_by_overlap(self.counts, mode=mode)
        pm_f1, mcc = float(mean_of_defined(by_overlap)), float(il_mcc(self.counts, mode=mode))
        return ConceptFigures(cg_f1=100 * pm_f1 * mcc, pm_f1=pm_f1, il_mcc=mcc, pm_f1_by_overlap=by_overlap)


def pm_f1_by_overlap(
    counts: Num[np.ndarray, "*B 7 T"], *, mode: Mode = "corrected"
) -> Float64[np.ndarray, "*B T"]:
    """F1 of the objects on pairs that have some; nan without such pairs (0 upstream)."""
    hits, false_finds, misses = (
        np.asarray(counts[..., row, :], np.float64) for row in (HITS, FALSE_FINDS, MISSES)
    )
    if mode == "corrected":
        return ratio(2 * hits, 2 * hits + false_finds + misses)
    precision, recall = hits / (hits + false_finds + 1e-4), hits / (hits + misses + 1e-4)
    return np.asarray(2 * precision * recall / (precision + recall + 1e-4), np.float64)


def il_mcc(counts: Num[np.ndarray, "*B 7 T"], *, mode: Mode = "corrected") -> Float64[np.ndarray, "*B"]:
    """Matthews correlation over pairs.

    A detector that says the same of every pair has 0: it knows nothing. Where the truth is the same for every pair
    there is nothing to correlate with: nan (0 upstream).
    """
    both, found, neither, true = (
        np.asarray(counts[..., row, 0], np.float64)
        for row in (PAIRS_BOTH, PAIRS_FOUND, PAIRS_NEITHER, PAIRS_TRUE)
    )
    covariance = both * neither - found * true
    of_truth = np.sqrt((both + true) * (neither + found))
    of_found = np.sqrt((both + found) * (neither + true))
    if mode == "upstream":
        return np.asarray(covariance / (of_truth * of_found + 1e-6), np.float64)
    return np.where(of_truth > 0, np.nan_to_num(ratio(covariance, of_truth * of_found)), np.nan)


def cg_f1(counts: Num[np.ndarray, "*B 7 T"]) -> Float64[np.ndarray, "*B"]:
    """cgF1 of any batch of states (for `bootstrap`), 0 to 100."""
    return np.asarray(100 * mean_of_defined(pm_f1_by_overlap(counts)) * il_mcc(counts), np.float64)
