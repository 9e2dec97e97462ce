"""Pairs of unit vectors with a high cosine, compared block by block. Axes: n vectors, D channels."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Int64

from ovsops.errors import ShapeError

_NORM_TOLERANCE = 1e-3


def near_vector_pairs(
    vectors: Float32[np.ndarray, "n D"], *, min_cosine: float, block: int = 2048
) -> Iterator[Int64[np.ndarray, "p 2"]]:
    """Pairs i < j with a cosine of at least `min_cosine`, in blocks of `block` by `block` vectors.

    Work grows with the square of n, memory with the square of `block`. `vectors` may be a memory map.
    ShapeError for vectors that are not of length 1: a zero vector or a NaN is near nothing and would hide a duplicate.
    """
    if not 0 < min_cosine <= 1:
        raise ShapeError(f"min_cosine is {min_cosine}: give more than 0 and at most 1")
    for start in range(0, len(vectors), block):
        rows = np.asarray(vectors[start : start + block])
        is_off = ~(np.abs(np.linalg.norm(rows, axis=1) - 1) <= _NORM_TOLERANCE)
        if is_off.any():
            raise ShapeError(
                f"vector {start + int(is_off.argmax())} is not of length 1: normalise embeddings first"
            )
        for other in range(start, len(vectors), block):
            cosines = rows @ np.asarray(vectors[other : other + block]).T
            i, j = np.nonzero(cosines >= min_cosine)
            pairs = np.stack([i + start, j + other], axis=1)
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            if len(pairs):
                yield pairs
