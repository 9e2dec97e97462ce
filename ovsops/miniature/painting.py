"""Draws one thing: where it is, and its colours. Whole numbers only. Axes: h w pixels of the thing's box, n its pixels.

Local coordinates are kept in 1/256 of a pixel. One look-up a pixel gives the signed distance to the outline, from it
the cover (0 to 256), and two more the pattern and the noun's marks.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int16, Int32, Int64

from ovsops.miniature import motifs, shapes
from ovsops.miniature.attributes import COLOUR_WORDS
from ovsops.miniature.stuff import NOISE_TILE, grain

BROWN_INK = (62, 36, 22)
CREAM_INK = (255, 244, 214)
INK_SHARE = 205
"""How much of the ink shows where it covers, of 256."""
RIM_SHARE = 150
"""How much of a thing's colour is left at its rim, of 256."""

_SHINE = np.array(
    [max(0, 180 - 5 * abs(across - 176), 120 - 10 * abs(across - 262)) for across in range(512)], np.int32
)
"""A wide and a narrow light band across a thing: how much of 256 is white."""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a thing is and how it is turned, in whole numbers."""

    x_256: int
    """Middle, in 1/256 of a pixel from the left edge."""
    y_256: int
    """Middle, in 1/256 of a pixel from the upper edge."""
    radius_256: int
    """Radius in 1/256 of a pixel."""
    angle_100: int
    """Turned clockwise, in 1/100 of a degree."""
    is_mirrored: bool
    """Left and right swapped before turning."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """The pixels of a thing, as if nothing hid it."""

    top: int
    left: int
    cover: Int32[np.ndarray, "h w"]
    """0 to 256."""
    mask: Bool[np.ndarray, "h w"]
    """More than half covered."""
    area: int
    """Pixels of the mask."""
    distance: Int32[np.ndarray, "h w"]
    """To the outline, in 1/256 of a pixel, negative inside."""
    u: Int32[np.ndarray, "h w"]
    v: Int32[np.ndarray, "h w"]
    """Local coordinates in 1/256 of a pixel."""
    cells: Int32[np.ndarray, "h w"]
    """Where each pixel looks into the tables of `shapes`."""

    @property
    def window(self) -> tuple[slice, slice]:
        """The box in the picture."""
        height, width = self.cover.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def sine_cosine(angle_100: int) -> tuple[float, float]:
    """Of an angle of up to 90 degrees in 1/100 degrees, by series: the C library's may differ in the last bit."""
    x = angle_100 * 3.141592653589793 / 18000
    square = x * x
    sine = x * (
        1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72 * (1 - square / 110))))
    )
    cosine = 1 - square / 2 * (1 - square / 12 * (1 - square / 30 * (1 - square / 56 * (1 - square / 90))))
    return sine, cosine


def place(noun: str, pose: Pose, size_hw: tuple[int, int]) -> Footprint:
    """The footprint of a noun; its box is cut to the picture."""
    height, width = size_hw
    reach = max(int(pose.radius_256 * 1.14) + 512, int(pose.radius_256 * shapes.EXTENT) + 256)
    top, bottom = max(0, (pose.y_256 - reach) >> 8), min(height, ((pose.y_256 + reach) >> 8) + 1)
    left, right = max(0, (pose.x_256 - reach) >> 8), min(width, ((pose.x_256 + reach) >> 8) + 1)
    dy = (np.arange(top, bottom, dtype=np.int64) * 256 + (128 - pose.y_256))[:, None]
    dx = (np.arange(left, right, dtype=np.int64) * 256 + (128 - pose.x_256))[None, :]
    sine, cosine = sine_cosine(pose.angle_100)
    s, c = round(sine * 8192), round(cosine * 8192)
    flip = -1 if pose.is_mirrored else 1
    u = ((dx * (c * flip) + dy * (s * flip)) >> 13).astype(np.int32)
    v = ((dy * c - dx * s) >> 13).astype(np.int32)
    step = round(shapes.CELLS / (2 * shapes.REACH) * 65536 / pose.radius_256)
    middle = shapes.CELLS // 2
    rows = ((v * step) >> 16) + middle
    columns = ((u * step) >> 16) + middle
    cells = rows * shapes.CELLS + columns
    raw = shapes.outline(noun).take(cells, mode="clip").astype(np.int32)
    distance = (raw * (pose.radius_256 >> 4)) >> 8
    cover = (128 - distance).clip(0, 256)
    mask = distance < 0
    return Footprint(
        top=top, left=left, cover=cover, mask=mask, area=int(np.count_nonzero(mask)), distance=distance, u=u, v=v,
        cells=cells,
    )  # fmt: skip


