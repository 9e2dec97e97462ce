"""Label-level diff: what became of every label of the images that both runs share. Axes: C classes, F fates.

Pairs of images are worked on shard by shard; in memory are the labels of one shard of each run.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import Int64

from ovsops.errors import OutputError, ShapeError
from ovsops.masks.rle import rle_from_coco
from pipelines.diff.classes import JoinedClasses, place_of
from pipelines.diff.config import MatchConfig
from pipelines.diff.index import ImageIndex, uid_bytes
from pipelines.diff.matching import FATES, ImageMatch, Label, match_labels
from pipelines.export import committed_rows
from pipelines.ledger import Commit
from pipelines.storage import Storage

IOU_BINS = 100
MAX_EXAMPLES = 10
_COLUMNS = [
    "instance_uid",
    "image_uid",
    "category_id",
    "segmentation",
    "score",
    "score_calibrated",
    "decision",
]


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One side of a diff."""

    storage: Storage
    commits: Sequence[Commit]
    index: ImageIndex
    places: Mapping[int, int]
    """Class by category id."""


@dataclass(frozen=True, kw_only=True, order=True)
class Example:
    """An image with many changed labels."""

    num_changed: int
    shard: str
    image_uid: str
    """Of the second run."""
    key: str = ""


@dataclass(kw_only=True)
class LabelTotals:
    """What became of the labels of the same images."""

    num_classes: int
    images: int = 0
    images_unchanged: int = 0
    """Images whose labels are the same, pixel by pixel, with the same scores and decisions."""
    identical: int = 0
    """Kept labels with the same pixels."""
    fates: Int64[np.ndarray, "C F"] = field(init=False)
    """By class: of the first run, for new labels of the second."""
    in_first: Int64[np.ndarray, " C"] = field(init=False)
    in_second: Int64[np.ndarray, " C"] = field(init=False)
    ious: Int64[np.ndarray, " B"] = field(init=False)
    """Matched labels by IoU, in steps of 0.01; the last cell holds 1, too."""
    renames: Counter[tuple[int, int]] = field(default_factory=Counter)
    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Matched labels whose decision is another one."""
    recalibrated: int = 0
    """Matched labels whose calibrated score is another one."""
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Images whose outcome (labelled, failed E_..., ...) is another one."""
    score_difference_sum: float = 0.0
    """Absolute, over matched labels."""
    score_difference_max: float = 0.0
    examples: list[Example] = field(default_factory=list)
    """Images with the most changes."""

    def __post_init__(self) -> None:
        self.fates = np.zeros((self.num_classes, len(FATES)), np.int64)
        self.in_first = np.zeros(self.num_classes, np.int64)
        self.in_second = np.zeros(self.num_classes, np.int64)
        self.ious = np.zeros(IOU_BINS, np.int64)

    @property
    def by_fate(self) -> dict[str, int]:
        """Labels by fate; a matched pair counts once."""
        return dict(zip(FATES, self.fates.sum(axis=0).tolist(), strict=True))

    @property
    def matched(self) -> int:
        """Labels of the first run that have one in the second."""
        return int(self.fates[:, : FATES.index("lost")].sum())

    @property
    def changed_share(self) -> float:
        """Share of the labels (matched pairs once) that are not kept; 0 without labels."""
        total = int(self.fates.sum())
        return (total - self.by_fate["kept"]) / total if total else 0.0

    @property
    def decisions_share(self) -> float:
        """Share of matched labels whose decision changed; 0 without any."""
        return self.decisions.total() / self.matched if self.matched else 0.0

    @property
    def is_identical(self) -> bool:
        """Whether nothing at all changed."""
        return self.images == self.images_unchanged and not self.outcomes

    def add(self, match: ImageMatch, *, shard: str, image_uid: str) -> None:
        """Count an image that both runs labelled."""
        self.images += 1
        is_same = not match.num_changed
        for pair in match.matched:
            a, b = pair.first, pair.second
            self.fates[a.place, FATES.index(pair.fate)] += 1
            self.in_first[a.place] += 1
            self.in_second[b.place] += 1
            self.ious[min(int(pair.iou * IOU_BINS), IOU_BINS - 1)] += 1
            self.identical += pair.is_identical
            if a.place != b.place:
                self.renames[a.place, b.place] += 1
            if a.decision != b.decision:
                self.decisions[a.decision or "none", b.decision or "none"] += 1
            difference = abs(a.score - b.score)
            self.score_difference_sum += difference
            self.score_difference_max = max(self.score_difference_max, difference)
            self.recalibrated += a.calibrated != b.calibrated
            is_same = is_same and pair.is_identical and difference == 0
            is_same = is_same and (a.decision, a.calibrated) == (b.decision, b.calibrated)
        for fate, labels, count in (
            ("lost", match.lost, self.in_first),
            ("new", match.new, self.in_second),
        ):
            for label in labels:
                self.fates[label.place, FATES.index(fate)] += 1
                count[label.place] += 1
        self.images_unchanged += is_same
        if match.num_changed:
            example = Example(num_changed=match.num_changed, shard=shard, image_uid=image_uid)
            push = heapq.heappush if len(self.examples) < MAX_EXAMPLES else heapq.heappushpop
            push(self.examples, example)

    def add_equal_shard(self, commit: Commit, places: Mapping[int, int]) -> None:
        """Count a shard whose tables have the same bytes in both runs."""
        self.images += commit.labelled
        self.images_unchanged += commit.labelled
        for category, count in commit.instances_per_class.items():
            place = place_of(int(category), places, f"shard {commit.name}")
            self.fates[place, FATES.index("kept")] += count
            self.in_first[place] += count
            self.in_second[place] += count
            self.ious[-1] += count
            self.identical += count


