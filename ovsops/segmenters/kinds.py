"""Every kind of segmenter, by its config: which checkpoints it has, how its text is computed, how it is loaded.

A job knows a segmenter by its config alone; what a kind computes from a vocabulary travels as bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ovsops.backbones.checkpoint import ResolvedCheckpoint, checkpoints_of, resolve
from ovsops.backbones.sam3_licence import check_sam_licence
from ovsops.segmenters.build import build_segmenter, compute_text_features, mapper_file
from ovsops.segmenters.cass import build_cass, compute_cass_text
from ovsops.segmenters.cass_config import CassConfig
from ovsops.segmenters.clip_config import DenseClipConfig
from ovsops.segmenters.config import SegmenterConfig
from ovsops.segmenters.dense_clip import build_clip, compute_clip_text
from ovsops.segmenters.fitting import (
    check_cass_models,
    check_fused_models,
    check_query_models,
    check_sam3_models,
    check_scclip_models,
)
from ovsops.segmenters.queries import QueryTextFeatures
from ovsops.segmenters.sam3 import build_sam3, compute_sam3_text
from ovsops.segmenters.sam3_config import Sam3SegmenterConfig
from ovsops.segmenters.sam3_prompts import Sam3TextFeatures
from ovsops.segmenters.scclip import build_scclip, compute_scclip_text
from ovsops.segmenters.scclip_config import ScClipConfig
from ovsops.segmenters.segmenter import Segmenter
from ovsops.segmenters.text_features import ClassTextFeatures
from ovsops.text.vocabulary import Vocabulary

AnySegmenterConfig = SegmenterConfig | DenseClipConfig | CassConfig | ScClipConfig | Sam3SegmenterConfig
"""The config of any kind; `kind` says which."""


@runtime_checkable
class TextFeatures(Protocol):
    """What a segmenter computes from a vocabulary once, before any image."""

    @property
    def identity(self) -> str:
        """What it was computed from: checkpoints and prompts."""

    def to_bytes(self) -> bytes:
        """The features as bytes that `load_segmenter` takes; the same features give the same bytes."""


def compute_text(
    config: AnySegmenterConfig,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    cache_dir: Path | None = None,
) -> TextFeatures:
    """The vocabulary's features in the text spaces of the config's checkpoints, cached on disk."""
    options: dict[str, Any] = {"device": device, "dtype": dtype, "cache_dir": cache_dir}
    match config:
        case SegmenterConfig():
            return compute_text_features(config, vocabulary, languages, **options)
        case DenseClipConfig():
            return compute_clip_text(config, vocabulary, languages, **options)
        case CassConfig():
            return compute_cass_text(config, vocabulary, languages, **options)
        case ScClipConfig():
            return compute_scclip_text(config, vocabulary, languages, **options)
        case Sam3SegmenterConfig():
            return compute_sam3_text(config, vocabulary, languages, **options)


def load_segmenter(
    config: AnySegmenterConfig,
    vocabulary: Vocabulary,
    text: bytes,
    *,
    device: str = "cpu",
    dtype: str = "auto",
) -> Segmenter:
    """Load the weights; `text` is what `compute_text` gave for the same config and vocabulary, as bytes.

    `auto` is bfloat16 on CUDA and float32 elsewhere.
    """
    options = {"device": device, "dtype": dtype}
    match config:
        case SegmenterConfig():
            return build_segmenter(config, vocabulary, ClassTextFeatures.from_bytes(text), **options)
        case DenseClipConfig():
            return build_clip(config, vocabulary, QueryTextFeatures.from_bytes(text), **options)
        case CassConfig():
            return build_cass(config, vocabulary, QueryTextFeatures.from_bytes(text), **options)
        case ScClipConfig():
            return build_scclip(config, vocabulary, QueryTextFeatures.from_bytes(text), **options)
        case Sam3SegmenterConfig():
            return build_sam3(config, vocabulary, Sam3TextFeatures.from_bytes(text), **options)


def check_licences(config: AnySegmenterConfig) -> None:
    """Raise `CheckpointError` where a checkpoint's licence must be accepted first and is not."""
    if isinstance(config, Sam3SegmenterConfig):
        check_sam_licence(config.sam3, accepted=config.accept_sam_licence)


def check_models(config: AnySegmenterConfig) -> None:
    """Raise `CheckpointError` where models do not fit the config or each other. Reads their config.json, no weights."""
    match config:
        case SegmenterConfig():
            check_fused_models(config)
        case DenseClipConfig():
            check_query_models(config)
        case CassConfig():
            check_cass_models(config)
        case ScClipConfig():
            check_scclip_models(config)
        case Sam3SegmenterConfig():
            check_sam3_models(config)


def planes_in_memory(config: AnySegmenterConfig) -> int:
    """Planes of an image's pixels that scores take at once."""
    return config.prompts_per_batch if isinstance(config, Sam3SegmenterConfig) else config.class_chunk


def resolved_checkpoints(config: AnySegmenterConfig) -> dict[str, ResolvedCheckpoint]:
    """Every checkpoint that takes part, found on disk, by the field that names it.

    A mapper is the file in its folder, so that its identity is that of the file alone.
    """
    return {
        role: resolve(mapper_file(checkpoint) if role == "mapper" else checkpoint)
        for role, checkpoint in checkpoints_of(config).items()
    }


def checkpoint_identities(config: AnySegmenterConfig) -> dict[str, str]:
    """Identity of every checkpoint by role: what a manifest records. Reads every weight file once."""
    return {role: found.identity for role, found in resolved_checkpoints(config).items()}
