"""Nearest things of other classes, over more of them than fit into memory: exact top-k, block by block.

Axes: Q queries, N others of a block, D channels, K kept, C classes.

    nearest = Nearest.none_yet(queries, k=10)
    for block in blocks:                       # any order, any cut, as often as one likes
        nearest = nearest.seen(block, rules)

Blocks give the same answer however the corpus is cut, bit for bit: unit vectors are rounded to whole numbers of 2**-26
(finer than float32 holds them), and sums of products of such numbers are exact in float64, so that no order of
additions changes a cosine: |a||b| bounds every partial sum by 2**52, and a bit. Ties go to the smaller uid.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from ovsops.errors import ConfigError, ShapeError

_STEP = 2.0**26
_UNIT = _STEP * _STEP
"""A cosine of 1, in the whole numbers that are summed."""
_MAX_NORM_ERROR = 0.01
NO_UID = ""
"""Stands for a neighbour where there are fewer than K; its score is -inf."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Embedded regions, or images, of a corpus."""

    uids: np.ndarray
    """Unicode, unique over the corpus, never empty."""
    groups: np.ndarray
    """What things of one image share: its uid."""
    classes: Bool[np.ndarray, "N C"]
    """Classes of each: one of a region, several of an image."""
    vectors: Float64[np.ndarray, "N D"]
    """Whole numbers of 2**-26; `whole_vectors` makes them."""

    def __post_init__(self) -> None:
        if not len(self.uids) == len(self.groups) == len(self.classes) == len(self.vectors):
            raise ShapeError(
                f"block of {len(self.uids)} uids, {len(self.groups)} groups, {len(self.classes)} rows of classes,"
                f" {len(self.vectors)} vectors: one of each is wanted a thing"
            )

    def __len__(self) -> int:
        return len(self.uids)


@dataclass(frozen=True, kw_only=True, eq=False)
class PairRules:
    """Who may be a negative of whom."""

    may_hold: Bool[np.ndarray, "C C"] | None = None
    """Classes that may be true of one thing (a dog and an animal): never a pair. A class and itself always are."""
    in_one_group: bool = False
    """Whether things of one image are pairs: their boxes may show the same pixels."""

    def excluded(self, queries: Block, others: Block) -> Bool[np.ndarray, "Q N"]:
        """Pairs that are none: themselves, of one image, or with a class in common."""
        asked = queries.classes
        if self.may_hold is not None:
            asked = asked | (asked.astype(np.float32) @ self.may_hold.astype(np.float32) > 0)
        shared: Bool[np.ndarray, "Q N"] = (asked.astype(np.float32) @ others.classes.astype(np.float32).T) > 0
        shared |= queries.uids[:, None] == others.uids[None]
        if not self.in_one_group:
            shared |= queries.groups[:, None] == others.groups[None]
        return shared


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearest:
    """The K nearest of what was seen so far, nearest first."""

    queries: Block
    scores: Float64[np.ndarray, "Q K"]
    """Cosines; -inf where there were fewer."""
    uids: np.ndarray
    """Q x K."""
    places: Int64[np.ndarray, "Q K"]
    """Class of each: the first of its classes; -1 for none."""
    num_seen: int = 0

    @classmethod
    def none_yet(cls, queries: Block, *, k: int) -> "Nearest":
        """Before the first block."""
        if k < 1:
            raise ConfigError(f"mining: k is {k}; 1 or more is wanted")
        shape = (len(queries), k)
        return cls(
            queries=queries,
            scores=np.full(shape, -np.inf),
            uids=np.full(shape, NO_UID, dtype="U1"),
            places=np.full(shape, -1, np.int64),
        )

    def seen(self, block: Block, rules: PairRules) -> "Nearest":
        """With another block."""
        if not len(block) or not len(self.queries):
            return replace(self, num_seen=self.num_seen + len(block))
        k = self.scores.shape[1]
        order = np.argsort(
            block.uids, kind="stable"
        )  # columns by uid: the first of equal ones is the smaller
        block = Block(
            uids=block.uids[order],
            groups=block.groups[order],
            classes=block.classes[order],
            vectors=block.vectors[order],
        )
        cosines = (self.queries.vectors @ block.vectors.T) / _UNIT
        cosines[rules.excluded(self.queries, block)] = -np.inf
        columns = _first_largest(cosines, min(k, len(block)))
        found = np.take_along_axis(cosines, columns, 1)
        uids = np.where(np.isneginf(found), NO_UID, block.uids[columns])
        classes = np.where(block.classes.any(1), block.classes.argmax(1), -1)[columns]
        return self._merged(found, uids, np.where(np.isneginf(found), -1, classes), len(block))

    def merge(self, other: "Nearest") -> "Nearest":
        """What two workers saw of the same queries, in disjoint blocks."""
        if not np.array_equal(self.queries.uids, other.queries.uids):
            raise ShapeError("nearest things of different queries do not merge")
        return self._merged(other.scores, other.uids, other.places, other.num_seen)

    def _merged(
        self, scores: Float64[np.ndarray, "Q L"], uids: np.ndarray, places: np.ndarray, num_seen: int
    ) -> "Nearest":
        k = self.scores.shape[1]
        scores = np.concatenate([self.scores, scores], 1)
        uids = np.concatenate([self.uids, uids], 1)
        places = np.concatenate([self.places, places], 1)
        by_uid = np.argsort(uids, axis=1, kind="stable")
        by_score = np.argsort(-np.take_along_axis(scores, by_uid, 1), axis=1, kind="stable")
        order = np.take_along_axis(by_uid, by_score, 1)[:, :k]
        return replace(
            self,
            scores=np.take_along_axis(scores, order, 1),
            uids=np.take_along_axis(uids, order, 1),
            places=np.take_along_axis(places, order, 1),
            num_seen=self.num_seen + num_seen,
        )


