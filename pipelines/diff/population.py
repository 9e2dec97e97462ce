"""What a run's labels look like as a whole: counts of features over all images, and by image for a sample.

Axes: I images sampled, K fine cells. One pass over the tables; in memory are the totals and the sample.

| feature | what is counted | cells |
|---|---|---|
| class_mix | labels | classes |
| class_area | share of their image that labels cover | classes |
| score, score_calibrated | labels | 0 to 1 in steps of 0.001, put into `num_bins` |
| area | labels | share of the image, 100 cells a decade, put into `num_bins` |
| labels_per_image | labelled images | number of labels, put into `num_bins` |
| decision | labels | accept, review, none |
| outcome | images | labelled, failed E_..., skipped S_... |
| image_side | images whose size is known | square root of width times height, 16 cells an octave, put into `num_bins` |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from jaxtyping import Float64, Int64, Num

from ovsops.errors import OutputError
from pipelines.diff.classes import JoinedClasses, place_of
from pipelines.diff.index import ImageIndex, uid_bytes
from pipelines.diff.labels import ComparedRun
from pipelines.export import committed_rows

DECISIONS = ("accept", "review", "none")
SCORE_CELLS, AREA_CELLS, COUNT_CELLS, SIDE_CELLS = 1000, 700, 1001, 256
_COLUMNS = ["image_uid", "instance_uid", "category_id", "area", "score", "score_calibrated", "decision"]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One thing that may drift."""

    name: str
    num_cells: int
    is_ordered: bool
    """Whether neighbouring cells may share a bin."""
    of_data: bool = False
    """Whether it says something of the pictures alone, not of their labels."""
    value_of: Callable[[np.ndarray], np.ndarray] = field(default=lambda cells: cells.astype(np.float64))
    """The value in the middle of a cell, for medians."""


def features_of(num_classes: int, num_outcomes: int) -> dict[str, Feature]:
    """All features, by name."""
    scores: Callable[[np.ndarray], np.ndarray] = lambda cells: (cells + 0.5) / SCORE_CELLS  # noqa: E731
    found = (
        Feature(name="class_mix", num_cells=num_classes, is_ordered=False),
        Feature(name="class_area", num_cells=num_classes, is_ordered=False),
        Feature(name="score", num_cells=SCORE_CELLS, is_ordered=True, value_of=scores),
        Feature(name="score_calibrated", num_cells=SCORE_CELLS, is_ordered=True, value_of=scores),
        Feature(
            name="area",
            num_cells=AREA_CELLS,
            is_ordered=True,
            value_of=lambda cells: 10 ** ((cells + 0.5) / 100 - AREA_CELLS / 100),
        ),
        Feature(name="labels_per_image", num_cells=COUNT_CELLS, is_ordered=True),
        Feature(name="decision", num_cells=len(DECISIONS), is_ordered=False),
        Feature(name="outcome", num_cells=num_outcomes, is_ordered=False),
        Feature(
            name="image_side",
            num_cells=SIDE_CELLS,
            is_ordered=True,
            of_data=True,
            value_of=lambda cells: 2 ** ((cells + 0.5) / 16),
        ),
    )
    return {feature.name: feature for feature in found}


@dataclass(kw_only=True, eq=False)
class Population:
    """Counts of one run."""

    sample: Int64[np.ndarray, " I"]
    """Places of the sampled images in the run's index, rising."""
    totals: dict[str, Float64[np.ndarray, " K"]]
    sampled: dict[str, np.ndarray]
    """I x K, float32, of the sampled images."""
    num_images: int
    num_failed: int

    def add(
        self, name: str, images: np.ndarray, cells: np.ndarray, amounts: np.ndarray | float = 1.0
    ) -> None:
        """Count; `images` are places in the sample, -1 for images outside it."""
        np.add.at(self.totals[name], cells, amounts)
        inside = images >= 0
        weights = amounts if isinstance(amounts, float) else amounts[inside]
        np.add.at(self.sampled[name], (images[inside], cells[inside]), weights)


def sample_images(index: ImageIndex, most: int, seed: int) -> Int64[np.ndarray, " I"]:
    """Places of at most `most` images. Content decides, so that two runs choose the same images alike."""
    # Content hashes are uniform, and so are they after XOR with a constant.
    salt = np.frombuffer(blake2b(f"ovsops diff {seed}".encode(), digest_size=8).digest(), "<u8")[0]
    order = np.argsort(index.identities["high"] ^ salt, kind="stable")[:most]
    return np.sort(order).astype(np.int64)