def compare_labels(
    first: ComparedRun,
    second: ComparedRun,
    pairs: Int64[np.ndarray, "P 2"],
    classes: JoinedClasses,
    config: MatchConfig,
) -> LabelTotals:
    """Go through the pairs of images, sorted by their commits."""
    totals = LabelTotals(num_classes=len(classes))
    for (a, b), group in groupby(
        pairs.tolist(), key=lambda pair: (first.index.commits[pair[0]], second.index.commits[pair[1]])
    ):
        one, two = first.commits[int(a)], second.commits[int(b)]
        places = list(group)
        if classes.is_same and _has_equal_tables(one, two) and len(places) == one.read == two.read:
            totals.add_equal_shard(one, first.places)
            continue
        _compare_shards(first, second, one, two, places, totals, config)
    totals.examples = _with_keys(second, sorted(totals.examples, reverse=True))
    return totals


def _with_keys(run: ComparedRun, examples: Sequence[Example]) -> list[Example]:
    """The same with what a person knows an image by."""
    shards = {example.shard for example in examples}
    keys = {
        row["image_uid"]: row["key"]
        for commit in run.commits
        if commit.name in shards
        for row in committed_rows(run.storage, commit, "images", ["image_uid", "key"])
    }
    return [replace(example, key=keys.get(example.image_uid, "")) for example in examples]


def _has_equal_tables(first: Commit, second: Commit) -> bool:
    return all(
        first.tables[kind]["sha256"] == second.tables[kind]["sha256"] for kind in ("images", "instances")
    )


def _compare_shards(
    first: ComparedRun,
    second: ComparedRun,
    one: Commit,
    two: Commit,
    pairs: list[list[int]],
    totals: LabelTotals,
    config: MatchConfig,
) -> None:
    both = []
    for i, j in pairs:
        earlier = first.index.outcome_names[first.index.outcomes[i]]
        now = second.index.outcome_names[second.index.outcomes[j]]
        if earlier != now:
            totals.outcomes[earlier, now] += 1
        elif earlier == "labelled":
            both.append((first.index.uids[i].tobytes(), second.index.uids[j].tobytes()))
    if not both:
        return
    labels = _labels(first, one, {uid for uid, _ in both}), _labels(second, two, {uid for _, uid in both})
    for a, b in both:
        match = match_labels(labels[0].get(a, []), labels[1].get(b, []), config)
        totals.add(match, shard=two.name, image_uid=b.hex())


def _labels(run: ComparedRun, commit: Commit, wanted: set[bytes]) -> dict[bytes, list[Label]]:
    """Labels of the wanted images of a shard."""
    found: dict[bytes, list[Label]] = {}
    for row in _instances(run.storage, commit):
        uid = uid_bytes(row["image_uid"])
        if uid in wanted:
            found.setdefault(uid, []).append(_label(row, run.places, commit))
    return found


def _label(row: Mapping[str, Any], places: Mapping[int, int], commit: Commit) -> Label:
    where = f"shard {commit.name}: instance {row['instance_uid']}"
    try:
        mask = rle_from_coco(row["segmentation"])
    except ShapeError as error:
        raise OutputError(f"{where}: {error}; label the shard again") from error
    return Label(
        place=place_of(row["category_id"], places, where),
        mask=mask,
        score=float(row["score"]),
        decision=row["decision"],
        calibrated=row["score_calibrated"],
    )


def _instances(storage: Storage, commit: Commit) -> Iterator[dict[str, Any]]:
    return committed_rows(storage, commit, "instances", _COLUMNS)
