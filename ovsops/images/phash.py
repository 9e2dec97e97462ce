"""Two perceptual hashes of 64 bits, and which of many lie near each other. Axes: h w pixels, n hashes.

Both are taken of the grey picture, averaged exactly over a small grid:
- the difference hash compares neighbours on an 8x9 grid (N. Krawetz, "Kind of Like That", hackerfactor.com, 2013);
- the DCT hash compares the 8x8 lowest frequencies of a 32x32 grid, without the constant, with their median
  (C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", FH Hagenberg, 2010, section 3.2).
They survive re-encoding, resizing, brightness and crops of some percent; not mirroring, turning or large
crops: these are for embeddings (`ovsops.images.near_vectors`). A picture that is all but uniform has no hash:
every uniform picture would be near every other.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt8, UInt64

from ovsops.errors import ShapeError

MIN_CONTRAST = 2.0
"""Standard deviation of the 8x9 grid, in grey levels, below which a picture is uniform."""
_GREY = np.asarray([0.299, 0.587, 0.114])
"""Weights of ITU-R BT.601."""


class PictureHash(NamedTuple):
    """Both hashes of one picture."""

    difference: int
    frequency: int


def picture_hash(pixels: UInt8[np.ndarray, "h w 3"]) -> PictureHash | None:
    """Both hashes; None for a picture without structure."""
    grid = _averaged(pixels, 8, 9)
    if grid.std() < MIN_CONTRAST:
        return None
    return PictureHash(_bits(grid[:, 1:] > grid[:, :-1]), _bits(_low_frequencies(_averaged(pixels, 32, 32))))


def near_hash_pairs(hashes: UInt64[np.ndarray, "n 2"], *, max_bits: int) -> Int64[np.ndarray, "p 2"]:
    """Pairs i < j of rows whose two hashes both differ in at most `max_bits` bits; sorted, exact.

    Hashes that differ in k bits agree on one of k + 1 parts of the bits, so that only rows that share a part
    of both hashes are compared. Equal rows are linked to the first of them alone, and only that one to others:
    who joins pairs to groups gets the same groups. Memory: the pairs, and a few numbers a row.
    """
    if not 0 <= max_bits <= 31:
        raise ShapeError(f"max_bits is {max_bits}: give 0 to 31 of 64; more would be near everything")
    unique, first, which = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    others = np.setdiff1d(np.arange(len(hashes)), first)
    equal = np.stack([first[which.ravel()[others]], others], axis=1)
    found = [equal, *(first[pairs] for pairs in _near_unique(unique, max_bits))]
    pairs = np.sort(np.concatenate(found), axis=1).astype(np.int64)
    return np.unique(pairs, axis=0)


def _near_unique(hashes: UInt64[np.ndarray, "n 2"], max_bits: int) -> list[Int64[np.ndarray, "p 2"]]:
    """Near pairs of different hashes; some twice."""
    found = []
    edges = np.linspace(0, 64, max_bits + 2).astype(np.uint64).tolist()
    parts = list(itertools.pairwise(edges))
    for first, second in itertools.product(parts, parts):
        shared = (_part(hashes[:, 0], *first) << np.uint64(32)) ^ _part(hashes[:, 1], *second)
        order = np.argsort(shared, kind="stable")
        shared, places = shared[order], np.arange(len(order))
        for shift in range(1, len(order)):
            places = places[: np.searchsorted(places, len(order) - shift)]
            places = places[shared[places] == shared[places + shift]]
            if not len(places):
                break
            rows, others = order[places], order[places + shift]
            is_near = (np.bitwise_count(hashes[rows] ^ hashes[others]) <= max_bits).all(axis=1)
            found.append(np.stack([rows[is_near], others[is_near]], axis=1))
    return found


def _part(hashes: UInt64[np.ndarray, "n"], low: int, high: int) -> UInt64[np.ndarray, "n"]:
    """Bits `low` to `high` of each, folded to 32 where they are more: rows that agree still agree."""
    bits = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
    return (bits ^ (bits >> np.uint64(32))) & np.uint64(0xFFFFFFFF)


def _averaged(
    pixels: UInt8[np.ndarray, "h w 3"], rows: int, columns: int
) -> Float64[np.ndarray, "rows columns"]:
    """The grey picture averaged over a grid; pixels on a line between cells count by their share."""
    if pixels.shape[0] < 1 or pixels.shape[1] < 1:
        raise ShapeError(f"a picture of {pixels.shape[:2]} pixels (h w) has no hash")
    over_rows = np.tensordot(_shares(pixels.shape[0], rows), pixels, axes=1)  # rows w 3
    return np.einsum("rwc,kw,c->rk", over_rows, _shares(pixels.shape[1], columns), _GREY, optimize=True)


def _shares(size: int, bins: int) -> Float64[np.ndarray, "bins size"]:
    """Share of each pixel in each bin of equal width; rows add up to 1."""
    edges = np.linspace(0, size, bins + 1)
    pixels = np.arange(size)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    return np.maximum(high - low, 0) * (bins / size)


def _low_frequencies(grid: Float64[np.ndarray, "32 32"]) -> np.ndarray:
    """Which of the frequencies 1 to 8 in both directions are above their median (DCT-II)."""
    places = np.arange(32) + 0.5
    basis = np.cos(np.pi / 32 * np.arange(1, 9)[:, None] * places)
    low = basis @ grid @ basis.T
    return low > np.median(low)


def _bits(is_set: np.ndarray) -> int:
    return int.from_bytes(np.packbits(is_set.ravel()).tobytes(), "big")
