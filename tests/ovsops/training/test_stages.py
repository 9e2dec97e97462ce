"""Five stages in a row: each starts where the former ended, and each thing can be switched off alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ovsops.errors import ConfigError
from ovsops.mapper.model import load_mapper
from ovsops.training.curve import read_curve
from ovsops.training.loop import LoopConfig, Progress
from ovsops.training.mapper import MapperProgram
from ovsops.training.mapper_config import MapperProgramConfig
from ovsops.training.stages import STAGE_NAMES, Stage, StagePlan, five_stages, train_stages
from tests.ovsops.training.mapper_world import GRIDS, World

BASE = MapperProgramConfig(batch_size=6, grids=(4,), distilled_scenes=2, num_crops=1, crop_grid=3)
LOOP = LoopConfig(num_steps=4, learning_rate=1e-3, warmup_steps=0, log_every=2, save_every=2)


def test_the_five_stages_switch_on_what_they_say() -> None:
    plan = five_stages(BASE, LOOP, grids=GRIDS, translation_weight=0.5)
    weights = [
        (
            s.program.infonce_weight,
            s.program.sigmoid_weight,
            s.program.distillation_weight,
            s.program.masked_weight,
        )
        for s in plan.stages
    ]
    assert weights == [(1.0, 0.0, 0.0, 0.0), (0.6, 0.4, 0.0, 0.0)] + [(0.4, 0.3, 0.2, 0.1)] * 3
    assert [s.program.grids for s in plan.stages] == [(4,)] * 3 + [GRIDS] * 2
    assert plan.stages[4].program.translation_weight == 0.5
    assert five_stages(BASE, LOOP).stages[4].program.groups_weight == 0.0
    assert plan.grids == GRIDS


def test_every_stage_has_an_ablation_that_changes_one_field() -> None:
    plan = five_stages(BASE, LOOP, grids=GRIDS, translation_weight=0.5, groups_weight=0.1)
    ablations = plan.ablations()
    assert set(ablations) == {
        "alignment-without-sigmoid_weight",
        "self_supervision-without-distillation_weight",
        "self_supervision-without-masked_weight",
        "multi_resolution-without-grids",
        "diversity-without-translation_weight",
        "diversity-without-groups_weight",
    }
    for name, without in ablations.items():
        place, field = len(without.stages) - 1, name.split("-")[-1]
        one, other = plan.stages[place], without.stages[place]
        assert without.stages[:place] == plan.stages[:place]
        assert replace(other.program, **{field: getattr(one.program, field)}) == one.program
        assert one.program != other.program
        assert one.loop == other.loop


def test_stages_continue_and_a_killed_plan_ends_the_same(world: World, tmp_path: Path) -> None:
    plan = five_stages(BASE, LOOP, grids=GRIDS, translation_weight=0.2, groups_weight=0.1)
    told: list[tuple[str, int]] = []

    def tell(name: str, progress: Progress) -> None:
        told.append((name, progress.step))

    last = train_stages(plan, world.features, tmp_path / "whole", views=world.views(), on_progress=tell)
    assert last == tmp_path / "whole" / "5-diversity" / "export"
    assert told == [(name, step) for name in STAGE_NAMES for step in (2, 4)]

    def kill(name: str, progress: Progress) -> None:
        if (name, progress.step) == ("multi_resolution", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_stages(plan, world.features, tmp_path / "killed", views=world.views(), on_progress=kill)
    train_stages(plan, world.features, tmp_path / "killed", views=world.views())
    for place, name in enumerate(STAGE_NAMES, start=1):
        curves = [read_curve(tmp_path / run / f"{place}-{name}" / "curve.csv") for run in ("whole", "killed")]
        assert curves[0] == curves[1]
    ends = [load_mapper(tmp_path / run / "5-diversity" / "export") for run in ("whole", "killed")]
    for one, other in zip(ends[0].parameters(), ends[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_stage_starts_from_the_former_ones_weights(world: World, tmp_path: Path) -> None:
    """A second stage that barely learns ends where the first ended, not where it began."""
    still = replace(LOOP, num_steps=1, learning_rate=1e-12)
    plan = StagePlan(
        stages=(
            Stage(name="first", program=BASE, loop=replace(LOOP, learning_rate=1e-2)),
            Stage(name="second", program=replace(BASE, seed=9, sigmoid_weight=0.1), loop=still),
        )
    )
    last = train_stages(plan, world.features, tmp_path)
    first, second = load_mapper(tmp_path / "1-first" / "export"), load_mapper(last)
    torch.testing.assert_close(first.linears[0].weight, second.linears[0].weight, atol=1e-7, rtol=0)
    outside = train_stages(
        StagePlan(stages=plan.stages[1:]),
        world.features,
        tmp_path / "b",
        start=tmp_path / "1-first" / "export",
    )
    torch.testing.assert_close(load_mapper(outside).linears[0].weight, second.linears[0].weight)


def test_plans_that_cannot_be_run_are_refused(world: World, tmp_path: Path) -> None:
    stage = Stage(name="one", program=BASE, loop=LOOP)
    with pytest.raises(ConfigError, match="each once"):
        StagePlan(stages=(stage, stage))
    with pytest.raises(ConfigError, match="becomes a folder"):
        replace(stage, name="../up")
    fused = replace(stage, name="two", program=replace(BASE, learn_fusion=True))
    with pytest.raises(ConfigError, match="learn_fusion must be the same"):
        StagePlan(stages=(stage, fused))
    with pytest.raises(ConfigError, match="learn_fusion must be the same"):
        MapperProgram(world.features, BASE).continue_from(MapperProgram(world.features, fused.program).module)
    with pytest.raises(ConfigError, match="pass LiveViews"):
        train_stages(five_stages(BASE, LOOP, grids=GRIDS), world.features, tmp_path)
    assert not list(tmp_path.iterdir())  # nothing was trained before it was known
