"""Class maps as they travel between stages: lz4 of uint16, so that a hop costs little. Axes: h w pixels."""

import numpy as np
import pyarrow as pa
from jaxtyping import UInt16

from ovsops.masks.class_map import ClassMap

_STEPS = 65535


def pack_class_map(class_map: ClassMap) -> tuple[bytes, bytes]:
    """Labels, and scores in steps of 1/65535 (an error of at most 7.7e-6)."""
    steps = (class_map.scores * np.float32(_STEPS) + np.float32(0.5)).astype(np.uint16)
    labels = np.ascontiguousarray(class_map.labels)
    return _compress(labels), _compress(steps)


def pack_labels(class_map: ClassMap) -> bytes:
    """Labels alone."""
    return _compress(np.ascontiguousarray(class_map.labels))


def unpack_labels(labels: pa.Buffer, *, size_hw: tuple[int, int]) -> UInt16[np.ndarray, "h w"]:
    """Inverse of `pack_labels`."""
    return _decompress(labels, size_hw)


def unpack_class_map(labels: pa.Buffer, scores: pa.Buffer, *, size_hw: tuple[int, int]) -> ClassMap:
    """Inverse of `pack_class_map`, up to the steps of the scores."""
    steps = _decompress(scores, size_hw)
    return ClassMap(labels=_decompress(labels, size_hw), scores=steps.astype(np.float32) / np.float32(_STEPS))


def _compress(array: np.ndarray) -> bytes:
    return pa.compress(array, codec="lz4", asbytes=True)


def _decompress(data: pa.Buffer, size_hw: tuple[int, int]) -> np.ndarray:
    raw = pa.decompress(data, decompressed_size=2 * size_hw[0] * size_hw[1], codec="lz4")
    return np.frombuffer(raw, np.uint16).reshape(size_hw)
