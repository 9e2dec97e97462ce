"""The guard: a classifier that knows, one at chance, one that harms."""

import math

import pytest
import torch

from ovsops.errors import ConfigError
from ovsops.regions.recalibrate import RecalibrationConfig, competing_groups
from ovsops.regions.tuning import (
    ClassifierCheck,
    GuardConfig,
    KnownRegions,
    TuningGrid,
    check_classifier,
    judge,
)

GROUPS = competing_groups(["ball", "ball", "ball", "box", "box", "box"])
"""Two nouns in three colours."""


def regions_of(*, knows: str, num: int = 240, seed: int = 0) -> KnownRegions:
    """Two nouns in three colours, and a region classifier that knows `knows`."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 6, (num,), generator=generator)
    noise = torch.rand(num, 6, generator=generator) * 0.4
    colours = torch.arange(6) % 3
    right = torch.zeros(num, 6, dtype=torch.bool)
    if "colours" in knows:
        right |= colours[truth][:, None] == colours[None]
    if "everything" in knows:
        right |= truth[:, None] == torch.arange(6)
    return KnownRegions(
        similarity=noise + 0.5 * right,
        true_labels=truth,
        groups=GROUPS,
    )


def test_a_classifier_that_knows_is_let_through() -> None:
    check = check_classifier(regions_of(knows="everything"), RecalibrationConfig(mode="global"))
    assert (check.fault, check.accuracy, check.chance) == ("", 1.0, pytest.approx(1 / 6))


def test_in_competing_mode_the_classifier_is_asked_for_colours_only() -> None:
    check = check_classifier(regions_of(knows="colours"), RecalibrationConfig(mode="competing"))
    assert (check.fault, check.accuracy, check.chance) == ("", 1.0, pytest.approx(1 / 3))


def test_a_classifier_at_chance_is_refused() -> None:
    check = check_classifier(regions_of(knows="nothing"), RecalibrationConfig(mode="global"))
    assert "chance is 0.167" in check.fault


def test_a_constant_classifier_is_refused() -> None:
    known = regions_of(knows="everything")
    constant = KnownRegions(**{**vars(known), "similarity": torch.full((240, 6), 0.2)})
    check = check_classifier(constant, RecalibrationConfig(mode="global"))
    assert check.fault
    assert check.accuracy == 0


def test_names_without_rivals_are_left_alone() -> None:
    alone = KnownRegions(**{**vars(regions_of(knows="everything")), "groups": torch.arange(6)})
    check = check_classifier(alone, RecalibrationConfig(mode="competing"))
    assert check.fault == "no name has a rival, so there is nothing to choose from"


def test_too_few_regions_prove_nothing() -> None:
    check = check_classifier(regions_of(knows="everything", num=20), RecalibrationConfig())
    assert check.fault == "20 regions of known name, 50 are needed"


def test_regions_without_truth() -> None:
    known = regions_of(knows="everything", num=3)
    empty = KnownRegions(**{**vars(known), "true_labels": torch.full((3,), -1)})
    check = check_classifier(empty, RecalibrationConfig())
    assert check.fault == "0 regions of known name, 50 are needed"
    assert math.isnan(check.accuracy)


@pytest.mark.parametrize(
    ("fault", "after", "refused", "reason"),
    [
        ("", 0.85, False, "AP50 goes from 0.800 to 0.850"),
        ("", 0.795, False, "AP50 goes from 0.800 to 0.795"),
        ("", 0.7, True, "AP50 would fall from 0.800 to 0.700"),
        ("it guesses", 0.85, True, "it guesses"),
        ("it guesses", 0.7, True, "it guesses"),
    ],
)
def test_a_classifier_that_guesses_or_that_harms_is_refused(
    fault: str, after: float, refused: bool, reason: str
) -> None:
    check = ClassifierCheck(fault=fault, num_regions=100, chance=0.2, accuracy=0.9)
    verdict = judge(check, before=0.8, after=after, guard=GuardConfig(max_loss=0.01))
    assert (verdict.is_refused, verdict.reason) == (refused, reason)
    assert (verdict.detector_precision, verdict.recalibrated_precision) == (0.8, after)


def test_a_grid_without_groups_has_no_competing_settings() -> None:
    modes = {config.mode for config in TuningGrid().configs(has_groups=False)}
    assert modes == {"keep", "global"}


def test_grids_and_guards_that_mean_nothing() -> None:
    with pytest.raises(ConfigError, match=r"lie in \[0, 1\)"):
        TuningGrid(detector_shares=(1.0,))
    with pytest.raises(ConfigError, match="no mode, share or scale"):
        TuningGrid(modes=())
    with pytest.raises(ConfigError, match="min_regions is at least 1"):
        GuardConfig(min_regions=0)
