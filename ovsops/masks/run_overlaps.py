"""What masks share and how many parts they have, from their runs alone: no mask is ever drawn.

Axes: r s runs, k owners (masks), n pairs of runs that overlap. Time and memory grow with the runs, not with the pixels.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ovsops.errors import ShapeError
from ovsops.masks.components import Connectivity
from ovsops.masks.rle import Rle, rle_runs
from ovsops.masks.runs import Runs

_PIECES_AT_ONCE = 1 << 20
"""Runs cut at columns that are looked at together."""


def runs_of_rles(rles: Sequence[Rle]) -> Runs:
    """Runs of several masks of one size; mask i is owner i. A mask may be empty."""
    if len({rle.size_hw for rle in rles}) > 1:
        raise ShapeError(f"masks of several sizes {sorted({rle.size_hw for rle in rles})}: one image has one")
    found = [rle_runs(rle) for rle in rles]
    none = [np.empty(0, np.int64)]
    return Runs(
        np.concatenate(none + [runs.starts for runs in found]),
        np.concatenate(none + [runs.ends for runs in found]),
        np.repeat(np.arange(len(found)), np.array([len(runs) for runs in found], np.int64)),
    )


def pixels_in(
    mask: Runs, starts: Int64[np.ndarray, "r"], ends: Int64[np.ndarray, "r"]
) -> Int64[np.ndarray, "r"]:
    """How many pixels of each range `start..end` one mask (runs of a single owner) has set."""
    if len(mask) == 0:
        return np.zeros(len(starts), np.int64)
    lengths = mask.ends - mask.starts
    before_run = np.cumsum(lengths) - lengths

    def before(places: Int64[np.ndarray, "r"]) -> Int64[np.ndarray, "r"]:
        """Set pixels before each place."""
        run = np.searchsorted(mask.starts, places, side="right") - 1
        inside = np.minimum(places - mask.starts[run], lengths[run])
        return np.where(run < 0, 0, before_run[run] + inside)

    return before(ends) - before(starts)


def run_overlaps(
    runs: Runs, disjoint: Runs
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Owners of each two runs that overlap, and how many pixels they share.

    Masks of `runs` may overlap each other, those of `disjoint` may not: every pixel belongs to one of them or none.
    """
    order = np.argsort(disjoint.starts, kind="stable")
    starts, ends, owners = disjoint.starts[order], disjoint.ends[order], disjoint.owners[order]
    firsts = np.searchsorted(ends, runs.starts, side="right")
    lasts = np.searchsorted(starts, runs.ends, side="left")
    mine, theirs = _expanded(firsts, lasts)
    shared = np.minimum(runs.ends[mine], ends[theirs]) - np.maximum(runs.starts[mine], starts[theirs])
    return runs.owners[mine], owners[theirs], shared


def count_parts(
    runs: Runs, num_owners: int, height: int, *, connectivity: Connectivity, min_part_share: float
) -> Int64[np.ndarray, "k"]:
    """Connected parts of each mask, 0 for an empty one; parts below `min_part_share` of its largest do not count."""
    num_pieces = (runs.ends - 1) // height - runs.starts // height + 1
    of_owner = np.bincount(runs.owners, weights=num_pieces, minlength=num_owners)
    parts = np.zeros(num_owners, np.int64)
    chunks = (np.cumsum(of_owner) // _PIECES_AT_ONCE)[runs.owners]  # a mask is never cut in two
    for chunk in np.unique(chunks):
        some = chunks == chunk
        present, members = np.unique(runs.owners[some], return_inverse=True)
        pieces = _cut_at_columns(runs.starts[some], runs.ends[some], members, height)
        sizes, owners = _part_sizes(pieces, height, connectivity)
        largest = np.zeros(len(present))
        np.maximum.at(largest, owners, sizes)
        counts = sizes >= min_part_share * largest[owners]
        parts[present] = np.bincount(owners[counts], minlength=len(present))
    return parts


def _cut_at_columns(
    starts: Int64[np.ndarray, "r"], ends: Int64[np.ndarray, "r"], owners: Int64[np.ndarray, "r"], height: int
) -> Runs:
    """Runs that stay in one column each."""
    first, last = starts // height, (ends - 1) // height
    which, columns = _expanded(first, last + 1)
    return Runs(
        np.maximum(starts[which], columns * height),
        np.minimum(ends[which], (columns + 1) * height),
        owners[which],
    )


def _part_sizes(
    pieces: Runs, height: int, connectivity: Connectivity
) -> tuple[Float64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Pixels and owner of every connected part."""
    reach = 1 if connectivity == 8 else 0
    next_column = (pieces.starts // height + 1) * height
    low = np.maximum(pieces.starts + height - reach, next_column)
    high = np.minimum(pieces.ends + height + reach, next_column + height)
    stride = int(pieces.ends.max(initial=0)) + 2 * height
    shift = pieces.owners * stride  # keeps the places of one owner apart from the next one's
    firsts = np.searchsorted(pieces.ends + shift, low + shift, side="right")
    lasts = np.searchsorted(pieces.starts + shift, high + shift, side="left")
    here, there = _expanded(firsts, lasts)
    num = len(pieces)
    links = coo_array((np.ones(len(here), np.int8), (here, there)), shape=(num, num))
    num_parts, part = connected_components(links, directed=False)
    sizes = np.bincount(part, weights=pieces.ends - pieces.starts, minlength=num_parts)
    owners = np.zeros(num_parts, np.int64)
    owners[part] = pieces.owners
    return sizes, owners


def _expanded(
    firsts: Int64[np.ndarray, "r"], ends: Int64[np.ndarray, "r"]
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Every (i, j) with firsts[i] <= j < ends[i], in order."""
    counts = np.maximum(ends - firsts, 0)
    which = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    return which, firsts[which] + within
