"""The five stages of the fused encoder: each goes on from the former's weights and switches one thing on.

Towers stay frozen in all of them. What a stage is worth is measured by running it twice, with its field and without,
from the same weights and seed over the same steps (`ablations`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ovsops.errors import ConfigError
from ovsops.losses.gather import Gather, no_gather
from ovsops.training.loop import LoopConfig, Progress, train
from ovsops.training.mapper import MapperProgram, check_inputs
from ovsops.training.mapper_config import TERMS, MapperProgramConfig
from ovsops.training.mapper_features import MapperFeatures
from ovsops.training.mapper_views import LiveViews

STAGE_NAMES = ("mapping", "alignment", "self_supervision", "multi_resolution", "diversity")
EXPORT_FOLDER = "export"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: which terms are on, and for how long."""

    name: str
    """Folder name, one a plan."""
    program: MapperProgramConfig
    loop: LoopConfig

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ConfigError(f"stage name {self.name!r}: it becomes a folder; use letters, digits and _")


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Stages in order."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"stage plan: names are {names}; there must be one or more, each once")
        shapes = {(s.program.num_hidden, s.program.activation, s.program.learn_fusion) for s in self.stages}
        if len(shapes) > 1:
            raise ConfigError(
                "stage plan: num_hidden, activation and learn_fusion must be the same in all stages, which go on from "
                f"each other's weights; they are {sorted(shapes)}"
            )

    @property
    def grids(self) -> tuple[int, ...]:
        """Every grid that a stage needs features of."""
        return tuple(sorted({side for stage in self.stages for side in stage.program.grids}))

    def ablations(self) -> dict[str, "StagePlan"]:
        """By `stage-without-field`: the plan up to that stage with one thing of it switched off.

        A thing is a term that the former stage did not have, or the further grids.
        """
        plans: dict[str, StagePlan] = {}
        for place, (before, stage) in enumerate(zip(self.stages, self.stages[1:], strict=False), start=1):
            without: dict[str, dict[str, Any]] = {
                f"{term}_weight": {f"{term}_weight": 0.0}
                for term in TERMS
                if stage.program.weight(term) and not before.program.weight(term)
            }
            if stage.program.grids != before.program.grids:
                without["grids"] = {"grids": before.program.grids}
            for field, change in without.items():
                program = replace(stage.program, **change)
                kept = (*self.stages[:place], replace(stage, program=program))
                plans[f"{stage.name}-without-{field}"] = StagePlan(stages=kept)
        return plans


def talk2dino_loop(num_steps: int) -> LoopConfig:
    """The published optimiser: Adam at a constant 1e-4, no decay, no warm-up, no clipping.

    AdamW without decay is Adam. Float32 everywhere: psi is small, and bfloat16 would blur which head is closest. The
    published run is 100 epochs of batches of 128; the last weights are kept.
    """
    return LoopConfig(
        num_steps=num_steps,
        learning_rate=1e-4,
        warmup_steps=0,
        final_share=1.0,
        weight_decay=0.0,
        betas=(0.9, 0.999),
        clip_norm=math.inf,
        precision="float32",
    )


def five_stages(
    base: MapperProgramConfig,
    loop: LoopConfig,
    *,
    grids: Sequence[int] = (12, 16, 20, 24),
    translation_weight: float = 0.0,
    groups_weight: float = 0.0,
) -> StagePlan:
    """The plan: 1 mapping, 2 alignment, 3 self-supervision, 4 multi-resolution, 5 diversity.

    `base` carries what all stages share (batch, seed, the weights of the mask terms), `loop` the length of each.
    Weights are the design's: InfoNCE and sigmoid 0.6 and 0.4, then 0.4 and 0.3 beside 0.2 for crops and 0.1 for
    masked patches. Diversity's two terms are definitions of this project, and off until they are given a weight.
    """
    mapping = replace(base, infonce_weight=1.0)
    alignment = replace(base, infonce_weight=0.6, sigmoid_weight=0.4)
    supervised = replace(
        base, infonce_weight=0.4, sigmoid_weight=0.3, distillation_weight=0.2, masked_weight=0.1
    )
    resolutions = replace(supervised, grids=tuple(grids))
    diversity = replace(resolutions, translation_weight=translation_weight, groups_weight=groups_weight)
    programs = (mapping, alignment, supervised, resolutions, diversity)
    return StagePlan(
        stages=tuple(
            Stage(name=name, program=program, loop=loop)
            for name, program in zip(STAGE_NAMES, programs, strict=True)
        )
    )


def train_stages(
    plan: StagePlan,
    features: MapperFeatures,
    folder: Path,
    *,
    views: LiveViews | None = None,
    start: Path | None = None,
    gather: Gather = no_gather,
    world_size: int = 1,
    device: str = "cpu",
    average_gradients: Callable[[nn.Module], None] | None = None,
    is_main: bool = True,
    on_progress: Callable[[str, Progress], None] | None = None,
) -> Path:
    """Train the stages in order, each in `folder/<place>-<name>`; the folder of the last export.

    Started again after a kill it goes on where it stood: a finished stage is not trained again.
    """
    for stage in plan.stages:
        check_inputs(features, stage.program, views)  # now, not after hours of former stages
    former: MapperProgram | None = None
    for place, stage in enumerate(plan.stages, start=1):
        where = folder / f"{place}-{stage.name}"
        program = MapperProgram(
            features,
            stage.program,
            views=views,
            start=start if former is None else None,
            gather=gather,
            world_size=world_size,
            device=device,
        )
        if former is not None:  # in memory: other workers need not wait for the main one's files
            program.continue_from(former.module)

        def tell(progress: Progress, name: str = stage.name) -> None:
            if on_progress is not None:
                on_progress(name, progress)

        train(
            program,
            stage.loop,
            where,
            average_gradients=average_gradients,
            is_main=is_main,
            on_progress=tell,
        )
        if is_main:
            program.export(where / EXPORT_FOLDER)
        former = program
    return where / EXPORT_FOLDER
