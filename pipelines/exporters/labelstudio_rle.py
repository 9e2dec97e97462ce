"""Label Studio's own run-length code of a mask, which is not COCO's. Axes: h w pixels.

A brush is kept as the bytes of an RGBA picture, row by row, four equal bytes a pixel (255 is mask), packed as a
stream of bits, high bit first (the rle-pack of thi.ng/umbrella):

    32 bits: how many bytes. 5 bits: size of a value less 1. 4 x 4 bits: the four sizes of a run's length, less 1
    then for each run: 1 bit (1: one value for the whole run), 2 bits: which of the sizes, the length less 1, the value

zeros fill the last byte. Runs here are runs of one value; longer ones than 2**16 bytes are cut.
"""

from itertools import chain

import numpy as np
from jaxtyping import Bool

from ovsops.errors import ShapeError

_CHANNELS = 4
_LENGTH_BITS = (3, 4, 8, 16)
_LONGEST = 2 ** _LENGTH_BITS[-1]
_MAX_VALUES = 2**32 - 1


def mask_to_brush_rle(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """The `rle` of a brush: bytes as numbers from 0 to 255."""
    num_values = mask.size * _CHANNELS
    if num_values > _MAX_VALUES:
        raise ShapeError(f"a mask of {mask.size:,} pixels is over what Label Studio counts in 32 bits")
    head = f"{num_values:032b}{7:05b}" + "".join(f"{bits - 1:04b}" for bits in _LENGTH_BITS)
    flat = mask.ravel()
    starts = (
        np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1]) if flat.size else np.zeros(0, int)
    )
    lengths = np.diff(starts, append=flat.size) * _CHANNELS
    runs = (_run(int(length), bool(flat[start])) for start, length in zip(starts, lengths, strict=True))
    bits = head + "".join(chain.from_iterable(runs))
    num_bytes = -(-len(bits) // 8)
    return list(int(bits.ljust(8 * num_bytes, "0"), 2).to_bytes(num_bytes, "big"))


def _run(length: int, is_mask: bool) -> list[str]:
    value = "11111111" if is_mask else "00000000"
    whole, rest = divmod(length, _LONGEST)
    pieces = [f"111{_LONGEST - 1:016b}{value}"] * whole
    if rest:
        size = next(place for place, bits in enumerate(_LENGTH_BITS) if rest <= 2**bits)
        pieces.append(f"1{size:02b}{rest - 1:0{_LENGTH_BITS[size]}b}{value}")
    return pieces
