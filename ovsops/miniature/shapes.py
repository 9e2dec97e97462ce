"""Outlines of the nouns as tables of signed distance. Axes: v u rows and columns of a table.

Local coordinates: u to the right, v down, 1 is the thing's radius. A table holds the distance to the outline in
1/4096 of the radius, negative inside, so that one look-up a pixel gives the mask and a smooth edge. Tables are
made once from + - * / and square roots, which IEEE 754 fixes to the bit.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from jaxtyping import Float64, Int16

REACH = 1.7
"""A table covers -REACH to REACH in both directions."""
CELLS = 768
"""Rows and columns of a table."""
UNIT = 4096
"""Steps of a table's distance in one radius."""
EXTENT = 1.15
"""No outline goes further from the middle than this, in radii."""

_COARSE = 256
_Field = Float64[np.ndarray, "v u"]


@cache
def outline(noun: str) -> Int16[np.ndarray, "cells"]:
    """Flat table of a noun's signed distance."""
    return _table(_OUTLINES[noun])


@cache
def accents(noun: str) -> tuple[tuple[Int16[np.ndarray, "cells"], tuple[int, int, int]], ...]:
    """Parts that have a colour of their own, whatever the body's: flat table and colour, in the order drawn."""
    return tuple((_table(field), rgb) for field, rgb in _ACCENTS.get(noun, ()))


def _table(field: Callable[[_Field, _Field], _Field]) -> Int16[np.ndarray, "cells"]:
    """The field on a coarse grid, refined between its points: distance is nearly linear there."""
    places = (np.arange(_COARSE + 1, dtype=np.float64) * 2 / _COARSE - 1) * REACH
    coarse = field(places[None, :] + places[:, None] * 0, places[:, None] + places[None, :] * 0)
    at = (np.arange(CELLS, dtype=np.float64) + 0.5) * _COARSE / CELLS
    low = at.astype(np.int64)
    part = at - low
    rows = coarse[low] * (1 - part)[:, None] + coarse[low + 1] * part[:, None]
    fine = rows[:, low] * (1 - part)[None, :] + rows[:, low + 1] * part[None, :]
    return np.clip(np.rint(fine * UNIT), -32000, 32000).astype(np.int16).ravel()


def _circle(u: _Field, v: _Field, x: float, y: float, radius: float) -> _Field:
    return np.sqrt((u - x) * (u - x) + (v - y) * (v - y)) - radius


def _polygon(u: _Field, v: _Field, points: Sequence[tuple[float, float]]) -> _Field:
    squared = np.full(u.shape, 1e9)
    is_inside = np.zeros(u.shape, np.bool_)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        ex, ey = u - x0 - along * dx, v - y0 - along * dy
        squared = np.minimum(squared, ex * ex + ey * ey)
        if y0 != y1:
            is_inside ^= ((y0 <= v) != (y1 <= v)) & (u < x0 + (v - y0) * dx / dy)
    return np.where(is_inside, -1.0, 1.0) * np.sqrt(squared)


