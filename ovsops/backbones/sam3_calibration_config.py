"""What SC-CLIP's self-calibration changes in SAM 3, switch by switch; everything is off by default.

SAM 3 has no CLS token and its neck was trained on the last block with its residual and MLP, so SC-CLIP's mechanisms
(repository SuleBai/SC-CLIP at 0417ba9) can only be blended in, not put in place of anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ovsops.errors import ConfigError
from ovsops.patches.outliers import OutlierConfig

CalibrationPreset = Literal["off", "literal", "depth_scaled", "safe"]
MaskMode = Literal["none", "shift", "gate", "cosine", "zero"]

SAM3_BLOCKS, SAM3_GLOBAL_BLOCKS = 32, (7, 15, 23, 31)
"""Depth of the published image encoder, and its blocks that attend to the whole image (the others: windows)."""


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """Blocks are counted from 0 and named by their output; the last block is never a reference."""

    repair: bool = False
    """Outlier tokens that enter the last block are drawn to the mean of their neighbours."""
    outliers: OutlierConfig = field(default_factory=OutlierConfig)
    """Which tokens (and decoder queries) count as outliers."""
    report_lof: bool = False
    """Compute the LOF of every token for the report even where another test decides."""
    repair_weight: float = 1.0
    """Share of the neighbours' mean in a repaired token, in [0, 1]."""

    pre_aggregate: bool = False
    """Tokens that enter the last block are averaged with those that resemble them in `pre_block`."""
    pre_block: int = 23
    """Reference block of `pre_aggregate`. Below the first global block, tokens at the same place of two windows look
    alike because the position table repeats with every window."""
    post_aggregate: bool = False
    """The same after the last block, by `post_block`."""
    post_block: int = 7
    """Reference block of `post_aggregate`."""
    beta: float = 0.4
    """Cosine similarity from which tokens resemble each other, in [0, 1)."""
    centred: bool = True
    """Take out the mean direction of a block before cosines; without it nearly all tokens resemble each other."""
    topk: int | None = None
    """Most tokens that one is averaged with; None: all above beta."""
    fuse: bool = False
    """The mean of blocks fuse_first to fuse_end - 1 is blended into the last block's output."""
    fuse_first: int = 10
    fuse_end: int = 27
    """Exclusive."""
    residual_weight: float = 0.3
    """Share of what aggregation, fusion and the decoder's averaging bring, in [0, 1]; 0 changes no bit."""
    restore_statistics: bool = True
    """What is blended in first gets mean and spread, channel by channel, of what it is blended with."""

    decoder: bool = False
    """Outlier queries of the decoder are averaged with queries that resemble them. The presence token is left alone."""
    decoder_layers: Literal["last", "all"] = "last"
    """`all` also moves the boxes that later layers start from."""

    mask_mode: MaskMode = "none"
    """How mask logits below `mask_beta` are lowered. shift: logit - mask_beta, all of them. gate: at most -10 where the
    logit is below. cosine: the same where the cosine of query and pixel is below. zero: set to 0, which is
    probability 0.5; only to reproduce a number made that way."""
    mask_beta: float | None = None
    """Logits (shift, gate, zero) or a cosine (cosine); needed by every mask mode but none."""

    chunk: int = 512
    """Rows of similarities at a time: bounds the memory, changes no number beyond rounding."""

    def __post_init__(self) -> None:
        for name in ("repair_weight", "residual_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"calibration.{name} is {getattr(self, name)}; it must lie in [0, 1]")
        if not 0 <= self.beta < 1:
            raise ConfigError(f"calibration.beta is {self.beta}; a cosine from 0 to below 1 is expected")
        if self.fuse_first < 0 or self.fuse_end <= self.fuse_first:
            raise ConfigError(
                f"calibration.fuse_first {self.fuse_first} and fuse_end {self.fuse_end} hold no block; "
                "fuse_end is exclusive and must be larger"
            )
        if min(self.pre_block, self.post_block) < 0 or self.chunk < 1:
            raise ConfigError("calibration.pre_block and post_block start at 0, chunk at 1")
        if self.topk is not None and self.topk < 1:
            raise ConfigError(f"calibration.topk is {self.topk}; it must be 1 or more, or None for all")
        if self.mask_mode != "none" and self.mask_beta is None:
            raise ConfigError(f"calibration.mask_mode {self.mask_mode} needs mask_beta")

    @property
    def is_off(self) -> bool:
        """Whether nothing is touched, so that no hook is needed."""
        switches = (self.repair, self.pre_aggregate, self.post_aggregate, self.fuse, self.decoder)
        return not any(switches) and not self.report_lof and self.mask_mode == "none"

    def check_depth(self, num_blocks: int) -> None:
        """Refuse blocks that an encoder of this depth does not have as references."""
        needed = {
            "pre_block": self.pre_block if self.pre_aggregate else 0,
            "post_block": self.post_block if self.post_aggregate else 0,
            "fuse_end": self.fuse_end - 1 if self.fuse else 0,
        }
        for name, block in needed.items():
            if block >= num_blocks - 1:
                raise ConfigError(
                    f"calibration.{name}: block {block} is no reference in an encoder of {num_blocks} blocks "
                    f"(0 to {num_blocks - 2}); the preset depth_scaled chooses blocks by depth"
                )


def calibration_preset(
    name: CalibrationPreset,
    *,
    num_blocks: int = SAM3_BLOCKS,
    global_blocks: Sequence[int] = SAM3_GLOBAL_BLOCKS,
) -> CalibrationConfig:
    """The numbers that go by a name, for an encoder of some depth.

    literal: the first description of the method for SAM 3, number by number (blocks 6, 2 and 2 to 7, all of them
    before or just at the first exchange between windows; the LOF of SC-CLIP's code; masks set to 0). To compare with,
    not to use. depth_scaled: SC-CLIP's places (8, 3 and 3 to 9 of 12 blocks) at the same share of the depth, references
    on global blocks, published LOF, centred similarities, masks untouched. safe: only tokens of unusual length are
    repaired, which leaves small objects alone; LOF is reported.
    """
    if name == "off":
        return CalibrationConfig()
    if name == "safe":
        return CalibrationConfig(repair=True, outliers=OutlierConfig(mode="norm"), report_lof=True)
    if name == "literal":
        return CalibrationConfig(
            repair=True,
            outliers=OutlierConfig(variant="simplified_sq"),
            pre_aggregate=True,
            pre_block=6,
            post_aggregate=True,
            post_block=2,
            centred=False,
            fuse=True,
            fuse_first=2,
            fuse_end=8,
            decoder=True,
            decoder_layers="all",
            mask_mode="zero",
            mask_beta=0.4,
        )
    return CalibrationConfig(
        repair=True,
        outliers=OutlierConfig(min_score=1.5),
        pre_aggregate=True,
        pre_block=_nearest(global_blocks, num_blocks * 9 / 12 - 1, num_blocks),
        post_aggregate=True,
        post_block=_nearest(global_blocks, num_blocks * 4 / 12 - 1, num_blocks),
        fuse=True,
        fuse_first=round(num_blocks * 4 / 12 - 1),
        fuse_end=round(num_blocks * 10 / 12),
    )


def _nearest(blocks: Sequence[int], place: float, num_blocks: int) -> int:
    usable = [block for block in blocks if block < num_blocks - 1] or list(range(num_blocks - 1))
    if not usable:
        raise ConfigError(
            f"calibration depth_scaled: an encoder of {num_blocks} block has no reference block"
        )
    return min(usable, key=lambda block: (abs(block - place), block))
