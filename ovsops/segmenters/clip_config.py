"""Plain dense CLIP: the baseline that CASS and SC-CLIP are measured against."""

from dataclasses import dataclass
from typing import Literal

from ovsops.segmenters.query_config import QuerySegmenterConfig


@dataclass(frozen=True, kw_only=True)
class DenseClipConfig(QuerySegmenterConfig):
    """CLIP's patches in text space, without any calibration. `mode` only says how positions are resized."""

    kind: Literal["clip"] = "clip"
    last_block: Literal["tokens", "values"] = "tokens"
    """`tokens`: the last block's output tokens, as CLIP gives them, which attended to everything. `values`: that
    block's projected values alone, so that every patch keeps to itself (MaskCLIP, arXiv:2112.01071)."""