def measure(
    run: ComparedRun, classes: JoinedClasses, outcomes: Sequence[str], *, max_images: int, seed: int
) -> Population:
    """Count all features of a run. `outcomes` are those of both runs."""
    index = run.index
    features = features_of(len(classes), len(outcomes))
    sample = sample_images(index, max_images, seed)
    population = Population(
        sample=sample,
        totals={name: np.zeros(each.num_cells) for name, each in features.items()},
        sampled={
            name: np.zeros((len(sample), each.num_cells), np.float32) for name, each in features.items()
        },
        num_images=len(index),
        num_failed=int(index.is_failed.sum()),
    )
    ordinals = np.full(len(index), -1, np.int64)
    ordinals[sample] = np.arange(len(sample))
    joint = np.array([outcomes.index(name) for name in index.outcome_names], np.int64)
    population.add("outcome", ordinals, joint[index.outcomes])
    has_side = index.sides > 0
    population.add("image_side", ordinals[has_side], side_cells(index.sides[has_side]))
    starts = np.searchsorted(index.commits, np.arange(len(run.commits) + 1))
    for place in range(len(run.commits)):
        _add_shard(run, place, slice(int(starts[place]), int(starts[place + 1])), ordinals, population)
    return population


def _add_shard(
    run: ComparedRun, place: int, images: slice, ordinals: np.ndarray, population: Population
) -> None:
    commit, index = run.commits[place], run.index
    rows_of = {uid.tobytes(): images.start + n for n, uid in enumerate(index.uids[images])}
    rows: list[int] = []
    columns: dict[str, list[float]] = {
        name: [] for name in ("class", "area", "score", "calibrated", "decision")
    }
    for row in committed_rows(run.storage, commit, "instances", _COLUMNS):
        where = f"shard {commit.name}: instance {row['instance_uid']}"
        owner = rows_of.get(uid_bytes(row["image_uid"]))
        if owner is None:
            raise OutputError(
                f"{where} belongs to no image of the shard; the tables were changed: label the shard again"
            )
        rows.append(owner)
        columns["class"].append(place_of(row["category_id"], run.places, where))
        columns["area"].append(row["area"])
        columns["score"].append(row["score"])
        calibrated = row["score_calibrated"]
        columns["calibrated"].append(np.nan if calibrated is None else calibrated)
        columns["decision"].append(DECISIONS.index(row["decision"] or "none"))
    found = np.array(rows, np.int64)
    owners = ordinals[found] if len(found) else found
    kinds = np.array(columns["class"], np.int64)
    shares = np.array(columns["area"]) / np.maximum(index.sides[found].astype(np.float64) ** 2, 1.0)
    population.add("class_mix", owners, kinds)
    population.add("class_area", owners, kinds, shares)
    population.add("area", owners, area_cells(shares))
    population.add("score", owners, score_cells(np.array(columns["score"])))
    calibrated_scores = np.array(columns["calibrated"])
    known = ~np.isnan(calibrated_scores)
    population.add("score_calibrated", owners[known], score_cells(calibrated_scores[known]))
    population.add("decision", owners, np.array(columns["decision"], np.int64))
    per_image = np.bincount(found - images.start, minlength=images.stop - images.start)
    labelled = index.is_labelled[images].nonzero()[0]
    population.add(
        "labels_per_image",
        ordinals[images.start + labelled],
        np.minimum(per_image[labelled], COUNT_CELLS - 1),
    )


def score_cells(scores: Num[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Cells of scores; what lies outside [0, 1] goes to the end."""
    return np.clip(scores * SCORE_CELLS, 0, SCORE_CELLS - 1).astype(np.int64)


def area_cells(shares: Num[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Cells of shares of an image, from 1e-7 to 1."""
    log = np.log10(np.clip(shares, 1e-7, 1.0))
    return np.clip((log * 100 + AREA_CELLS).astype(np.int64), 0, AREA_CELLS - 1)


def side_cells(sides: Num[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Cells of sides in pixels, from 1 to 65,536."""
    log = np.log2(np.clip(sides.astype(np.float64), 1.0, 2.0**16))
    return np.clip((log * 16).astype(np.int64), 0, SIDE_CELLS - 1)
