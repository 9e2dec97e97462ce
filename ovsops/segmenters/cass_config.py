"""What CASS is made of: two checkpoints, every number that can change a label, and the published values by data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.errors import ConfigError
from ovsops.patches.graph_fusion import DistillationSettings
from ovsops.patches.head_matching import TIE_BREAK, Matching
from ovsops.patches.locality import STD
from ovsops.patches.low_rank import EIGENSCALE
from ovsops.segmenters.query_config import (
    PUBLISHED_REFINEMENT,
    QuerySegmenterConfig,
    check_in_range,
    check_not_negative,
    check_positive,
)

WHOLE = 2048
"""A window of this side with the default `max_long_side` is the whole resized image."""


@dataclass(frozen=True, kw_only=True)
class CassConfig(QuerySegmenterConfig):
    """CASS (arXiv:2411.17150): CLIP's last block attends by graphs that a vision foundation model (VFM) cleans up, and
    text moves towards what the image shows.

    The defaults are the published values for Context59; `cass_settings` has those of the other data sets. In mode
    `upstream` (commit 228ecdd) heads are paired the wrong way round, the rank is fixed, ties are left to rounding, VFM
    pixels were brought back with wrong constants and 8 bits, position tables are resized with an offset, pixels beyond
    the last whole patch are cut off.
    """

    kind: Literal["cass"] = "cass"
    vfm: Checkpoint
    """DINO (ViT) or DINOv2 with registers, with as many heads of the same width as `clip`."""
    prior_clip: Checkpoint | None = None
    """Another CLIP whose view of the whole picture is the prior, published: ViT-L/14; None: `clip` itself. Patches
    cannot come from it, unless a VFM has its heads."""

    text_weight: float = 0.04
    """Alpha: how far the likeliest query of a cluster moves towards its patches; 0 leaves the text alone."""
    text_patches: int = 2
    """Patches it moves towards."""
    cluster_threshold: float = 0.09
    """Height at which the Ward tree of the queries' cosine distances is cut; CLIP's cosines are meant."""
    prior_weight: float = 0.25
    """Gamma: share of the similarity of query and whole picture in the logits; 0 is off."""
    prior_from: Literal["image", "window"] = "image"
    """What the prior sees: the resized image once, or every window by itself (published for Cityscapes)."""

    num_eigenvalues: int = 20
    """Largest eigenvalues of a head's graph that are compared."""
    matching: Matching = "distant"
    """Heads that are fused: the most different (published), the most similar, or those of one number."""
    tie_break: float = TIE_BREAK
    """Weight that decides between pairings of equal cost, the same on every machine; `upstream` has none."""
    rank: int = 10
    """Eigenpairs of a VFM graph that are kept; in `corrected` the first number tried."""
    energy: float = 0.95
    """Share of the spectrum that the kept pairs hold in `corrected`; 1 keeps all. `upstream` keeps `rank` pairs."""
    rank_step: int = 5
    """By how many pairs the rank grows until they hold it."""
    eigenscale: float | None = EIGENSCALE
    """Stretching of the kept eigenvalues; None is off, as published for VOC20 and Cityscapes."""
    fusion_factor: float = 10.0
    """Times the distance of two heads this is the weight of the VFM's graph; 0 leaves the VFM out."""
    locality_std: float | None = STD
    """Standard deviation, in patches, of the Gaussian that is added before the softmax; None is off."""
    vfm_side: int | None = None
    """Short side of the views that the VFM sees, pixels (518 for DINOv2 as published); None: that of the window."""

    views_per_batch: int = 8
    """Views that go through the towers together; changes memory, not labels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("text_weight", "prior_weight"):
            check_in_range(name, getattr(self, name))
        if not 0 < self.energy <= 1:
            raise ConfigError(f"segmenter.energy is {self.energy}; it must lie in (0, 1]")
        for name in ("locality_std", "eigenscale"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        for name in ("cluster_threshold", "fusion_factor", "tie_break"):
            check_not_negative(name, getattr(self, name))
        for name in ("text_patches", "num_eigenvalues", "rank", "rank_step", "vfm_side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"segmenter.{name} is {value}; it must be 1 or more")

    @property
    def distillation(self) -> DistillationSettings:
        """The numbers of the graph fusion in this mode."""
        published = self.mode == "upstream"
        return DistillationSettings(
            num_eigenvalues=self.num_eigenvalues,
            matching=self.matching,
            tie_break=0.0 if published else self.tie_break,
            swapped=published,
            rank=self.rank,
            energy=None if published else self.energy,
            rank_step=self.rank_step,
            eigenscale=self.eigenscale,
            factor=self.fusion_factor,
        )


def cass_settings(vocabulary: str) -> dict[str, Any]:
    """Fields of `CassConfig` with the published values for a data set, by the name of its vocabulary."""
    if vocabulary not in CASS_SETTINGS:
        raise ConfigError(
            f"cass: no published values for {vocabulary!r}; there are some for {', '.join(CASS_SETTINGS)}"
        )
    return dict(CASS_SETTINGS[vocabulary])


def _published(
    gamma: float, alpha: float, threshold: float, prob_threshold: float = 0.0, **more: Any
) -> Mapping[str, Any]:
    values = {
        "prior_weight": gamma,
        "text_weight": alpha,
        "cluster_threshold": threshold,
        "prob_threshold": prob_threshold,
        "refinement": PUBLISHED_REFINEMENT,
    }
    return MappingProxyType(values | more)


CASS_SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "voc_21": _published(0.10, 0.03, 0.10, 0.1, window=WHOLE, stride=WHOLE),
        "context_60": _published(0.25, 0.04, 0.09, 0.1),
        "coco_object_81": _published(0.25, 0.01, 0.10, 0.1),
        "voc_20": _published(0.40, 0.02, 0.10, eigenscale=None),
        "context_59": _published(0.25, 0.04, 0.09),
        "coco_stuff_171": _published(0.20, 0.02, 0.02),
        "cityscapes_19": _published(0.10, 0.03, 0.14, eigenscale=None, short_side=560, prior_from="window"),
        "ade20k_150": _published(0.30, 0.05, 0.06),
    }
)
"""Published values by the vocabulary of the data set (CASS at commit 228ecdd, configs/)."""
