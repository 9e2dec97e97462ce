"""The guard and the choice of exponents: a classifier that knows, one at chance, one that harms."""

import math

import pytest
import torch

from ovsops.errors import ConfigError, ShapeError
from ovsops.regions.recalibrate import RecalibrationConfig, competing_groups
from ovsops.regions.tuning import GuardConfig, TuningGrid, TuningSplit, judge, name_precision, tune

GROUPS = competing_groups(["ball", "ball", "ball", "box", "box", "box"])
"""Two nouns in three colours."""


def split_of(*, knows: str, num: int = 240, seed: int = 0) -> TuningSplit:
    """A detector that is right about nouns and blind to colours, and a region classifier that knows `knows`."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 6, (num,), generator=generator)
    noise = torch.rand(num, 6, generator=generator) * 0.4
    colours, nouns = torch.arange(6) % 3, GROUPS
    right = torch.zeros(num, 6, dtype=torch.bool)
    if "colours" in knows:
        right |= colours[truth][:, None] == colours[None]
    if "everything" in knows:
        right |= truth[:, None] == torch.arange(6)
    return TuningSplit(
        similarity=noise + 0.5 * right,
        detector_labels=nouns[truth] * 3 + torch.randint(0, 3, (num,), generator=generator),
        detector_scores=torch.rand(num, generator=generator),
        true_labels=truth,
        groups=GROUPS,
    )


def test_name_precision_by_hand() -> None:
    """By score: right, wrong, right, nothing there; three have a name: (1 + 2/3) / 3."""
    precision = name_precision(
        torch.tensor([0, 1, 2, 0]), torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 2, -1])
    )
    assert precision == pytest.approx((1 + 2 / 3) / 3)


def test_equal_scores_put_the_wrong_ones_first() -> None:
    labels, truth = torch.tensor([0, 1]), torch.tensor([0, 0])
    assert name_precision(labels, torch.tensor([0.5, 0.5]), truth) == pytest.approx(0.25)


def test_competing_wins_where_the_classifier_knows_colours_and_the_detector_nouns() -> None:
    split = split_of(knows="colours")
    tuned = tune(split)
    assert tuned.config is not None
    assert tuned.config.mode == "competing"
    assert tuned.precision > 2 * tuned.detector_precision
    by_mode = {
        mode: max(figure for config, figure in tuned.tried if config.mode == mode)
        for mode in ("keep", "global", "competing")
    }
    assert by_mode["competing"] > by_mode["global"] + 0.2


def test_a_classifier_that_knows_is_let_through() -> None:
    verdict = judge(split_of(knows="everything"), RecalibrationConfig(mode="global"))
    assert not verdict.is_refused
    assert (verdict.classifier_accuracy, verdict.chance) == (1.0, pytest.approx(1 / 6))
    assert verdict.recalibrated_precision > verdict.detector_precision


def test_in_competing_mode_the_classifier_is_asked_for_colours_only() -> None:
    split = split_of(knows="colours")
    asked = judge(split, RecalibrationConfig(mode="competing"))
    assert (asked.classifier_accuracy, asked.chance) == (1.0, pytest.approx(1 / 3))
    assert not asked.is_refused


def test_a_classifier_at_chance_is_refused() -> None:
    verdict = judge(split_of(knows="nothing"), RecalibrationConfig(mode="global"))
    assert verdict.is_refused
    assert "chance is 0.167" in verdict.reason


def test_a_constant_classifier_is_refused() -> None:
    split = split_of(knows="everything")
    constant = TuningSplit(**{**vars(split), "similarity": torch.full((240, 6), 0.2)})
    verdict = judge(constant, RecalibrationConfig(mode="global"))
    assert verdict.is_refused
    assert verdict.classifier_accuracy == 0


def test_a_classifier_that_would_harm_a_good_detector_is_refused() -> None:
    split = split_of(knows="colours")
    perfect = TuningSplit(**{**vars(split), "detector_labels": split.true_labels})
    verdict = judge(perfect, RecalibrationConfig(mode="global", alpha=0.1, beta=0.9))
    assert verdict.is_refused
    assert "average precision of names would fall from 1.000" in verdict.reason
    assert tune(perfect, grid=TuningGrid(modes=("global",), detector_shares=(0.1,))).config is None


def test_names_without_rivals_are_left_alone() -> None:
    alone = TuningSplit(**{**vars(split_of(knows="everything")), "groups": torch.arange(6)})
    verdict = judge(alone, RecalibrationConfig(mode="competing"))
    assert verdict.is_refused
    assert verdict.reason == "no name has a rival, so there is nothing to choose from"


def test_too_few_regions_prove_nothing() -> None:
    verdict = judge(split_of(knows="everything", num=20), RecalibrationConfig())
    assert verdict.is_refused
    assert verdict.reason == "20 regions of known name, 50 are needed"


def test_a_split_without_truth() -> None:
    split = split_of(knows="everything", num=3)
    empty = TuningSplit(**{**vars(split), "true_labels": torch.full((3,), -1)})
    verdict = judge(empty, RecalibrationConfig())
    assert verdict.is_refused
    assert math.isnan(verdict.classifier_accuracy)
    with pytest.raises(ShapeError, match="no box of the split has a true name"):
        tune(empty)


def test_without_groups_competing_is_not_tried() -> None:
    split = TuningSplit(**{**vars(split_of(knows="everything")), "groups": None})
    assert {config.mode for config, _ in tune(split).tried} == {"keep", "global"}


def test_grids_and_guards_that_mean_nothing() -> None:
    with pytest.raises(ConfigError, match=r"lie in \[0, 1\)"):
        TuningGrid(detector_shares=(1.0,))
    with pytest.raises(ConfigError, match="no mode, share or scale"):
        TuningGrid(modes=())
    with pytest.raises(ConfigError, match="min_regions is at least 1"):
        GuardConfig(min_regions=0)
