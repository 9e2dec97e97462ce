"""What the SAM 3 segmenter is made of, and every number that can change a label."""

from dataclasses import dataclass
from typing import Literal

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.sam3_calibration_config import CalibrationConfig, CalibrationPreset
from ovsops.errors import ConfigError
from ovsops.masks.refine import PamrConfig


@dataclass(frozen=True, kw_only=True)
class Sam3SegmenterConfig:
    """SAM 3, prompted with every prompt of every class, as a noun phrase without templates.

    Its text tower knows English; prompts in other languages run, and find little.
    """

    kind: Literal["sam3"] = "sam3"
    mode: Literal["upstream", "corrected"] = "corrected"
    """`upstream` runs as Meta's code (facebookresearch/sam3 at 99d02f2): pixels rounded to whole numbers after
    resizing, the geometry encoder's token added to every prompt, mask logits (not probabilities) resized to the image.
    `corrected` is what transformers' Sam3Model and its processor compute."""

    sam3: Checkpoint
    """The published facebook/sam3 (gated), or a folder of `Sam3Model`."""
    accept_sam_licence: bool = False
    """Whether you accepted Meta's SAM licence, under which the published weights are; without it they do not run."""

    calibration: CalibrationPreset | CalibrationConfig = "off"
    """SC-CLIP's self-calibration of the image features: a preset, or every number of it."""

    labels: Literal["semantic", "instances"] = "semantic"
    """`semantic`: the larger of the semantic head and the instances found, times the presence score, class by class.
    `instances`: every pixel takes the class of the best instance that covers it; pixels without one are background."""
    threshold: float = 0.5
    """`semantic`: pixels whose best score is below this are background; 0 labels every pixel."""
    instance_threshold: float = 0.5
    """Instances count when query score times presence is above this."""
    mask_threshold: float = 0.5
    """Pixels belong to an instance when their probability is above this."""
    nms_iou: float | None = 0.5
    """Of two masks with a larger IoU the better stays; None: all stay."""
    nms_containment: float | None = None
    """A mask goes also when a better one holds more than this share of it; None: no such test."""
    nms_scope: Literal["prompt", "class", "image"] = "class"
    """Whether masks suppress each other within a prompt, among the prompts of a class, or all in an image."""
    refinement: PamrConfig | None = None
    """PAMR: scores (or the masks of the instances that are kept) flow along pixels of like colour; None is off.

    Scores of `semantic` are refined prompt by prompt, at the size at which they are put together; with `winning_margin`
    (in scores) only those of prompts that come within it of the best somewhere.
    """
    max_instances: int = 1000
    """Instances kept an image, the best ones; bounds the memory (0.3 MB each at full size)."""

    views: Literal["slide", "squash"] = "squash"
    """`squash`: the whole image as one square, as the model was trained. `slide`: overlapping windows, for labels
    `semantic`."""
    short_side: int = 1008
    """`slide`: the image is resized to this short side (pixels) before windows are cut."""
    max_long_side: int = 2048
    """Cap of the long side at which scores are put together, pixels."""
    window: int = 1008
    """Side of a window in pixels of the resized image."""
    stride: int = 504
    """Distance between windows in pixels of the resized image."""

    views_per_batch: int = 2
    """Views that go through the image encoder together; changes memory, not labels."""
    prompts_per_batch: int = 4
    """Prompts that go through the detector together, 0.3 GB each at full size; changes memory, not labels."""

    def __post_init__(self) -> None:
        for name in ("threshold", "instance_threshold", "nms_iou", "nms_containment"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"segmenter.{name} is {value}; it must lie in [0, 1]")
        if not 0 < self.mask_threshold < 1:
            raise ConfigError(
                f"segmenter.mask_threshold is {self.mask_threshold}; it must lie between 0 and 1"
            )
        for name in (
            "max_instances",
            "short_side",
            "max_long_side",
            "window",
            "stride",
            "views_per_batch",
            "prompts_per_batch",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"segmenter.{name} is {getattr(self, name)}; it must be 1 or more")
        if self.stride > self.window:
            raise ConfigError(
                f"segmenter.stride {self.stride} is over window {self.window}: "
                "pixels between windows would get no label"
            )
        if self.labels == "instances" and self.views == "slide":
            raise ConfigError(
                "segmenter.labels instances needs views squash: "
                "an instance that windows cut in two would be found as two"
            )
