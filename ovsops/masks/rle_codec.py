"""The text form of COCO run lengths: many lists of counts to strings at once, and one string back.

A count after the third is stored as its difference to the count two places before it; every number is cut
into groups of five bits, lowest first, bit 0x20 of a character says that more follow, and the sign is bit
0x10 of the last group; 48 is added to land in printable ASCII. Axes: n counts of all masks, k masks.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Int64

from ovsops.errors import ShapeError

_MAX_GROUPS = 7
"""Groups of five bits that any count of a mask below 2**32 pixels, or a difference of two, can need."""
_FIRST, _LAST = 48, 48 + 63
_SHOWN = 40
"""Characters of a bad string that an error quotes."""


def compress_counts(counts: Int64[np.ndarray, "n"], num_counts: Int64[np.ndarray, "k"]) -> list[str]:
    """COCO strings of k masks whose counts lie one after another in `counts`.

    `num_counts` says how many belong to each mask. Done for all masks in one pass of array operations: no
    Python loop runs over counts.
    """
    ends = np.cumsum(num_counts)
    firsts = ends - num_counts
    numbers = counts.copy()
    if len(counts) > 2:
        numbers[2:] -= counts[:-2]
    for place in range(3):  # the first three counts of a mask are stored as they are
        at = firsts[num_counts > place] + place
        numbers[at] = counts[at]

    num_groups = np.ones(len(numbers), np.int64)
    for bits in range(4, 5 * _MAX_GROUPS, 5):
        is_longer = (numbers < -(1 << bits)) | (numbers >= 1 << bits)
        if not is_longer.any():
            break
        num_groups += is_longer

    group_ends = np.cumsum(num_groups)
    text = np.empty(int(group_ends[-1]) if len(group_ends) else 0, np.uint8)
    at, rest, left = group_ends - num_groups, numbers, num_groups
    while len(at):
        has_more = left > 1
        text[at] = (rest & 31) + 32 * has_more + _FIRST
        at, rest, left = at[has_more] + 1, rest[has_more] >> 5, left[has_more] - 1

    whole = text.tobytes().decode("ascii")
    text_ends = np.concatenate([[0], group_ends])[ends].tolist()
    return [whole[a:b] for a, b in pairwise([0, *text_ends])]


def decompress_counts(text: str | bytes, size_hw: tuple[int, int]) -> Int64[np.ndarray, "n"]:
    """Counts of one COCO string, checked: no count is negative and they sum to the mask's pixels.

    ShapeError for anything that is no RLE of a mask of `size_hw`: the string may come from a stranger.
    """
    num_pixels = size_hw[0] * size_hw[1]
    data = np.frombuffer(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"), np.uint8)
    if len(data) == 0:
        raise _invalid(text, size_hw, "it is empty")
    outside = np.flatnonzero((data < _FIRST) | (data > _LAST))
    if len(outside):
        raise _invalid(
            text, size_hw, f"byte {outside[0]} is {data[outside[0]]}, not within {_FIRST}..{_LAST}"
        )
    groups = data.astype(np.int64) - _FIRST
    lasts = np.flatnonzero((groups & 32) == 0)
    if len(lasts) == 0 or lasts[-1] != len(groups) - 1:
        raise _invalid(text, size_hw, "it ends inside a number")
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    num_groups = lasts - firsts + 1
    if int(num_groups.max()) > _MAX_GROUPS:
        raise _invalid(text, size_hw, f"a number has {num_groups.max()} groups, at most {_MAX_GROUPS} can be")

    place = np.arange(len(groups)) - np.repeat(firsts, num_groups)
    numbers = np.add.reduceat((groups & 31) << (5 * place), firsts)
    is_negative = (groups[lasts] & 16) != 0
    numbers -= np.where(is_negative, np.int64(1) << (5 * num_groups), 0)
    largest = int(numbers[np.abs(numbers).argmax()])
    if abs(largest) > num_pixels:  # before the sums, which could wrap around
        raise _invalid(text, size_hw, f"it holds {largest}, more than the mask's pixels")

    counts = numbers  # undo the differences: odd places chain from 1, even places from 2
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return checked_counts(counts, size_hw)


def checked_counts(counts: Int64[np.ndarray, "n"], size_hw: tuple[int, int]) -> Int64[np.ndarray, "n"]:
    """The counts themselves, or ShapeError when they cannot be the runs of a mask of `size_hw`."""
    num_pixels = size_hw[0] * size_hw[1]
    negative = np.flatnonzero(counts < 0)
    if len(negative):
        raise _invalid(None, size_hw, f"count {negative[0]} is {counts[negative[0]]}")
    if len(counts) and int(counts.max()) > num_pixels:  # before the sum, which could wrap around
        raise _invalid(None, size_hw, f"a count is {counts.max()}, more than the mask's pixels")
    total = int(counts.sum())
    if total != num_pixels:
        raise _invalid(None, size_hw, f"its runs cover {total} pixels, expected {num_pixels}")
    return counts


def _invalid(text: str | bytes | None, size_hw: tuple[int, int], why: str) -> ShapeError:
    shown = "" if text is None else f" {text[:_SHOWN]!r}"
    return ShapeError(
        f"RLE{shown} of size {size_hw[0]}x{size_hw[1]} (h x w) is invalid: {why}; "
        "encode the mask again, column-major, or check that size is (height, width)"
    )
