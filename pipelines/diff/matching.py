"""Labels of one image in two runs, matched. Axes: N labels of the first run, M of the second.

Labels of one class match first, then those of different classes; of several, those of higher IoU. Each label matches
once.

    kept      same class, IoU >= kept_iou            lost   in the first run alone
    moved     same class, IoU >= match_iou           new    in the second run alone
    renamed   other class, IoU >= match_iou
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from ovsops.masks.rle import Rle
from ovsops.metrics.matching import mask_ious
from pipelines.diff.config import MatchConfig

Fate = Literal["kept", "moved", "renamed", "lost", "new"]
FATES: tuple[Fate, ...] = ("kept", "moved", "renamed", "lost", "new")


@dataclass(frozen=True, kw_only=True)
class Label:
    """One instance, as much of it as a comparison needs."""

    place: int
    """Of its class in `JoinedClasses`."""
    mask: Rle
    score: float
    decision: str | None
    calibrated: float | None = None
    """Calibrated score, where the run has one."""


@dataclass(frozen=True, kw_only=True)
class Matched:
    """One label of each run that are the same thing."""

    fate: Fate
    first: Label
    second: Label
    iou: float

    @property
    def is_identical(self) -> bool:
        """Whether class and every pixel are the same."""
        return self.first.place == self.second.place and self.first.mask == self.second.mask


@dataclass(frozen=True, kw_only=True)
class ImageMatch:
    """All labels of an image."""

    matched: tuple[Matched, ...]
    lost: tuple[Label, ...]
    new: tuple[Label, ...]

    @property
    def num_changed(self) -> int:
        """Labels that are not kept."""
        return sum(pair.fate != "kept" for pair in self.matched) + len(self.lost) + len(self.new)


def match_labels(first: Sequence[Label], second: Sequence[Label], config: MatchConfig) -> ImageMatch:
    """Match the labels of two runs on the same image."""
    matched: list[Matched] = []
    left, right = _take_identical(first, second, matched)
    if left and right and len({label.mask.size_hw for label in (*left, *right)}) == 1:
        ious = mask_ious([label.mask for label in left], [label.mask for label in right])
        is_same = np.array([[a.place == b.place for b in right] for a in left])
        used: tuple[set[int], set[int]] = (set(), set())
        for may in (is_same, ~is_same):
            for i, j in _best_first(np.where(may, ious, 0.0), config.match_iou):
                if i in used[0] or j in used[1]:
                    continue
                used[0].add(i)
                used[1].add(j)
                iou = float(ious[i, j])
                fate: Fate = "renamed" if not is_same[i, j] else "kept" if iou >= config.kept_iou else "moved"
                matched.append(Matched(fate=fate, first=left[i], second=right[j], iou=iou))
        left = [label for i, label in enumerate(left) if i not in used[0]]
        right = [label for j, label in enumerate(right) if j not in used[1]]
    return ImageMatch(matched=tuple(matched), lost=tuple(left), new=tuple(right))


def _take_identical(
    first: Sequence[Label], second: Sequence[Label], matched: list[Matched]
) -> tuple[list[Label], list[Label]]:
    """Put labels of equal class and pixels into `matched`; the others."""
    waiting: dict[tuple[int, Rle], list[int]] = {}
    for j, label in enumerate(second):
        waiting.setdefault((label.place, label.mask), []).append(j)
    taken: set[int] = set()
    left = []
    for label in first:
        places = waiting.get((label.place, label.mask))
        if not places:
            left.append(label)
            continue
        j = places.pop(0)
        taken.add(j)
        matched.append(Matched(fate="kept", first=label, second=second[j], iou=1.0))
    return left, [label for j, label in enumerate(second) if j not in taken]


def _best_first(ious: Float64[np.ndarray, "N M"], least: float) -> Iterator[tuple[int, int]]:
    reaches: Bool[np.ndarray, "N M"] = ious >= least
    rows, columns = reaches.nonzero()
    for place in np.lexsort((columns, rows, -ious[rows, columns])):
        yield int(rows[place]), int(columns[place])
