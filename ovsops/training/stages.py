"""Five stages of the mapper in one training: each goes on from the former's weights and switches one thing on.

Towers stay frozen in all of them. What a stage is worth is measured by training with its thing and without
(`MapperStagesConfig.ablate`), from the same weights and seed over the same steps.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Literal

from torch import Tensor

from ovsops.errors import ConfigError
from ovsops.losses.gather import Gather, no_gather
from ovsops.training.mapper import MapperProgram, check_inputs
from ovsops.training.mapper_config import TERMS, MapperProgramConfig
from ovsops.training.mapper_features import MapperFeatures
from ovsops.training.mapper_module import MapperConstants
from ovsops.training.mapper_views import LiveViews

Part = Literal["sigmoid", "distillation", "masked", "grids", "translation", "groups"]
"""What a stage adds: terms by name, and the further grids."""
PARTS: Mapping[str, tuple[Part, ...]] = {
    "mapping": (),
    "alignment": ("sigmoid",),
    "self_supervision": ("distillation", "masked"),
    "multi_resolution": ("grids",),
    "diversity": ("translation", "groups"),
}
"""Stages in order, and what each of them adds; the first has what all of them have."""


@dataclass(frozen=True, kw_only=True)
class MapperStagesConfig(MapperProgramConfig):
    """The weights and grids are those of the last stage; earlier stages have less.

    Defaults are the design's: InfoNCE and sigmoid 0.6 and 0.4, then 0.4 and 0.3 beside 0.2 for crops and 0.1 for
    masked patches. The two terms of diversity are definitions of this project, and off until they get a weight.
    """

    stage_steps: tuple[int, int, int, int]
    """Steps of mapping, alignment, self_supervision and multi_resolution; diversity lasts to the last step."""
    ablate: tuple[Part, ...] = ()
    """What is switched off in every stage that has it; all else stays equal."""
    alignment_weights: tuple[float, float] = (0.6, 0.4)
    """Of InfoNCE and sigmoid in the second stage. In the first, InfoNCE has weight 1."""
    first_grids: tuple[int, ...] = (16,)
    """Of the stages before multi_resolution."""
    infonce_weight: float = 0.4
    """From the third stage on."""
    sigmoid_weight: float = 0.3
    """From the third stage on."""
    distillation_weight: float = 0.2
    """From the third stage on: local crops against the teacher's whole view."""
    masked_weight: float = 0.1
    """From the third stage on: masked patches against the teacher's whole view."""
    grids: tuple[int, ...] = (16, 12, 20, 24)
    """From the fourth stage on; the first of them gives the constants in `mapper_constants.json`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.stage_steps) < 1:
            raise ConfigError(f"program.stage_steps is {self.stage_steps}; each must be 1 or more")
        for part in self.ablate:
            has_it = self.grids != self.first_grids if part == "grids" else self.weight(part) > 0
            if not has_it:
                field = "grids" if part == "grids" else f"{part}_weight"
                raise ConfigError(
                    f"program.ablate names {part}, which no stage has: change {field}, or leave it out"
                )
        self.stages()  # refuses weights that are none

    def stages(self) -> tuple[MapperProgramConfig, ...]:
        """What each stage learns from, in the order of PARTS."""
        kept = {field.name: getattr(self, field.name) for field in fields(MapperProgramConfig)}
        for part in self.ablate:
            kept |= {"grids": self.first_grids} if part == "grids" else {f"{part}_weight": 0.0}
        diversity = MapperProgramConfig(**kept)
        resolutions = replace(diversity, translation_weight=0.0, groups_weight=0.0)
        supervised = replace(resolutions, grids=self.first_grids)
        infonce, sigmoid = self.alignment_weights
        alignment = replace(
            supervised,
            infonce_weight=infonce,
            sigmoid_weight=0.0 if "sigmoid" in self.ablate else sigmoid,
            distillation_weight=0.0,
            masked_weight=0.0,
        )
        mapping = replace(alignment, infonce_weight=1.0, sigmoid_weight=0.0)
        return mapping, alignment, supervised, resolutions, diversity

    @property
    def starts(self) -> tuple[int, ...]:
        """First step of each stage."""
        return (0, *accumulate(self.stage_steps))

    @property
    def all_grids(self) -> tuple[int, ...]:
        """Every grid that a stage needs features of, ablated or not."""
        return tuple(sorted({*self.first_grids, *self.grids}))


class MapperStagesProgram(MapperProgram):
    """One program whose terms depend on the step; the optimiser goes on from stage to stage as it is.

    At the first step of each stage the teacher starts as the student.
    """

    def __init__(
        self,
        features: MapperFeatures,
        config: MapperStagesConfig,
        *,
        views: LiveViews | None = None,
        gather: Gather = no_gather,
        world_size: int = 1,
        device: str = "cpu",
    ) -> None:
        # The module is that of the whole plan, so that an ablated training has the same weights and the same states.
        super().__init__(features, config, views=views, gather=gather, world_size=world_size, device=device)
        self.starts, self.stages = config.starts, config.stages()
        for stage in self.stages:  # now, not after hours of former stages
            check_inputs(features, stage, views)
        self.config: MapperProgramConfig = self.stages[-1]
        self.terms = [name for name in TERMS if any(stage.weight(name) for stage in self.stages)]

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """Every term of the plan, 0 where its stage is not on, and the weighted `total` of this step's stage."""
        self.config = self._stage(step)
        losses = super().losses(step)
        nothing = losses["total"].new_zeros(())
        return {name: losses.get(name, nothing) for name in (*self.terms, "total")}

    def after_step(self, step: int) -> None:
        """The teacher follows; at the end of a stage it becomes what the student is."""
        self.config = self._stage(step)
        super().after_step(step)
        if step + 1 in self.starts:
            self.module.teacher.load_state_dict(self.module.student.state_dict())

    def constants(self) -> MapperConstants:
        """Those of the last stage, wherever the training was cut."""
        self.config = self.stages[-1]
        return super().constants()

    def _stage(self, step: int) -> MapperProgramConfig:
        return self.stages[bisect_right(self.starts, step) - 1]
