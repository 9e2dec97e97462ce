"""What segmenters that compare patches with one query a prompt share: a tower, windows, labels from queries."""

import math
from dataclasses import dataclass
from typing import Literal

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.errors import ConfigError
from ovsops.masks.refine import PamrConfig

PUBLISHED_REFINEMENT: PamrConfig | None = None
"""What the published figures of CASS (commit 228ecdd) and SC-CLIP (commit 0417ba9) were made with: both repositories
hold PAMR, of 10 steps and dilations 8 and 16, and their benchmark scripts leave it off."""


@dataclass(frozen=True, kw_only=True)
class QuerySegmenterConfig:
    """A tower whose patches are compared with queries, in sliding windows. Defaults are those of CASS and SC-CLIP."""

    mode: Literal["upstream", "corrected"] = "corrected"
    """`upstream` reproduces the published code with its slips; `corrected` is the maths it means.

    Photos are resized with antialiasing in both.
    """
    clip: Checkpoint
    """CLIP, or SigLIP 2: both towers of one checkpoint."""

    logit_scale: float = 40.0
    """Multiplies cosines before the softmax over queries; 40 suits CLIP's."""
    prob_threshold: float = 0.0
    """Pixels whose best class has less probability than this are background; 0 labels every pixel."""
    area_threshold: float | None = None
    """Classes that win no more than this share of an image's labelled pixels are taken out; None keeps all."""

    refinement: PamrConfig | None = None
    """PAMR: similarities flow along pixels of like colour before the softmax; None is off, as in the published figures.

    `corrected` refines the resized image once, `upstream` the image at its own size. Similarities of all queries then
    stand in memory at that size; `winning_margin` is in cosines.
    """

    views: Literal["slide", "squash"] = "slide"
    """`slide`: overlapping windows of the resized image; `squash`: the whole image as one square of `window` pixels."""
    short_side: int = 336
    """The image is resized to this short side (pixels) before windows are cut; published: 336, Cityscapes 560."""
    max_long_side: int = 2048
    """Cap of the long side after resizing; beyond it the image shrinks further and windows get thin."""
    window: int = 224
    """Side of a window in pixels of the resized image; of a thinner image its windows are as thin. Views are cut to
    whole patches (`mode: upstream`) or resized to the nearest (`corrected`)."""
    stride: int = 112
    """Distance between windows in pixels of the resized image."""

    views_per_batch: int = 16
    """Views that go through the tower together; changes memory, not labels."""
    class_chunk: int = 16
    """Planes of the image's pixels that scores may take in memory; changes no label."""

    def __post_init__(self) -> None:
        check_positive("logit_scale", self.logit_scale)
        check_in_range("prob_threshold", self.prob_threshold)
        if self.area_threshold is not None:
            check_in_range("area_threshold", self.area_threshold)
        for name in ("short_side", "max_long_side", "window", "stride", "views_per_batch", "class_chunk"):
            if getattr(self, name) < 1:
                raise ConfigError(f"segmenter.{name} is {getattr(self, name)}; it must be 1 or more")
        if self.stride > self.window:
            raise ConfigError(
                f"segmenter.stride {self.stride} is over window {self.window}: "
                "pixels between windows would get no label"
            )

    @property
    def position(self) -> Literal["upstream", "native"]:
        """How position embeddings reach another grid."""
        return "upstream" if self.mode == "upstream" else "native"


def check_in_range(name: str, value: float, *, low: float = 0.0, high: float = 1.0) -> None:
    """Refuse a field outside [low, high]."""
    if not low <= value <= high:
        raise ConfigError(f"segmenter.{name} is {value}; it must lie in [{low}, {high}]")


def check_positive(name: str, value: float) -> None:
    """Refuse a field that is not a number over 0."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"segmenter.{name} is {value}; it must be over 0")


def check_not_negative(name: str, value: float) -> None:
    """Refuse a field that is not a number of 0 or more."""
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"segmenter.{name} is {value}; it must be 0 or more")
