"""Counts of several runs over the same images, taken image by image.

Memory does not grow with the number of images but for the outcomes of found objects, which AP needs all together: some
375 bytes an instance and run, at most `ObjectsConfig.max_found` of them.
"""

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
from pipelines.evaluation.counting import CountConfig, Counter, ImageCounts
from pipelines.evaluation.labelled import LabelledImage, labelled_images
from pipelines.evaluation.object_counts import (
    ObjectCounter,
    ObjectsConfig,
    RunObjects,
    found_instances,
    things_alone,
)
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
    contested: int = 0
    """Pixels that more than one region covers; the best score has them in the map."""
    objects: RunObjects | None = None
    not_labelled: dict[str, str] = field(default_factory=dict)
    """Skipped and failed images that have truth, and why: all their pixels count as wrong."""
    _worst: list[tuple[float, int, LabelledImage]] = field(default_factory=list)
    first: list[LabelledImage] = field(default_factory=list)

    def add(self, image: LabelledImage, counts: ImageCounts) -> None:
        """Note the row of an image that was counted."""
        mean_iou = counts.mean_iou
        self.blocks.add(counts.state)
        self.confusion += counts.confusion
        self.contested += counts.num_contested
        self.statuses[image.status] += 1
        self.regions += len(image.regions)
        if image.status != "labelled":
            if len(self.not_labelled) < MAX_NAMED:
                self.not_labelled[image.where] = image.error
        elif self.num_worst and not math.isnan(mean_iou):
            entry = (-mean_iou, 1 - self.blocks.num_images, image)
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
    object_counter: ObjectCounter | None = None
    """None where instances are not counted."""
    why_no_objects: str = ""
    """Why instance figures are left out; empty where they are not."""
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
    objects: ObjectsConfig,
    num_worst: int,
    num_first: int,
) -> Tally:
    """Count every image of every run against its truth.

    A row that failed or was skipped is counted as unlabelled everywhere: wrong wherever a class is true, and its
    objects as missed. Raises `OutputError` where runs hold different images or regions that cannot be,
    `ConfigError` where no image has truth, and where instances are asked for that the truth does not have.
    """
    counter = Counter(truth.classes, config)
    why_no_objects = _why_no_objects(truth, objects)
    if why_no_objects and objects.compute == "on":
        raise ConfigError(
            f"objects.compute is on, but {why_no_objects}; set it to auto, or name another truth"
        )
    object_counter = (
        None
        if why_no_objects
        else ObjectCounter(truth.classes, objects, num_bins=config.num_bins, has_masks=truth.has_masks)
    )
    tally = Tally(
        counter=counter,
        runs={name: _run_tally(counter, object_counter, num_worst=num_worst) for name in runs},
        object_counter=object_counter,
        why_no_objects=why_no_objects,
    )
    for images in _in_step(runs):
        _count(tally, images, truth, num_first=num_first)
    if tally.num_images == 0:
        examples = "; ".join(list(tally.without_truth.values())[:2]) or "the runs hold no image"
        raise ConfigError(f"truth {truth.name}: there is nothing to count: {examples}")
    found = [run.objects.num_found for run in tally.runs.values() if run.objects is not None]
    if found and not any(found) and objects.compute != "on":
        tally.object_counter, tally.why_no_objects = None, "no run has an instance of a thing"
    return tally


def _why_no_objects(truth: TruthSource, config: ObjectsConfig) -> str:
    if config.compute == "off":
        return "the recipe says so (objects.compute is off)"
    if not truth.has_objects:
        return f"the truth {truth.name} is a map of classes, which does not tell objects apart"
    if not truth.classes.of_kind("thing"):
        return f"the truth {truth.name} has no class that is a thing"
    return ""


def _run_tally(counter: Counter, object_counter: ObjectCounter | None, *, num_worst: int) -> RunTally:
    places = counter.classes.num_places
    return RunTally(
        blocks=Blocks(counter.layout.size),
        confusion=np.zeros((places, places), np.int64),
        num_worst=num_worst,
        objects=None
        if object_counter is None
        else RunObjects(blocks=Blocks(object_counter.layout.size), max_found=object_counter.config.max_found),
    )


def _count(tally: Tally, images: Mapping[str, LabelledImage], truth: TruthSource, *, num_first: int) -> None:
    any_image = next((i for i in images.values() if i.size_hw is not None), next(iter(images.values())))
    try:
        places = truth.places(any_image)
        objects = None
        if (object_counter := tally.object_counter) is not None:
            objects = things_alone(truth.objects(any_image), object_counter.things)
    except RowError as error:
        tally.num_without_truth += 1
        if len(tally.without_truth) < MAX_NAMED:
            tally.without_truth[any_image.where] = f"{error.code}: {error}"
        return
    ceiling = tally.counter.ceiling(places)
    for name, image in images.items():
        run = tally.runs[name]
        counts = tally.counter.count(image, places, ceiling)
        run.add(image, counts)
        if object_counter is not None and objects is not None and run.objects is not None:
            run.objects.add(image, object_counter, found_instances(image, truth.classes), objects)
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
