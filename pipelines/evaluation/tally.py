"""Counts of several runs over the same images, taken image by image. Memory does not grow with their number."""

import heapq
import math
from collections import Counter as Tallies
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
from jaxtyping import Int64

from ovsops.errors import ConfigError, OutputError, RowError
from pipelines.evaluation.blocks import Blocks
from pipelines.evaluation.counting import CountConfig, Counter
from pipelines.evaluation.labelled import LabelledImage, labelled_images
from pipelines.evaluation.truths import TruthSource
from pipelines.storage import Storage

MAX_NAMED = 1000
"""Images that are named of each kind of trouble; all are counted."""


@dataclass(kw_only=True)
class RunTally:
    """What is known of one run so far."""

    blocks: Blocks
    confusion: Int64[np.ndarray, "C C"]
    num_worst: int
    statuses: Tallies[str] = field(default_factory=Tallies)
    regions: int = 0
    not_labelled: dict[str, str] = field(default_factory=dict)
    """Skipped and failed images that have truth, and why: all their pixels count as wrong."""
    _worst: list[tuple[float, int, LabelledImage]] = field(default_factory=list)
    first: list[LabelledImage] = field(default_factory=list)

    def add(self, image: LabelledImage, mean_iou: float) -> None:
        """Note the row of an image that was counted."""
        self.statuses[image.status] += 1
        self.regions += len(image.regions)
        if image.status != "labelled":
            if len(self.not_labelled) < MAX_NAMED:
                self.not_labelled[image.where] = image.error
        elif self.num_worst and not math.isnan(mean_iou):
            entry = (-mean_iou, -self.blocks.num_images, image)
            if len(self._worst) < self.num_worst:
                heapq.heappush(self._worst, entry)
            else:
                heapq.heappushpop(self._worst, entry)

    @property
    def worst(self) -> list[tuple[float, LabelledImage]]:
        """Labelled images with the lowest mIoU of their own, the worst first."""
        return [(-negative, image) for negative, _, image in sorted(self._worst, reverse=True)]


@dataclass(kw_only=True)
class Tally:
    """All runs, and the images that could not be counted for any of them."""

    counter: Counter
    runs: Mapping[str, RunTally]
    without_truth: dict[str, str] = field(default_factory=dict)
    num_without_truth: int = 0

    @property
    def num_images(self) -> int:
        """Images that were counted."""
        return next(iter(self.runs.values())).blocks.num_images


def tally_runs(
    runs: Mapping[str, Storage],
    truth: TruthSource,
    config: CountConfig,
    *,
    num_worst: int,
    num_first: int,
) -> Tally:
    """Count every image of every run against its truth.

    A row that failed or was skipped is counted as unlabelled everywhere: wrong wherever a class is true. Raises
    `OutputError` where runs hold different images or labels are no map, `ConfigError` where no image has truth.
    """
    counter = Counter(truth.classes, config)
    places = truth.classes.num_places
    tally = Tally(
        counter=counter,
        runs={
            name: RunTally(
                blocks=Blocks(counter.layout.size),
                confusion=np.zeros((places, places), np.int64),
                num_worst=num_worst,
            )
            for name in runs
        },
    )
    for images in _in_step(runs):
        _count(tally, images, truth, num_first=num_first)
    if tally.num_images == 0:
        examples = "; ".join(list(tally.without_truth.values())[:2]) or "the runs hold no image"
        raise ConfigError(f"truth {truth.name}: there is nothing to count: {examples}")
    return tally


def _count(tally: Tally, images: Mapping[str, LabelledImage], truth: TruthSource, *, num_first: int) -> None:
    any_image = next((i for i in images.values() if i.size_hw is not None), next(iter(images.values())))
    try:
        places = truth.places(any_image)
    except RowError as error:
        tally.num_without_truth += 1
        if len(tally.without_truth) < MAX_NAMED:
            tally.without_truth[any_image.where] = f"{error.code}: {error}"
        return
    ceiling = tally.counter.ceiling(places)
    for name, image in images.items():
        run = tally.runs[name]
        counts = tally.counter.count(image, places, ceiling)
        run.add(image, counts.mean_iou)
        run.blocks.add(counts.state)
        run.confusion += counts.confusion
        if len(run.first) < num_first and image.status == "labelled":
            run.first.append(image)


def _in_step(runs: Mapping[str, Storage]) -> Iterator[dict[str, LabelledImage]]:
    """The same image of every run. Raises `OutputError` where they do not hold the same ones."""
    streams = [labelled_images(storage) for storage in runs.values()]
    for images in zip_longest(*streams):
        if len({None if image is None else image.identity for image in images}) > 1:
            found = ", ".join(
                f"{name}: {'no more images' if image is None else image.where}"
                for name, image in zip(runs, images, strict=True)
            )
            raise OutputError(
                f"the runs were not made from the same images ({found}); compare runs over the same shards, finished"
                " ones, or evaluate each alone"
            )
        yield dict(zip(runs, images, strict=True))
