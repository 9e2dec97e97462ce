"""Truth from a COCO or LVIS file of instances. Axes: h w pixels."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from ovsops.errors import RowError
from ovsops.masks.rle import rle_to_mask
from ovsops.metrics.objects import TrueObjects
from pipelines.evaluation.classes import IGNORED, Classes
from pipelines.evaluation.labelled import LabelledImage
from pipelines.evaluation.truths import BAD_TRUTH, NO_TRUTH, TruthSource, of_size
from pipelines.truth.coco_instances import CocoImage, CocoInstances, CocoReading, read_coco_instances


@dataclass(frozen=True, kw_only=True)
class CocoInstancesTruth(TruthSource):
    """Objects of a file, matched by the name of the image file.

    The map shows them with the smaller on top. Pixels without an object are background where all categories are
    annotated (COCO), unknown where only some are (LVIS); without outlines all pixels are unknown.
    """

    instances: CocoInstances
    classes: Classes
    name: str
    has_masks: bool
    has_objects: bool = True

    @classmethod
    def open(cls, path: Path, reading: CocoReading) -> "CocoInstancesTruth":
        """Read a file. Raises `StorageError`."""
        instances = read_coco_instances(path, reading)
        has_background = instances.has_masks and not instances.is_federated
        return cls(
            instances=instances,
            classes=Classes.of_vocabulary(instances.vocabulary, has_background=has_background),
            name=path.name,
            has_masks=instances.has_masks,
        )

    def places(self, image: LabelledImage) -> Int32[np.ndarray, "h w"]:
        """Objects painted as a map of classes; crowds lie at the bottom."""
        found = self._image(image)
        truth = self._objects(image, found)
        places = np.full(found.size_hw, 0 if self.classes.has_background else IGNORED, np.int32)
        if truth.masks is not None and truth.areas is not None and truth.is_crowd is not None:
            for i in np.lexsort((-truth.areas, ~truth.is_crowd)).tolist():
                places[rle_to_mask(truth.masks[i])] = truth.labels[i]
        return of_size(places, image)

    def objects(self, image: LabelledImage) -> TrueObjects:
        """Objects with their outlines; what COCO calls a crowd is one."""
        return self._objects(image, self._image(image))

    def _image(self, image: LabelledImage) -> CocoImage:
        name = image.key.rsplit("/", 1)[-1]
        if name not in self.instances.images:
            raise RowError(NO_TRUTH, f"{image.where}: {self.name} has no image {name!r}")
        found = self.instances.images[name]
        if image.size_hw is not None and image.size_hw != found.size_hw:
            raise RowError(
                BAD_TRUTH,
                f"{image.where}: {self.name} says {found.size_hw[0]}x{found.size_hw[1]} pixels (h x w), the labelled"
                f" image has {image.size_hw[0]}x{image.size_hw[1]}; truth and labels must be of the same picture",
            )
        return found

    def _objects(self, image: LabelledImage, found: CocoImage) -> TrueObjects:
        """Labels as places."""
        try:
            truth = self.instances.objects(found)
        except RowError as error:
            raise RowError(BAD_TRUTH, f"{image.where}: {error}") from error
        place_of = self.classes.place_of
        absent = truth.verified_absent
        return replace(
            truth,
            labels=np.array([place_of(label) for label in truth.labels.tolist()], np.int64),
            verified_absent=None if absent is None else frozenset(map(place_of, absent)),
            not_exhaustive=frozenset(map(place_of, truth.not_exhaustive)),
        )
