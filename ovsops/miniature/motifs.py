"""Marks inside the things: a small motif of each noun, repeated every 8 pixels, and the two-tone patterns.

A motif's period does not grow with the thing, so that any patch of 8 x 8 pixels well inside a thing shows what it
is. Tiles hold how much of the ink covers a place, 0 to 255, and are periodic. Axes: y x of a tile.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Float64, UInt8, UInt16

CELLS_A_PIXEL = 8
"""Tile cells in one pixel of a 128-pixel scene."""
TILE = 128
"""Rows and columns of a motif's tile: two periods of 8 pixels."""
PATTERN_TILE = 64
"""Rows and columns of a pattern's tile: one period."""
ANGLE_CELLS = 512
"""Rows and columns of the table of angles."""

_Plane = Float64[np.ndarray, "y x"]


@cache
def motif(noun: str) -> UInt8[np.ndarray, "cells"]:
    """Flat tile of a noun's ink."""
    places = (np.arange(TILE, dtype=np.float64) + 0.5) / CELLS_A_PIXEL
    x, y = places[None, :] + places[:, None] * 0, places[:, None] + places[None, :] * 0
    return _ink(_MOTIFS[noun](x, y), 1.0)


@cache
def pattern(name: str) -> UInt8[np.ndarray, "cells"]:
    """Flat tile of where a pattern has its second tone; one period is 1."""
    places = (np.arange(PATTERN_TILE, dtype=np.float64) + 0.5) / PATTERN_TILE - 0.5
    x, y = places[None, :] + places[:, None] * 0, places[:, None] + places[None, :] * 0
    if name == "striped":
        return _ink(np.abs(x) - 0.25, 12.0)
    if name == "dotted":
        return _ink(np.sqrt(x * x + y * y) - 0.32, 12.0)
    if name == "checkered":
        return _ink(np.maximum(-x, -y) * np.maximum(x, y) * 4, 12.0)
    return np.zeros(PATTERN_TILE * PATTERN_TILE, np.uint8)


@cache
def angles() -> UInt16[np.ndarray, "cells"]:
    """Flat table of the angle of a cell seen from the table's middle, in 1/65536 of a turn."""
    places = np.arange(ANGLE_CELLS, dtype=np.float64) + 0.5 - ANGLE_CELLS / 2
    u, v = places[None, :] + places[:, None] * 0, places[:, None] + places[None, :] * 0
    flat = np.minimum(np.abs(u), np.abs(v)) / np.maximum(np.abs(u), np.abs(v))
    square = flat * flat
    # arctangent on [0, 1], Abramowitz and Stegun 4.4.49: below 1e-5 radians off
    turn = flat * (
        0.9998660 + square * (-0.3302995 + square * (0.1801410 + square * (-0.0851330 + square * 0.0208351)))
    )
    turn = turn / 6.283185307179586
    turn = np.where(np.abs(v) > np.abs(u), 0.25 - turn, turn)
    turn = np.where(u < 0, 0.5 - turn, turn)
    turn = np.where(v < 0, 1.0 - turn, turn)
    return (np.rint(turn * 65536).astype(np.int64) & 65535).astype(np.uint16).ravel()


def _ink(distance: _Plane, sharpness: float) -> UInt8[np.ndarray, "cells"]:
    """Cover of a place from its distance to the ink's edge, negative inside."""
    return np.rint(np.clip(0.5 - distance * sharpness, 0.0, 1.0) * 255).astype(np.uint8).ravel()


def _repeat(x: _Plane, period: float, middle: float) -> _Plane:
    """Offset to the nearest of the middles that come every `period`."""
    shifted = x - middle
    return shifted - np.floor(shifted / period + 0.5) * period


def _staggered(
    x: _Plane, y: _Plane, *, rows: float, columns: float = 8.0
) -> tuple[tuple[_Plane, _Plane], tuple[_Plane, _Plane]]:
    """Offsets to the nearest glyph of the even and of the odd rows."""
    even = _repeat(x, columns, columns / 2), _repeat(y, 2 * rows, rows / 2)
    odd = _repeat(x, columns, 0.0), _repeat(y, 2 * rows, rows * 1.5)
    return even, odd


def _each(x: _Plane, y: _Plane, glyph: Callable[[_Plane, _Plane], _Plane], *, rows: float = 8.0) -> _Plane:
    even, odd = _staggered(x, y, rows=rows)
    return np.minimum(glyph(*even), glyph(*odd))