def _rectangle(u: _Field, v: _Field, x0: float, y0: float, x1: float, y1: float) -> _Field:
    return _polygon(u, v, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _union(*fields: _Field) -> _Field:
    joined = fields[0]
    for field in fields[1:]:
        joined = np.minimum(joined, field)
    return joined


def _ball(u: _Field, v: _Field) -> _Field:
    return _circle(u, v, 0.0, 0.0, 0.96)


def _box(u: _Field, v: _Field) -> _Field:
    return _rectangle(u, v, -0.8, -0.74, 0.8, 0.74) - 0.06


_SPOKES = (
    (0.0, -1.0), (0.587785, -0.809017), (0.951057, -0.309017), (0.951057, 0.309017), (0.587785, 0.809017),
    (0.0, 1.0), (-0.587785, 0.809017), (-0.951057, 0.309017), (-0.951057, -0.309017), (-0.587785, -0.809017),
)  # fmt: skip
"""Unit vectors every 36 degrees, from the top."""


def _star(u: _Field, v: _Field) -> _Field:
    points = [(x * r, y * r) for i, (x, y) in enumerate(_SPOKES) for r in [1.08 if i % 2 == 0 else 0.5]]
    return _polygon(u, v, points)


RING_MIDDLE = 0.69
"""Radius of the line in the middle of a ring's band."""


def _ring(u: _Field, v: _Field) -> _Field:
    return np.abs(_circle(u, v, 0.0, 0.0, RING_MIDDLE)) - 0.29


def _cross(u: _Field, v: _Field) -> _Field:
    return _union(_rectangle(u, v, -1.0, -0.34, 1.0, 0.34), _rectangle(u, v, -0.34, -1.0, 0.34, 1.0))


def _moon(u: _Field, v: _Field) -> _Field:
    return np.maximum(_circle(u, v, 0.0, 0.0, 1.0), -_circle(u, v, 0.56, -0.14, 0.76))


def _heart(u: _Field, v: _Field) -> _Field:
    point = [(-0.826, 0.009), (0.0, 0.95), (0.826, 0.009), (0.45, -0.3), (0.0, -0.45), (-0.45, -0.3)]
    return _union(_circle(u, v, -0.45, -0.32, 0.5), _circle(u, v, 0.45, -0.32, 0.5), _polygon(u, v, point))


def _arrow(u: _Field, v: _Field) -> _Field:
    points = [
        (-1.0, -0.33),
        (0.02, -0.33),
        (0.02, -0.86),
        (1.08, 0.0),
        (0.02, 0.86),
        (0.02, 0.33),
        (-1.0, 0.33),
    ]
    return _polygon(u, v, points)


def _leaf(u: _Field, v: _Field) -> _Field:
    blade = np.maximum(_circle(u, v, 0.1, 0.52, 1.1), _circle(u, v, 0.1, -0.52, 1.1))
    return _union(blade, _rectangle(u, v, -1.1, -0.06, -0.7, 0.06))


def _key(u: _Field, v: _Field) -> _Field:
    bow = np.maximum(_circle(u, v, -0.58, 0.0, 0.5), -_circle(u, v, -0.66, 0.0, 0.17))
    bits = [_rectangle(u, v, 0.42, 0.0, 0.64, 0.56), _rectangle(u, v, 0.8, 0.0, 1.02, 0.48)]
    return _union(bow, _rectangle(u, v, -0.2, -0.2, 1.02, 0.2), *bits)


def _crown(u: _Field, v: _Field) -> _Field:
    return _union(
        _circle(u, v, 0.0, -0.55, 0.5),
        _circle(u, v, -0.46, -0.1, 0.46),
        _circle(u, v, 0.46, -0.1, 0.46),
        _circle(u, v, 0.0, -0.05, 0.48),
    )


def _trunk(u: _Field, v: _Field) -> _Field:
    return _polygon(u, v, [(-0.14, 0.2), (0.14, 0.2), (0.24, 1.06), (-0.24, 1.06)])


def _tree(u: _Field, v: _Field) -> _Field:
    return _union(_crown(u, v), _trunk(u, v))


def _fish(u: _Field, v: _Field) -> _Field:
    body = np.maximum(_circle(u, v, 0.22, 0.4, 0.98), _circle(u, v, 0.22, -0.4, 0.98))
    tail = _polygon(u, v, [(-0.36, 0.0), (-1.02, -0.5), (-0.84, 0.0), (-1.02, 0.5)])
    fin = _polygon(u, v, [(0.42, -0.4), (-0.2, -0.86), (-0.16, -0.4)])
    return _union(body, tail, fin)


_OUTLINES: dict[str, Callable[[_Field, _Field], _Field]] = {
    "ball": _ball,
    "box": _box,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "moon": _moon,
    "heart": _heart,
    "arrow": _arrow,
    "leaf": _leaf,
    "key": _key,
    "tree": _tree,
    "fish": _fish,
}

_ACCENTS: dict[str, tuple[tuple[Callable[[_Field, _Field], _Field], tuple[int, int, int]], ...]] = {
    "tree": ((lambda u, v: np.maximum(_trunk(u, v), -_crown(u, v)), (112, 70, 38)),),
    "fish": (
        (lambda u, v: _circle(u, v, 0.72, -0.12, 0.16), (250, 250, 246)),
        (lambda u, v: _circle(u, v, 0.75, -0.12, 0.08), (20, 18, 20)),
    ),
}
