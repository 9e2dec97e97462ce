"""What all states of metrics share: exact adding, means over what is defined. Axes: B any batch, C ids."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, Int64

from ovsops.errors import ShapeError


def added(
    left: Int64[np.ndarray, "*S"], right: Int64[np.ndarray, "*T"], *, what: str
) -> Int64[np.ndarray, "*S"]:
    """Sum of two states. Raises `ShapeError` where they count different things."""
    if left.shape != right.shape:
        raise ShapeError(
            f"{what} of shapes {left.shape} and {right.shape} count different ids: merge like with like"
        )
    return left + right


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Float64[np.ndarray, "*B"]:
    """Quotient in float64, nan where the denominator is 0."""
    top, bottom = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def mean_of_defined(
    values: Float64[np.ndarray, "*B C"], ids: Sequence[int] | None = None
) -> Float64[np.ndarray, "*B"]:
    """Mean over the last axis (over `ids` of it) without the nan ones; nan where all are."""
    chosen = values if ids is None else values[..., list(ids)]
    is_defined = ~np.isnan(chosen)
    return ratio(np.where(is_defined, chosen, 0.0).sum(axis=-1), is_defined.sum(axis=-1))
