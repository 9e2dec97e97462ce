"""cgF1, pmF1 and IL_MCC by hand, with scorers that know nothing and counts that add up."""

import math

import numpy as np
import pytest

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.bootstrap import bootstrap
from ovsops.metrics.concepts import ConceptCounts, cg_f1


def pair(counts: ConceptCounts, ious: list[list[float]], scores: list[float], num_true: int) -> ConceptCounts:
    return counts.update(
        np.array(ious, np.float64).reshape(len(scores), num_true), np.array(scores, np.float64)
    )


def presence(both: int, found: int, neither: int, true: int) -> ConceptCounts:
    counts = ConceptCounts.zeros()
    for times, ious, scores, num_true in (
        (both, [[1.0]], [0.9], 1),
        (found, [], [0.9], 0),
        (neither, [], [], 0),
        (true, [], [], 1),
    ):
        for _ in range(times):
            counts = pair(counts, ious, scores, num_true)
    return counts


def test_by_hand() -> None:
    """One pair with two true objects: IoU 1 and 0.7 (right at 5 of 10 overlaps), and one false find."""
    counts = pair(ConceptCounts.zeros(), [[1, 0], [0, 0.72], [0, 0]], [0.9, 0.8, 0.7], 2)
    counts = pair(counts, [], [], 0)
    figures = counts.compute()
    np.testing.assert_allclose(figures.pm_f1_by_overlap, [4 / 5] * 5 + [2 / 5] * 5)
    assert figures.pm_f1 == pytest.approx(0.6)
    assert figures.il_mcc == 1.0
    assert figures.cg_f1 == pytest.approx(60)


def test_mcc_by_hand() -> None:
    """3 both, 1 only found, 2 neither, 2 only true: (6 - 2) / sqrt(4 * 5 * 3 * 4)."""
    assert presence(3, 1, 2, 2).compute().il_mcc == pytest.approx(4 / math.sqrt(240))


def test_the_reference_code_has_small_numbers_in_its_denominators() -> None:
    """Worked out with its formulas: precision 3 / 3.0001, recall 3 / 5.0001."""
    figures = presence(3, 1, 2, 2).compute(mode="upstream")
    precision, recall = 3 / 3.0001, 3 / 5.0001
    assert figures.pm_f1 == pytest.approx(2 * precision * recall / (precision + recall + 1e-4), abs=1e-12)
    assert figures.il_mcc == pytest.approx(4 / (math.sqrt(240) + 1e-6), abs=1e-12)
    assert presence(1, 0, 0, 0).compute(mode="upstream").il_mcc == 0


def test_finds_on_pairs_without_the_object_hurt_presence_only() -> None:
    alone, flooded = presence(4, 0, 4, 0).compute(), presence(4, 4, 0, 0).compute()
    assert (alone.pm_f1, flooded.pm_f1) == (1.0, 1.0)
    assert (alone.cg_f1, flooded.cg_f1) == (100.0, 0.0)


def test_a_detector_that_says_the_same_of_all_pairs_knows_nothing() -> None:
    assert presence(5, 5, 0, 0).compute().il_mcc == 0
    assert presence(0, 0, 5, 5).compute().il_mcc == 0
    assert presence(0, 5, 0, 5).compute().il_mcc == -1


def test_without_absent_phrases_presence_has_no_figure() -> None:
    figures = presence(5, 0, 0, 1).compute()
    assert math.isnan(figures.il_mcc)
    assert math.isnan(figures.cg_f1)
    assert math.isnan(ConceptCounts.zeros().compute().pm_f1)


def test_the_match_is_the_best_of_all_not_the_first() -> None:
    """The first find fits both; only the crossed match has two hits at 0.5."""
    counts = pair(ConceptCounts.zeros(), [[0.9, 0.8], [0.8, 0.1]], [0.9, 0.8], 2)
    assert counts.compute().pm_f1_by_overlap[0] == 1.0


def test_scores_below_the_threshold_and_ignored_objects_do_not_count() -> None:
    counts = pair(ConceptCounts.zeros(), [[1.0], [0.0]], [0.5, 0.49], 1)
    assert counts.compute().pm_f1 == 1.0
    ignored = ConceptCounts.zeros().update(
        np.array([[1.0, 0.0]]), np.array([0.9]), is_ignored=np.array([False, True])
    )
    assert ignored.compute().pm_f1 == 1.0


def test_counts_add_up_and_have_an_interval() -> None:
    states = [presence(1, 0, 0, 0), presence(0, 1, 0, 0), presence(0, 0, 1, 0), presence(1, 0, 1, 0)]
    whole = states[0]
    for state in states[1:]:
        whole = state + whole
    interval = bootstrap(np.stack([state.counts for state in states]), cg_f1)
    assert float(interval.value) == pytest.approx(whole.compute().cg_f1)
    assert interval.low <= interval.value <= interval.high


def test_what_cannot_be_counted() -> None:
    with pytest.raises(ShapeError, match=r"outside \[0, 1\] or nan"):
        pair(ConceptCounts.zeros(), [[0.5]], [math.nan], 1)
    with pytest.raises(ConfigError, match="threshold = 2"):
        ConceptCounts.zeros(threshold=2.0)
    with pytest.raises(ShapeError, match="merge like with like"):
        ConceptCounts.zeros() + ConceptCounts.zeros(threshold=0.3)
