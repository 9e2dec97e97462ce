"""SC-CLIP: which of its calibrations run, on which blocks, how strongly.

Source: repository SuleBai/SC-CLIP at 0417ba9; the values for ViT-L/14 stand in its commit 74471da only. Blocks are
counted from 1 here; the published lists count from 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ovsops.errors import ConfigError
from ovsops.patches.outliers import LofVariant
from ovsops.segmenters.query_config import (
    PUBLISHED_REFINEMENT,
    QuerySegmenterConfig,
    check_in_range,
    check_not_negative,
)


class CalibrationBlocks(NamedTuple):
    """Blocks whose tokens SC-CLIP looks at, counted from 1."""

    similar: int
    """Whose similarity guides the first aggregation and the attention; its outliers are repaired, too."""
    shallow: int
    """Whose similarity guides the second aggregation."""
    first_level: int
    last_level: int
    """The multi-level branch sums the blocks from `first_level` to this one."""


@dataclass(frozen=True, kw_only=True)
class ScClipConfig(QuerySegmenterConfig):
    """CLIP whose last block is calibrated by CLIP's own features. Each mechanism can be switched off by itself."""

    kind: Literal["scclip"] = "scclip"

    repair: bool = True
    """Outlier tokens of the last block but one become the mean of their neighbours."""
    first_aggregation: bool = True
    """Those tokens become the mean of the tokens that a middle block finds similar."""
    similarity_attention: bool = True
    """Half of the last attention follows that similarity; off: all of it follows the keys."""
    cls_residual: float | None = None
    """Share of CLS that is added to every patch; 0 is off. None: 0.1 with 24 blocks, else 0.3, as published."""
    multi_level: bool = True
    """The sum of middle blocks goes through the same attention, and is added."""
    second_aggregation: bool = True
    """The result becomes the mean over the tokens that a shallow block finds similar."""

    residual_source: Literal["cls", "mean"] = "cls"
    """`mean` takes the mean of the patches for CLS: for towers that have none (SigLIP); no published number."""
    lof: LofVariant | None = None
    """Which local outlier factor; None: `simplified_sq` in mode upstream, else `published`."""
    num_neighbours: int = 30
    """K of the outlier factor; fewer patches than that use all others."""
    contamination: float = 0.05
    """Share of a view's patches that count as outliers, at most."""
    beta: float = 0.4
    """Cosine similarity below which tokens are not averaged."""

    similar_block: int | None = None
    """None: as published for 12 and 24 blocks, else at the same share of the depth as with 12; so the next three."""
    shallow_block: int | None = None
    """See `CalibrationBlocks`."""
    first_level: int | None = None
    """See `CalibrationBlocks`."""
    last_level: int | None = None
    """See `CalibrationBlocks`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cls_residual is not None:
            check_not_negative("cls_residual", self.cls_residual)
        if self.num_neighbours < 1:
            raise ConfigError(f"segmenter.num_neighbours is {self.num_neighbours}; it must be 1 or more")
        check_in_range("contamination", self.contamination, high=0.5)
        if not 0 <= self.beta < 1:
            raise ConfigError(f"segmenter.beta is {self.beta}; it must be a cosine from 0 to below 1")

    @property
    def lof_variant(self) -> LofVariant:
        """The local outlier factor that runs."""
        return self.lof or ("simplified_sq" if self.mode == "upstream" else "published")

    def residual_of(self, *, num_layers: int) -> float:
        """Share of the CLS token, for a tower of that depth."""
        if self.cls_residual is not None:
            return self.cls_residual
        return 0.1 if num_layers == 24 else 0.3

    def blocks_of(self, *, num_layers: int) -> CalibrationBlocks:
        """The blocks for a tower of that depth. The last block takes no part as a whole, so they lie before it."""
        if num_layers < 2:
            raise ConfigError(
                f"segmenter: SC-CLIP needs a tower of 2 blocks or more, this one has {num_layers}"
            )
        published = _PUBLISHED_BLOCKS.get(num_layers) or _scaled(_PUBLISHED_BLOCKS[12], num_layers)
        chosen = (self.similar_block, self.shallow_block, self.first_level, self.last_level)
        blocks = CalibrationBlocks(
            *(one if one is not None else other for one, other in zip(chosen, published, strict=True))
        )
        names = ("similar_block", "shallow_block", "first_level", "last_level")
        for name, block in zip(names, blocks, strict=True):
            if not 1 <= block < num_layers:
                raise ConfigError(
                    f"segmenter.{name} is {block}; the tower has {num_layers} blocks, of which 1 to "
                    f"{num_layers - 1} can be looked at"
                )
        if blocks.first_level > blocks.last_level:
            raise ConfigError(
                f"segmenter.first_level {blocks.first_level} is after last_level {blocks.last_level}"
            )
        return blocks

    def check_tower(self, *, num_layers: int, num_prefix: int) -> None:
        """Refuse blocks that a tower does not have, and a residual of a token that it does not have."""
        self.blocks_of(num_layers=num_layers)
        uses_cls = self.residual_source == "cls" and self.residual_of(num_layers=num_layers) > 0
        if uses_cls and num_prefix == 0:
            raise ConfigError(
                "segmenter.residual_source is cls, and the tower has no CLS token; "
                "set cls_residual: 0, or residual_source: mean"
            )


_PUBLISHED_BLOCKS: Mapping[int, CalibrationBlocks] = MappingProxyType(
    {12: CalibrationBlocks(9, 4, 4, 10), 24: CalibrationBlocks(17, 7, 9, 19)}
)


def _scaled(blocks: CalibrationBlocks, num_layers: int) -> CalibrationBlocks:
    return CalibrationBlocks(
        *(min(max(round(block * num_layers / 12), 1), num_layers - 1) for block in blocks)
    )


_DATASET_FIELDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "voc_21": {"logit_scale": 50.0, "prob_threshold": 0.15, "area_threshold": 0.1},
        "coco_object_81": {"logit_scale": 55.0, "prob_threshold": 0.35},
        "context_60": {"prob_threshold": 0.15},
        "cityscapes_19": {"short_side": 560},
        **{name: {} for name in ("voc_20", "context_59", "coco_stuff_171", "ade20k_150")},
    }
)
_LARGE_DATASET_FIELDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"voc_21": {"prob_threshold": 0.2}, "coco_object_81": {"prob_threshold": 0.25}}
)


def scclip_settings(vocabulary: str, *, tower: Literal["base", "large"] = "base") -> dict[str, Any]:
    """Fields of `ScClipConfig` with the published values for a data set where they differ from the defaults.

    `vocabulary` is the name of the data set's vocabulary, `tower` ViT-B/16 or ViT-L/14.
    """
    if vocabulary not in _DATASET_FIELDS:
        raise ConfigError(
            f"SC-CLIP has no published values for {vocabulary!r}; for {', '.join(_DATASET_FIELDS)}"
        )
    large = _LARGE_DATASET_FIELDS.get(vocabulary, {}) if tower == "large" else {}
    return {"refinement": PUBLISHED_REFINEMENT, **_DATASET_FIELDS[vocabulary], **large}