def _honeycomb(x: _Plane, y: _Plane) -> _Plane:
    seen = []
    for dx, dy in _staggered(x, y, rows=8.0):
        for sx in (-8.0, 0.0, 8.0):
            for sy in (-16.0, 0.0, 16.0):
                seen.append(np.sqrt((dx + sx) * (dx + sx) + (dy + sy) * (dy + sy)))
    nearest, second = np.sort(np.stack(seen), axis=0)[:2]
    return (second - nearest) / 2 - 0.75


def _planks(x: _Plane, y: _Plane) -> _Plane:
    gap = np.abs(_repeat(y, 8.0, 0.0)) - 0.7
    nail_x, nail_y = _repeat(x, 8.0, 4.0), _repeat(y, 8.0, 4.0)
    return np.minimum(gap, np.sqrt(nail_x * nail_x + nail_y * nail_y) - 1.25)


def _triangles(x: _Plane, y: _Plane) -> _Plane:
    return _each(x, y, lambda dx, dy: np.maximum(dy - 2.2, np.abs(dx) * 0.87 - dy * 0.5 - 1.5))


def _grid(x: _Plane, y: _Plane) -> _Plane:
    return np.minimum(np.abs(_repeat(x, 8.0, 0.0)), np.abs(_repeat(y, 8.0, 0.0))) - 0.85


def _pluses(x: _Plane, y: _Plane) -> _Plane:
    dx, dy = np.abs(_repeat(x, 8.0, 4.0)), np.abs(_repeat(y, 8.0, 4.0))
    return np.maximum(np.maximum(dx, dy) - 2.9, np.minimum(dx, dy) - 0.9)


def _craters(x: _Plane, y: _Plane) -> _Plane:
    return _each(x, y, lambda dx, dy: np.abs(np.sqrt(dx * dx + dy * dy) - 2.5) - 0.75)


def _hearts(x: _Plane, y: _Plane) -> _Plane:
    def glyph(dx: _Plane, dy: _Plane) -> _Plane:
        side = np.abs(dx) - 1.45
        lobes = np.sqrt(side * side + (dy + 1.0) * (dy + 1.0)) - 1.6
        return np.minimum(lobes, np.maximum(np.abs(dx) * 0.71 + dy * 0.71 - 1.9, -dy - 0.9))

    return _each(x, y, glyph)


def _chevrons(x: _Plane, y: _Plane) -> _Plane:
    dx, dy = _repeat(x, 8.0, 4.0), np.abs(_repeat(y, 8.0, 0.0))
    return np.maximum(np.abs(dx + dy - 1.4) * 0.71 - 0.85, dy - 3.1)


def _veins(x: _Plane, y: _Plane) -> _Plane:
    rib = np.abs(_repeat(y, 16.0, 0.0)) - 1.0
    return np.minimum(rib, np.abs(_repeat(x - y, 8.0, 0.0)) * 0.71 - 0.7)


def _meander(x: _Plane, y: _Plane) -> _Plane:
    dx, dy = _repeat(x, 8.0, 0.0), _repeat(y, 8.0, 4.0)
    level = np.where(np.abs(dx) < 2.0, dy + 2.0, dy - 2.0)
    riser = np.maximum(np.abs(np.abs(dx) - 2.0), np.abs(dy) - 2.0)
    return np.minimum(np.abs(level), riser) - 0.75


def _needles(x: _Plane, y: _Plane) -> _Plane:
    return _each(x, y, lambda dx, dy: np.maximum(np.abs(dx) - 0.8, np.abs(dy) - 1.6), rows=4.0)


def _scales(x: _Plane, y: _Plane) -> _Plane:
    def glyph(dy: _Plane, dx: _Plane) -> _Plane:
        return np.where(dx > 0.3, 9.0, np.abs(np.sqrt(dx * dx + dy * dy) - 4.0) - 0.75)

    return _each(y, x, glyph, rows=4.0)


_MOTIFS: dict[str, Callable[[_Plane, _Plane], _Plane]] = {
    "ball": _honeycomb,
    "box": _planks,
    "star": _triangles,
    "ring": _grid,
    "cross": _pluses,
    "moon": _craters,
    "heart": _hearts,
    "arrow": _chevrons,
    "leaf": _veins,
    "key": _meander,
    "tree": _needles,
    "fish": _scales,
}