def paint(
    picture: Int16[np.ndarray, "_ _ 3"],
    footprint: Footprint,
    *,
    noun: str,
    colour: str,
    pattern: str,
    material: str,
    radius_256: int,
    scale_1024: int,
    grain_offset: int,
) -> None:
    """Draw a thing over what is there."""
    at = np.flatnonzero(footprint.cover)
    u, v = footprint.u.ravel()[at], footprint.v.ravel()[at]
    cells = footprint.cells.ravel()[at]
    tones = _tones(u, v, noun, pattern, radius_256, scale_1024)
    body = _palette(colour).take(tones, 0)

    depth = footprint.distance.ravel()[at]
    rim = (256 + (depth * 1024 // scale_1024) + 120).clip(0, 256)  # 0 deep inside, 256 at the outline
    if noun != "ring":  # a little light from above left
        light = (256 - ((u + 2 * v) * 20) // radius_256).clip(200, 300)
        body = body * light[:, None] >> 8
    for table, rgb in shapes.accents(noun):
        off = table.take(cells, mode="clip").astype(np.int32) * (radius_256 >> 4) >> 8
        share = (128 - off).clip(0, 256)[:, None]
        body += (np.array(rgb, np.int32) - body) * share >> 8
    if material == "shiny":
        shine = _SHINE.take(((u + v) * 90 // radius_256) + 256, mode="clip")[:, None]
        body += (255 - body) * shine >> 8
    elif material == "rough":
        body += (
            grain().reshape(-1, 3)[:, 0].take((at * 7 + grain_offset) % (NOISE_TILE * NOISE_TILE))[:, None]
            * 8
        )
    body = body * (256 - (256 - RIM_SHARE) * rim // 256)[:, None] >> 8

    under = picture[footprint.window]
    width = footprint.cover.shape[1]
    rows, columns = at // width, at % width
    cover = footprint.cover.ravel()[at][:, None]
    old = under[rows, columns].astype(np.int32)
    under[rows, columns] = (old + ((body - old) * cover >> 8)).astype(np.int16)


def _tones(
    u: Int32[np.ndarray, "n"],
    v: Int32[np.ndarray, "n"],
    noun: str,
    pattern: str,
    radius_256: int,
    scale_1024: int,
) -> Int32[np.ndarray, "n"]:
    """16 steps of the pattern times 16 steps of the ink: where to look into the palette."""
    step = motifs.CELLS_A_PIXEL * 256 * 1024 // scale_1024
    if noun == "ring":
        rows, columns = _ring_places(u, v, radius_256, scale_1024)
    else:
        down = np.abs(v) if noun == "leaf" else v
        rows, columns = (down * step) >> 16, (u * step) >> 16
    last = motifs.TILE - 1
    ink = motifs.motif(noun).take((rows & last) * motifs.TILE + (columns & last)).astype(np.int32) >> 4
    if pattern == "plain":
        return ink
    period_256 = max(9 * scale_1024 // 4, radius_256 * 58 // 100)
    step = motifs.PATTERN_TILE * 65536 // period_256
    last = motifs.PATTERN_TILE - 1
    half = motifs.PATTERN_TILE // 2
    rows, columns = ((v * step) >> 16) + half, ((u * step) >> 16) + half
    second = motifs.pattern(pattern).take((rows & last) * motifs.PATTERN_TILE + (columns & last))
    return (second.astype(np.int32) & 0xF0) + ink


def _ring_places(
    u: Int32[np.ndarray, "n"], v: Int32[np.ndarray, "n"], radius_256: int, scale_1024: int
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Tile places along and across a ring's band, so that its ticks follow it around."""
    size = motifs.ANGLE_CELLS
    step = round(size / 3.4 * 65536 / radius_256)
    place = (((v * step) >> 16) + size // 2).clip(0, size - 1) * size + (((u * step) >> 16) + size // 2).clip(
        0, size - 1
    )
    turn = motifs.angles().take(place).astype(np.int64)
    ticks = max(6, round(radius_256 * shapes.RING_MIDDLE * 6.283185307179586 / (8 * 256) * 1024 / scale_1024))
    along = turn * ticks * 64 >> 16
    u64, v64 = u.astype(np.float64), v.astype(np.float64)
    out = np.sqrt(u64 * u64 + v64 * v64).astype(np.int64) - radius_256 * 69 // 100
    across = out * (motifs.CELLS_A_PIXEL * 256 * 1024 // scale_1024) >> 16
    return across, along


_palettes: dict[str, Int32[np.ndarray, "256 3"]] = {}


def _palette(colour: str) -> Int32[np.ndarray, "256 3"]:
    """Colours of 16 steps of the pattern times 16 steps of the ink."""
    if colour not in _palettes:
        word = COLOUR_WORDS[colour]
        first, second = np.array(word.rgb, np.int32), np.array(word.second_rgb, np.int32)
        ink = np.array(CREAM_INK if word.is_dark else BROWN_INK, np.int32)
        steps = np.arange(256, dtype=np.int32)
        body = first + (second - first) * (steps >> 4)[:, None] // 15
        _palettes[colour] = body + (ink - body) * ((steps & 15) * INK_SHARE // 15)[:, None] // 256
    return _palettes[colour]
