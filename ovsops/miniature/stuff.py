"""Backgrounds: periodic textures drawn once, shown at a scene's own offset and tint. Axes: h w pixels, y x tile."""

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Bool, Float64, Int16, Int64

from ovsops.miniature.hashing import Draws, hashed

TILE = 256
"""Rows and columns of a texture, in pixels of a 128-pixel scene."""
NOISE_TILE = 512
"""Rows and columns of the grain that lies over every picture."""

_Plane = Float64[np.ndarray, "y x"]

_STREAMS = {
    name: 1000 + 16 * i
    for i, name in enumerate(("grass", "sand", "water", "brick", "sky", "wood", "snow", "stone"))
}


def paint_stuff(
    name: str, size_hw: tuple[int, int], scale_1024: int, draws: Draws
) -> Int16[np.ndarray, "h w 3"]:
    """A texture over the whole picture. `scale_1024`: 1024 times the pixels that one texture pixel takes."""
    height, width = size_hw
    tile = texture(name)
    top, left = draws.below(TILE), draws.below(TILE)
    tint = [draws.between(-11, 11) for _ in range(3)]
    light = draws.between(-8, 8)
    rows = (np.arange(height) * 1024 // scale_1024 + top) % TILE
    columns = (np.arange(width) * 1024 // scale_1024 + left) % TILE
    if draws.happens(50):
        columns = columns[::-1]
    picture = tile.take(rows, 0).take(columns, 1)
    picture += np.array([t + light for t in tint], np.int16)
    if name == "sky":  # paler towards the horizon
        fall = (np.arange(height) * 44 // height).astype(np.int16)
        picture += fall[:, None, None] * np.array([1, 1, 0], np.int16)
    return picture


def horizon(size_hw: tuple[int, int], draws: Draws) -> Bool[np.ndarray, "h w"]:
    """Where the upper of two backgrounds is: above a wavy line between 0.35 and 0.65 of the height."""
    height, width = size_hw
    level = np.full(width, height * draws.between(350, 650))
    columns = np.arange(width)
    for waves, share in ((draws.between(1, 2), 34), (draws.between(3, 5), 14)):
        turns = (columns * 65536 * waves // width + draws.below(65536)) & 65535
        level = level + height * share * _swing(turns) // 32768
    return np.arange(height)[:, None] * 1000 < level[None, :]


def _swing(turns: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """A smooth wave of -32768 to 32768 over a turn of 65536, of whole numbers: two parabolas."""
    half = turns & 32767
    bow = half * (32768 - half) >> 13
    return np.where(turns < 32768, bow, -bow)


@cache
def grain() -> Int16[np.ndarray, "y x 3"]:
    """Grain of about 3 grey levels: sums of hashed bytes, the same on all machines."""
    raw = hashed(7, 1, NOISE_TILE * NOISE_TILE)
    parts = [((raw >> np.uint64(8 * i)) & np.uint64(255)).astype(np.int16) for i in range(8)]
    common = parts[0] + parts[1] + parts[2] + parts[3] - 510
    each = [common + (parts[4 + i] - 128) for i in range(3)]
    return (np.stack(each, axis=-1) // 56).astype(np.int16).reshape(NOISE_TILE, NOISE_TILE, 3)


@cache
def texture(name: str) -> Int16[np.ndarray, "y x 3"]:
    """The periodic tile of a background."""
    return np.clip(np.rint(_TEXTURES[name](_STREAMS[name])), 0, 255).astype(np.int16)


def _noise(stream: int, rows: int, columns: int) -> _Plane:
    """Smooth periodic noise in [0, 1): hashes on a rows x columns lattice, joined by cubic steps."""
    knots = (hashed(7, stream, rows * columns) >> np.uint64(40)).astype(np.float64) / 2**24
    lattice = knots.reshape(rows, columns)
    down, across = ((np.arange(TILE, dtype=np.float64) * n / TILE, n) for n in (rows, columns))
    low_y, low_x = down[0].astype(np.int64), across[0].astype(np.int64)
    part_y, part_x = down[0] - low_y, across[0] - low_x
    part_y, part_x = part_y * part_y * (3 - 2 * part_y), part_x * part_x * (3 - 2 * part_x)
    band = lattice[low_y] * (1 - part_y)[:, None] + lattice[(low_y + 1) % rows] * part_y[:, None]
    return band[:, low_x] * (1 - part_x) + band[:, (low_x + 1) % columns] * part_x


def _coloured(
    share: _Plane, low: tuple[int, int, int], high: tuple[int, int, int]
) -> Float64[np.ndarray, "y x 3"]:
    """From one colour at 0 to another at 1."""
    start, step = np.array(low, np.float64), np.array(high, np.float64) - np.array(low, np.float64)
    return start + share[:, :, None] * step


def _rows_columns() -> tuple[Int64[np.ndarray, "y 1"], Int64[np.ndarray, "1 x"]]:
    return np.arange(TILE)[:, None], np.arange(TILE)[None, :]


def _grass(stream: int) -> Float64[np.ndarray, "y x 3"]:
    rows, columns = _rows_columns()
    starts = (hashed(7, stream, TILE) & np.uint64(7)).astype(np.int64)[None, :]
    blades = (hashed(7, stream + 1, TILE * TILE // 8) >> np.uint64(40)).astype(np.float64) / 2**24
    blade = (rows + starts) % TILE // 8
    share = blades.reshape(TILE // 8, TILE)[blade, columns + rows * 0]
    tip = ((rows + starts) % 8) / 8.0
    return _coloured(
        share * 0.75 * (1 - tip * 0.5) + 0.25 * _noise(stream + 2, 8, 8), (58, 112, 36), (142, 196, 84)
    )


def _sand(stream: int) -> Float64[np.ndarray, "y x 3"]:
    share = (
        0.55 * _noise(stream, 128, 128) + 0.25 * _noise(stream + 1, 256, 256) + 0.2 * _noise(stream + 2, 8, 4)
    )
    return _coloured(share, (196, 164, 104), (246, 222, 168))


def _water(stream: int) -> Float64[np.ndarray, "y x 3"]:
    rows, _ = _rows_columns()
    height = rows + 10 * _noise(stream, 8, 10) + 3 * _noise(stream + 1, 32, 32)
    turn = height / 10.6667 - np.floor(height / 10.6667)
    crest = np.abs(2 * turn - 1)
    crest = crest * crest * (3 - 2 * crest)
    return _coloured(0.8 * crest * crest + 0.2 * _noise(stream + 2, 6, 6), (30, 96, 152), (122, 188, 218))


def _brick(stream: int) -> Float64[np.ndarray, "y x 3"]:
    rows, columns = _rows_columns()
    course = rows // 8
    shifted = (columns + course % 2 * 8) % TILE
    tones = (hashed(7, stream, 32 * 16) >> np.uint64(40)).astype(np.float64).reshape(32, 16) / 2**24
    share = 0.7 * tones[course, shifted // 16] + 0.3 * _noise(stream + 1, 128, 128)
    is_mortar = (rows % 8 == 0) | (shifted % 16 == 0)
    return np.where(
        is_mortar[:, :, None],
        np.array([206.0, 196.0, 182.0]),
        _coloured(share, (142, 70, 54), (192, 106, 80)),
    )


def _sky(stream: int) -> Float64[np.ndarray, "y x 3"]:
    cloud = 0.6 * _noise(stream, 8, 4) + 0.28 * _noise(stream + 1, 16, 10) + 0.12 * _noise(stream + 2, 32, 24)
    share = np.clip((cloud - 0.5) * 4, 0.0, 1.0)
    return _coloured(share * share * (3 - 2 * share), (112, 172, 226), (238, 244, 250))


def _wood(stream: int) -> Float64[np.ndarray, "y x 3"]:
    _, columns = _rows_columns()
    place = columns + 9 * _noise(stream, 6, 16)
    turn = place / 5.3333 - np.floor(place / 5.3333)
    fibre = np.abs(2 * turn - 1)
    planks = (hashed(7, stream + 2, 8) >> np.uint64(40)).astype(np.float64) / 2**24
    share = 0.45 * fibre + 0.25 * _noise(stream + 1, 16, 128) + 0.3 * planks[columns // 32]
    is_gap = np.broadcast_to(columns % 32 == 0, share.shape)
    return np.where(
        is_gap[:, :, None], np.array([84.0, 54.0, 30.0]), _coloured(share, (136, 90, 50), (204, 154, 98))
    )


def _snow(stream: int) -> Float64[np.ndarray, "y x 3"]:
    drift = 0.75 * _noise(stream, 10, 8) + 0.25 * _noise(stream + 1, 32, 32)
    pale = _coloured(drift, (206, 220, 238), (252, 254, 255))
    is_speck = (hashed(7, stream + 2, TILE * TILE) % np.uint64(40) == 0).reshape(TILE, TILE)
    return pale - np.where(is_speck, 42.0, 0.0)[:, :, None] * np.array([1.0, 0.85, 0.6])


def _stone(stream: int) -> Float64[np.ndarray, "y x 3"]:
    block = _noise(stream, 24, 18)
    crack = np.clip(np.abs(block - 0.5) * 14, 0.0, 1.0)
    face = np.where(block > 0.5, 0.62, 0.4) + 0.3 * _noise(stream + 1, 128, 128)
    return _coloured(face * (0.25 + 0.75 * crack), (52, 54, 58), (184, 184, 178))


_TEXTURES: dict[str, Callable[[int], Float64[np.ndarray, "y x 3"]]] = {
    "grass": _grass,
    "sand": _sand,
    "water": _water,
    "brick": _brick,
    "sky": _sky,
    "wood": _wood,
    "snow": _snow,
    "stone": _stone,
}