def whole_vectors(vectors: Float[np.ndarray, "N D"], *, where: str) -> Float64[np.ndarray, "N D"]:
    """Unit vectors as whole numbers of 2**-26. ShapeError for what has no unit length: it has no cosine.

    Lengths are set to 1 first, as stored numbers (float16) are a little off.
    """
    exact = vectors.astype(np.float64)
    lengths = np.sqrt((exact * exact).sum(1))
    bad = np.flatnonzero(~(np.abs(lengths - 1) <= _MAX_NORM_ERROR))
    if len(bad):
        raise ShapeError(
            f"{where}: row {bad[0]} has length {lengths[bad[0]]:.4g}, as {len(bad)} of {len(exact)} rows are off:"
            " unit vectors are wanted; leave out regions that cover no patch"
        )
    return np.rint(exact / lengths[:, None] * _STEP)


def _first_largest(values: Float64[np.ndarray, "Q N"], k: int) -> Int64[np.ndarray, "Q K"]:
    """Columns of the k largest of each row, largest first, of equal ones the first columns."""
    num = values.shape[1]
    if k == num:
        return np.argsort(-values, axis=1, kind="stable")
    least = np.partition(values, num - k, axis=1)[:, num - k, None]
    is_more, is_equal = values > least, values == least
    room = k - is_more.sum(1, keepdims=True)
    is_taken = is_more | (is_equal & (np.cumsum(is_equal, axis=1) <= room))
    columns = np.nonzero(is_taken)[1].reshape(len(values), k)
    order = np.argsort(-np.take_along_axis(values, columns, 1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, 1)


@dataclass(kw_only=True)
class Confusions:
    """How often things of one class have near neighbours of another. Sums are exact: no order of adding matters."""

    counts: dict[tuple[int, int], int] = field(default_factory=dict)
    """By class of the query and class of the neighbour."""
    _sums: dict[tuple[int, int], int] = field(default_factory=dict)
    """Of cosines, in whole numbers of 2**-52."""

    def add(self, nearest: Nearest, *, min_score: float = -1.0) -> None:
        """Count every pair of a result that is at least so near. Classes are places among C."""
        own = np.where(nearest.queries.classes.any(1), nearest.queries.classes.argmax(1), -1)
        rows, columns = np.nonzero((nearest.uids != NO_UID) & (nearest.scores >= min_score))
        self.add_pairs(own[rows], nearest.places[rows, columns], nearest.scores[rows, columns])

    def add_pairs(
        self, own: Int[np.ndarray, " P"], others: Int[np.ndarray, " P"], scores: Float64[np.ndarray, " P"]
    ) -> None:
        """Count pairs of classes, by whatever names them, with the cosines of `Nearest`."""
        for one, other, score in zip(own.tolist(), others.tolist(), scores.tolist(), strict=True):
            pair = (one, other)
            self.counts[pair] = self.counts.get(pair, 0) + 1
            self._sums[pair] = self._sums.get(pair, 0) + int(score * _UNIT)

    def merge(self, other: "Confusions") -> None:
        """Count what another worker counted, too."""
        for pair, count in other.counts.items():
            self.counts[pair] = self.counts.get(pair, 0) + count
            self._sums[pair] = self._sums.get(pair, 0) + other._sums[pair]

    def pairs(self) -> list[tuple[int, int, int, float]]:
        """Class, other class, count and mean cosine; the most frequent first, then the nearest."""
        found = [(*pair, count, self._sums[pair] / _UNIT / count) for pair, count in self.counts.items()]
        return sorted(found, key=lambda row: (-row[2], -row[3], row[0], row[1]))


def one_hot(classes: Sequence[int], num_classes: int) -> Bool[np.ndarray, "N C"]:
    """Classes of regions: one each."""
    return many_hot([[each] for each in classes], num_classes)


def many_hot(classes: Iterable[Sequence[int]], num_classes: int) -> Bool[np.ndarray, "N C"]:
    """Classes of images: those of all their regions. ShapeError for a place beyond the vocabulary."""
    rows = [list(each) for each in classes]
    flags = np.zeros((len(rows), num_classes), bool)
    for row, places in enumerate(rows):
        if places and not 0 <= min(places) <= max(places) < num_classes:
            raise ShapeError(f"classes {places[:8]} of thing {row}: places among {num_classes} are wanted")
        flags[row, places] = True
    return flags
