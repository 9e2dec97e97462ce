"""What the mapper learns from: one weight a term, so that an ablation changes one field."""

from dataclasses import dataclass
from typing import Literal

from ovsops.errors import ConfigError
from ovsops.losses.class_distillation import TEMPERATURE
from ovsops.losses.ema import TEACHER_MOMENTUM
from ovsops.losses.infonce import LOGIT_SCALE, Reduction
from ovsops.losses.masked import MASKED_SHARE
from ovsops.mapper.model import Activation
from ovsops.miniature.attributes import LANGUAGES, Language
from ovsops.training.fields import (
    require_at_least,
    require_positive,
    require_range,
    require_seed,
    require_share,
    require_weights,
)

TERMS = ("infonce", "sigmoid", "regions", "patches", "distillation", "masked", "translation", "groups")
"""Terms by name; the weight of term `x` is the field `x_weight`."""


@dataclass(frozen=True, kw_only=True)
class MapperProgramConfig:
    """The defaults are Talk2DINO's terms: InfoNCE at a fixed scale, everything else off."""

    batch_size: int = 128
    """Scenes per worker and step, each with one caption."""
    seed: int = 0
    num_hidden: int = 1
    """Hidden linears of psi."""
    activation: Activation = "tanh"
    learn_fusion: bool = False
    """Whether patches are x + W_f y, y SigLIP's patch in text space; W_f starts at zero, where this is Talk2DINO."""

    languages: tuple[Language, ...] = LANGUAGES
    """Of captions, class names and phrases; one is drawn for each."""
    long_share: float = 0.5
    """Share of scenes whose long caption is shown; the short one else."""
    grids: tuple[int, ...] = (16,)
    """Patches on a side; one is drawn for each batch. All of them must be in the features."""

    infonce_weight: float = 1.0
    """Of symmetric InfoNCE between captions and the heads they choose."""
    logit_scale: float = LOGIT_SCALE
    """Of InfoNCE; fixed, as published."""
    reduction: Reduction = "mean"
    """`upstream` divides InfoNCE by the square of the batch, as the published code does."""
    sigmoid_weight: float = 0.0
    """Of SigLIP's sigmoid loss on the same similarities, with a scale and a bias of its own, learned. It is the sum
    over columns and the mean over rows: per row, like InfoNCE."""
    regions_weight: float = 0.0
    """Of regions against phrases (needs the world's masks; not in Talk2DINO)."""
    patches_weight: float = 0.0
    """Of patches against class names (needs the world's masks; not in Talk2DINO)."""
    stuff_share: float = 0.3
    """Weight of a stuff patch or region beside a thing's."""
    distillation_weight: float = 0.0
    """Of local crops against the teacher's whole view."""
    masked_weight: float = 0.0
    """Of masked patches against the teacher's whole view."""
    translation_weight: float = 0.0
    """Of captions against their translations."""
    groups_weight: float = 0.0
    """Of the variance of the groups' mean InfoNCE."""
    groups: Literal["language", "noun"] = "language"
    """What a pair is grouped by: the caption's language, or the scene's first noun."""

    distilled_scenes: int = 32
    """Scenes of each worker's batch that are distilled (crops and masks); their classes are all captions."""
    num_crops: int = 8
    """Local crops of a distilled scene (SigLIP 2, arXiv:2502.14786, section 2.2)."""
    crop_scale: tuple[float, float] = (0.05, 0.4)
    """Area of a local crop, as a share of the picture."""
    crop_grid: int = 8
    """Patches on a side of a local crop."""
    masked_share: float = MASKED_SHARE
    """Share of patches that are masked."""
    distillation_temperature: float = TEMPERATURE
    """Of the softmax over classes, teacher and student."""
    teacher_momentum: float = TEACHER_MOMENTUM
    """Of the teacher, constant."""

    def __post_init__(self) -> None:
        require_weights(self, "program", *(f"{name}_weight" for name in TERMS))
        require_at_least(self, "program", 1, "batch_size", "distilled_scenes", "num_crops", "crop_grid")
        require_at_least(self, "program", 0, "num_hidden")
        require_share(self, "program", "long_share", "masked_share", "stuff_share", "teacher_momentum")
        require_range(self, "program", "crop_scale")
        require_positive(self, "program", "logit_scale", "distillation_temperature")
        require_seed(self, "program")
        if not self.grids or min(self.grids) < 1:
            raise ConfigError(f"program.grids is {self.grids}; give one or more numbers of patches on a side")
        if not self.languages or not set(self.languages) <= set(LANGUAGES):
            raise ConfigError(f"program.languages is {self.languages}; it takes one or more of {LANGUAGES}")

    def weight(self, term: str) -> float:
        """The weight of a term."""
        return float(getattr(self, f"{term}_weight"))

    @property
    def is_distilled(self) -> bool:
        """Whether there is a teacher to follow."""
        return self.distillation_weight > 0 or self.masked_weight > 0
