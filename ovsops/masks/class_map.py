"""A class map: which class each pixel shows, and how sure. Axes: h w pixels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt16

BACKGROUND = 0
"""Label of pixels that no class won."""


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """One image's dense labels, in EXIF-applied pixels."""

    labels: UInt16[np.ndarray, "h w"]
    """0 is background; j is the j-th class of the vocabulary, counted from 1."""
    scores: Float32[np.ndarray, "h w"]
    """Score in [0, 1] of the class that won the pixel (of the best class where background won)."""
