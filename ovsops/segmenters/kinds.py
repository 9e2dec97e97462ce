"""Every kind of segmenter, by its config: which checkpoints it has, how its text is computed, how it is loaded.

A job knows a segmenter by its config alone; what a kind computes from a vocabulary travels as bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from ovsops.backbones.checkpoint import ResolvedCheckpoint, checkpoints_of, resolve
from ovsops.segmenters.build import build_segmenter, compute_text_features, mapper_file
from ovsops.segmenters.config import SegmenterConfig
from ovsops.segmenters.segmenter import Segmenter
from ovsops.segmenters.text_features import ClassTextFeatures
from ovsops.text.vocabulary import Vocabulary

AnySegmenterConfig = SegmenterConfig
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
    return compute_text_features(
        config, vocabulary, languages, device=device, dtype=dtype, cache_dir=cache_dir
    )


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
    return build_segmenter(config, vocabulary, ClassTextFeatures.from_bytes(text), device=device, dtype=dtype)


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
