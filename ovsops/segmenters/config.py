"""What a segmenter is made of: checkpoints and every number that can change a label."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.errors import ConfigError
from ovsops.masks.refine import PamrConfig

UPSTREAM_LAMBDA = 5 / 6
"""Weight of the scores in background cleaning; the published code writes it as 1 / (1 + 0.2)."""


@dataclass(frozen=True, kw_only=True)
class CleaningConfig:
    """Background cleaning: scores are blended with the attention that the text picks among DINO's heads."""

    weight: float = UPSTREAM_LAMBDA
    """Share of the scores in the blend, in [0, 1]; the rest is the class's attention map."""
    tau_head: float = 1.0
    """Temperature of the softmax over heads; 1 as published is nearly uniform, lower is choosier."""

    def __post_init__(self) -> None:
        _in_range("cleaning.weight", self.weight)
        _positive("cleaning.tau_head", self.tau_head)


@dataclass(frozen=True, kw_only=True)
class ProxyAttentionConfig:
    """SigLIP values are mixed by the affinity of DINO patches (ProxyCLIP, ECCV 2024), not kept apart."""

    beta: float = 1.2
    """Patches below `beta` times the image's mean affinity do not mix."""
    gamma: float = 3.0
    """Sharpness of the mixing softmax."""

    def __post_init__(self) -> None:
        _positive("proxy_attention.gamma", self.gamma)


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig:
    """The fused segmenter:

    SigLIP 2 and DINOv2 similarities, each in its own text space, on one patch grid.
    """

    kind: Literal["fused"] = "fused"
    mode: Literal["upstream", "corrected"] = "corrected"
    """`upstream` reproduces the published code with its slips, from views on; `corrected` is the maths it means, and
    resizes logits where the published code resizes their sigmoid: a calibration then moves scores, never labels.

    Photos are resized with antialiasing in both, where the published loader (OpenCV, bilinear) had none.
    """

    dino: Checkpoint
    """DINOv2 with registers."""
    mapper: Checkpoint
    """Text-to-DINO projection (.safetensors file, or a folder with mapper.safetensors)."""
    siglip: Checkpoint | None = None
    """SigLIP 2, fixed resolution or NaFlex; needed when alpha < 1, or when no `clip` feeds the mapper."""
    clip: Checkpoint | None = None
    """CLIP whose text feeds the mapper (Talk2DINO as published); None: SigLIP 2's text does."""

    alpha: float = 0.5
    """Share of the DINO similarity; 1 leaves SigLIP's vision tower out (Talk2DINO)."""
    siglip_scale: float = 1.0
    """Kappa of the calibration kappa * similarity + shift that brings SigLIP to DINO's spread."""
    siglip_shift: float = 0.0
    """Shift of the same calibration."""
    prior_weight: float = 0.0
    """Omega: share of the class prior, one number per class and image; 0 as published."""
    prior_center: float = 0.0
    """Calibration constant that is taken off the class prior."""
    temperature: float = 1.0
    """Divides the similarity before the sigmoid; 1 as published."""
    bias: float = 0.0
    """Added after that division: sigmoid(S / temperature + bias); 0 as published. Fitted together with the
    temperature, it makes a score the chance that a label is right (Platt scaling)."""
    negative_weight: float = 1.0
    """Share of its lead that a winning negative prompt takes off its class's similarity; 0 ignores negatives."""
    threshold: float = 0.55
    """Pixels whose best score is below this are background; 0 labels every pixel."""
    cleaning: CleaningConfig | None = None
    """Background cleaning; None is off."""
    proxy_attention: ProxyAttentionConfig | None = None
    """None keeps every SigLIP patch to itself (the exact one-patch form of its pooling head)."""
    refinement: PamrConfig | None = None
    """PAMR: scores flow along pixels of like colour; None is off.

    Costs more than the encoders from a few classes on.
    """
    normalize_prompts: bool = False
    """Average unit prompt vectors (CLIP's custom) instead of raw ones (as published)."""

    grid: int = 32
    """Patches on a side of a view; DINO sees patch * grid pixels, SigLIP its own patch * grid."""
    views: Literal["slide", "squash"] = "slide"
    """`slide`: overlapping square windows of the resized image; `squash`: the whole image as one square."""
    short_side: int = 448
    """The image is resized to this short side (pixels) before windows are cut."""
    max_long_side: int = 2048
    """Cap of the long side after resizing; beyond it the image shrinks further and windows get thin."""
    window: int = 448
    """Side of a window in pixels of the resized image."""
    stride: int = 224
    """Distance between windows in pixels of the resized image."""

    views_per_batch: int = 16
    """Views that go through an encoder together; changes memory, not labels."""
    class_chunk: int = 16
    """Classes that are upsampled together; changes memory, not labels."""

    def __post_init__(self) -> None:
        for name in ("alpha", "prior_weight", "threshold"):
            _in_range(name, getattr(self, name))
        _positive("temperature", self.temperature)
        _positive("siglip_scale", self.siglip_scale)
        for name in ("siglip_shift", "prior_center", "bias"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"segmenter.{name} is {getattr(self, name)}; it must be finite")
        if not (math.isfinite(self.negative_weight) and self.negative_weight >= 0):
            raise ConfigError(f"segmenter.negative_weight is {self.negative_weight}; it must be 0 or more")
        for name in (
            "grid",
            "short_side",
            "max_long_side",
            "window",
            "stride",
            "views_per_batch",
            "class_chunk",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"segmenter.{name} is {getattr(self, name)}; it must be 1 or more")
        if self.stride > self.window:
            raise ConfigError(
                f"segmenter.stride {self.stride} is over window {self.window}: "
                "pixels between windows would get no label"
            )
        if self.alpha < 1 and self.siglip is None:
            raise ConfigError(f"segmenter.alpha is {self.alpha}: below 1 a `siglip` checkpoint is needed")
        if self.siglip is None and self.clip is None:
            raise ConfigError("segmenter: no text tower; give `siglip`, or `clip` for Talk2DINO as published")

    @property
    def uses_siglip_vision(self) -> bool:
        """Whether SigLIP's patches take part."""
        return self.alpha < 1


def fused_config_from_folder(folder: Path | str, **fields: Any) -> SegmenterConfig:
    """A config for a folder with `siglip2/`, `dinov2/` and `mapper/` in it; `fields` override the rest."""
    root = Path(folder)
    places = {
        "siglip": Checkpoint(source=str(root / "siglip2")),
        "dino": Checkpoint(source=str(root / "dinov2")),
        "mapper": Checkpoint(source=str(root / "mapper")),
    }
    return SegmenterConfig(**(places | fields))


def _in_range(name: str, value: float, *, low: float = 0.0, high: float = 1.0) -> None:
    if not low <= value <= high:
        raise ConfigError(f"segmenter.{name} is {value}; it must lie in [{low}, {high}]")


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"segmenter.{name} is {value}; it must be over 0")
