"""Five stages in one training: each goes on where the former ended, and each part can be switched off alone."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from ovsops.errors import ConfigError
from ovsops.mapper.model import load_mapper
from ovsops.training.curve import read_curve
from ovsops.training.loop import LoopConfig, Progress, train
from ovsops.training.stages import PARTS, MapperStagesConfig, MapperStagesProgram, Part
from tests.ovsops.training.mapper_world import GRIDS, World

CONFIG = MapperStagesConfig(
    stage_steps=(2, 2, 2, 2),
    batch_size=6,
    first_grids=(4,),
    grids=GRIDS,
    translation_weight=0.2,
    groups_weight=0.1,
    distilled_scenes=2,
    num_crops=1,
    crop_grid=3,
)
LOOP = LoopConfig(
    num_steps=10,
    learning_rate=1e-2,
    warmup_steps=0,
    final_share=1.0,
    weight_decay=0.0,
    log_every=2,
    save_every=2,
)


def program(world: World, config: MapperStagesConfig = CONFIG) -> MapperStagesProgram:
    return MapperStagesProgram(world.features, config, views=world.views())


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_mapper(folder).state_dict()


def test_the_five_stages_have_the_weights_of_the_design() -> None:
    stages = MapperStagesConfig(stage_steps=(1, 1, 1, 1), translation_weight=0.5).stages()
    names = ("infonce", "sigmoid", "distillation", "masked", "translation", "groups")
    assert [tuple(stage.weight(name) for name in names) for stage in stages] == [
        (1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        (0.6, 0.4, 0.0, 0.0, 0.0, 0.0),
        (0.4, 0.3, 0.2, 0.1, 0.0, 0.0),
        (0.4, 0.3, 0.2, 0.1, 0.0, 0.0),
        (0.4, 0.3, 0.2, 0.1, 0.5, 0.0),
    ]
    assert [stage.grids for stage in stages] == [(16,)] * 3 + [(16, 12, 20, 24)] * 2
    assert len(stages) == len(PARTS)
    assert [part for parts in PARTS.values() for part in parts] == list(get_args(Part))


@pytest.mark.parametrize("part", get_args(Part))
def test_an_ablation_changes_its_part_alone_and_from_its_stage_on(part: Part) -> None:
    first = next(place for place, parts in enumerate(PARTS.values()) if part in parts)
    field = "grids" if part == "grids" else f"{part}_weight"
    for place, (stage, other) in enumerate(
        zip(CONFIG.stages(), replace(CONFIG, ablate=(part,)).stages(), strict=True)
    ):
        assert (stage == other) == (place < first)
        assert replace(other, **{field: getattr(stage, field)}) == stage


def test_each_step_has_the_terms_of_its_stage(world: World) -> None:
    staged = program(world)
    told = [staged.losses(step) for step in range(0, 12, 2)]
    on = [{name for name, loss in losses.items() if loss != 0} for losses in told]
    assert on[0] == {"infonce", "total"}
    assert on[1] == on[0] | {"sigmoid"}
    assert on[2] == on[1] | {"distillation", "masked"}
    assert on[3] == on[2]
    assert on[4] == on[5] == on[3] | {"translation", "groups"}  # the last stage does not end
    assert all(list(losses) == list(told[0]) for losses in told)  # one set of columns for the curve
    alignment = told[1]
    expected = 0.6 * alignment["infonce"] + 0.4 * alignment["sigmoid"]
    torch.testing.assert_close(alignment["total"], expected)


def test_the_teacher_starts_each_stage_as_the_student(world: World) -> None:
    staged = program(world)
    student, teacher = (
        next(learned.psi.parameters()) for learned in (staged.module.student, staged.module.teacher)
    )
    for step, is_equal in enumerate([False, True, False, True, False, True]):
        with torch.no_grad():
            student.add_(0.1)
        staged.after_step(step)
        assert torch.equal(student, teacher) == is_equal


def test_a_killed_plan_ends_the_same(world: World, tmp_path: Path) -> None:
    train(whole := program(world), LOOP, tmp_path / "whole")
    whole.export(tmp_path / "whole" / "export")

    def kill(progress: Progress) -> None:
        if progress.step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(program(world), LOOP, tmp_path / "killed", on_progress=kill)
    train(resumed := program(world), LOOP, tmp_path / "killed")
    resumed.export(tmp_path / "killed" / "export")
    curves = [read_curve(tmp_path / run / "curve.csv") for run in ("whole", "killed")]
    assert curves[0] == curves[1]
    assert [row["step"] for row in curves[0]] == [2, 4, 6, 8, 10]
    one, other = (weights_of(tmp_path / run / "export") for run in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_ablation_may_leave_from_the_states_of_the_whole_plan(world: World, tmp_path: Path) -> None:
    """The former stages are the same with and without, so the branch equals the training from the start."""
    train(program(world), replace(LOOP, num_steps=2), tmp_path / "plan")
    shutil.copytree(tmp_path / "plan" / "states", tmp_path / "branch" / "states")
    without = replace(CONFIG, ablate=("sigmoid",))
    ends = {}
    for name, config in (("branch", without), ("alone", without), ("plan", CONFIG)):
        train(trained := program(world, config), replace(LOOP, num_steps=4), tmp_path / name)
        trained.export(tmp_path / name / "export")
        ends[name] = weights_of(tmp_path / name / "export")
    assert all(torch.equal(ends["branch"][name], ends["alone"][name]) for name in ends["alone"])
    assert not torch.equal(ends["plan"]["linears.0.weight"], ends["alone"]["linears.0.weight"])


def test_the_constants_are_those_of_the_whole_plan(world: World) -> None:
    assert None not in vars(program(world).constants()).values()
    without = program(world, replace(CONFIG, ablate=("sigmoid",))).constants()
    assert (without.sigmoid_temperature, without.sigmoid_bias) == (None, None)
    assert without.siglip_scale is not None


def test_plans_that_cannot_be_run_are_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="each must be 1 or more"):
        replace(CONFIG, stage_steps=(1, 0, 1, 1))
    with pytest.raises(ConfigError, match="ablate names groups, which no stage has: change groups_weight"):
        replace(CONFIG, groups_weight=0.0, ablate=("groups",))
    with pytest.raises(ConfigError, match="ablate names grids, which no stage has"):
        replace(CONFIG, grids=(4,), ablate=("grids",))
    with pytest.raises(ConfigError, match="every weight is 0"):
        replace(CONFIG, alignment_weights=(0.0, 0.0))
    with pytest.raises(ConfigError, match="pass LiveViews"):
        MapperStagesProgram(world.features, CONFIG)
    with pytest.raises(ConfigError, match="grid of 5x5"):
        program(world, replace(CONFIG, grids=(4, 5)))
