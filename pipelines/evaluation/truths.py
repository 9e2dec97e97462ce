"""Where an image's truth comes from: the JSON of its own shard, other shards, or a data set's folders.

COCO and LVIS files of objects are in `coco_truth`.

Axes: h w pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int32

from ovsops.errors import ConfigError, OvsopsError, RowError
from ovsops.images.decode_config import DecodeConfig
from ovsops.masks.boxes import boxes_xywh_to_xyxy
from ovsops.metrics.objects import TrueObjects
from ovsops.metrics.segmentation import IGNORE
from ovsops.miniature.attributes import CLASS_IDS, NOUN_WORDS, class_of_thing
from ovsops.miniature.truth import SceneTruth, read_truth
from ovsops.text.vocabulary import Vocabulary
from pipelines.evaluation.classes import Classes, TruthClass
from pipelines.evaluation.labelled import LabelledImage
from pipelines.keys import folder_key
from pipelines.readers import ReaderConfig, read_shard
from pipelines.shards import Shard
from pipelines.storage import StorageOptions
from pipelines.truth.benchmarks import Benchmark
from pipelines.truth.layout import Split, TruthFiles, list_truth
from pipelines.truth.read import read_truth_image

NO_TRUTH = "E_NO_TRUTH"
"""No truth belongs to the image."""
BAD_TRUTH = "E_TRUTH"
"""Its truth cannot be read, or is of another size."""


class TruthSource(Protocol):
    """Gives the true class of every pixel of an image, and its true objects where it knows them."""

    name: str
    classes: Classes
    has_objects: bool = False
    """Whether objects are told apart; a map of classes alone does not say where one ends and the next begins."""
    has_masks: bool = True
    """Whether its objects have masks, not boxes alone."""

    def places(self, image: LabelledImage) -> Int32[np.ndarray, "h w"]:
        """Places of `classes`, -1 where the truth says nothing. Raises `RowError` where there is no usable truth."""

    def objects(self, image: LabelledImage) -> TrueObjects:
        """Objects of the image; labels are places of `classes`.

        Raises `RowError` where there is no usable truth, `ConfigError` where this source has no objects.
        """
        raise ConfigError(f"the truth {self.name} has no objects: ask `has_objects` first")


WORLD_CLASSES = Classes(
    classes=tuple(
        TruthClass(id=i, name=name, kind="thing" if name in NOUN_WORDS else "stuff")
        for name, i in CLASS_IDS.items()
    ),
    has_background=False,
)
"""Every pixel of the miniature world belongs to a noun or to stuff."""


class WorldTruth(TruthSource):
    """Truth of the miniature world, from the JSON beside each scene as the label job kept it."""

    name = "world"
    classes = WORLD_CLASSES
    has_objects = True

    def __init__(self, vocabulary: Vocabulary | None = None) -> None:
        """`vocabulary`: objects are its classes, by noun or by colour and noun; the map keeps the world's own."""
        if vocabulary is not None:
            self.classes = Classes.of_vocabulary(vocabulary, has_background=False)
        self._last: tuple[str, SceneTruth] | None = None

    def places(self, image: LabelledImage) -> Int32[np.ndarray, "h w"]:
        """Places of the scene's semantic map."""
        semantic = self._scene(image).semantic
        return of_size(WORLD_CLASSES.places(semantic.astype(np.int32)), image)

    def objects(self, image: LabelledImage) -> TrueObjects:
        """Things of the scene: tight boxes and masks of what is visible. All classes are exhaustively marked."""
        place = {name: place for place, name in enumerate(self.classes.names) if place}
        named = [(class_of_thing(t.colour, t.noun, place), t) for t in self._scene(image).things]
        labels = [place[name] for name, _ in named if name is not None]
        things = [thing for name, thing in named if name is not None]
        xywh = np.array([thing.box_xywh for thing in things], np.float64).reshape(-1, 4)
        return TrueObjects(
            labels=np.array(labels, np.int64),
            boxes_xyxy=boxes_xywh_to_xyxy(xywh),
            masks=tuple(thing.rle for thing in things),
            areas=np.array([thing.area for thing in things], np.float64),
        )

    def sidecar(self, image: LabelledImage) -> str | None:
        """The truth's JSON."""
        return image.sidecar

    def _scene(self, image: LabelledImage) -> SceneTruth:
        """The scene of an image; the last one is kept, because map and objects are asked for one after the other."""
        text = self.sidecar(image)
        if text is None:
            raise RowError(NO_TRUTH, f"{image.where}: there is no truth JSON beside the image")
        if self._last is None or self._last[0] != text:
            try:
                self._last = text, read_truth(text)
            except RowError as error:
                raise RowError(BAD_TRUTH, f"{image.where}: {error}") from error
        return self._last[1]


class WorldShardsTruth(WorldTruth):
    """The same from shards that hold the truth apart, by shard name and key; one shard in memory at a time."""

    def __init__(
        self,
        shards: Sequence[Shard],
        reader: ReaderConfig,
        options: StorageOptions,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        super().__init__(vocabulary)
        self._shards = {shard.name: shard for shard in shards}
        self._reader, self._options = reader, options
        self._name, self._texts = "", dict[str, str | None]()

    def sidecar(self, image: LabelledImage) -> str | None:
        """The truth's JSON, from the shard of the same name."""
        if image.shard not in self._shards:
            raise RowError(
                NO_TRUTH,
                f"{image.where}: truth.shards have no shard of this name (they have"
                f" {', '.join(list(self._shards)[:3])}, ...)",
            )
        if image.shard != self._name:
            self._name, self._texts = image.shard, self._read_shard(self._shards[image.shard])
        return self._texts.get(image.key)

    def _read_shard(self, shard: Shard) -> dict[str, str | None]:
        texts: dict[str, str | None] = {}
        for table in read_shard(shard, self._reader, self._options):
            for row in table.select(["key", "sidecar"]).to_pylist():
                if row["key"] is not None:  # the closing row has none; a key that comes twice is no truth
                    texts[row["key"]] = None if row["key"] in texts else row["sidecar"]
        return texts


@dataclass(frozen=True, kw_only=True)
class BenchmarkTruth(TruthSource):
    """Truth of a published data set in its own folders, matched by the name of the image file."""

    benchmark: Benchmark
    files: Mapping[str, TruthFiles]
    """By the image's file name without folder and extension."""
    decode: DecodeConfig
    classes: Classes
    name: str

    @classmethod
    def open(cls, benchmark: Benchmark, root: Path, split: Split, decode: DecodeConfig) -> "BenchmarkTruth":
        """List a data set. Raises `StorageError` where its folders are not as published."""
        found = list_truth(benchmark.layout, benchmark.encodings, root, split)
        return cls(
            benchmark=benchmark,
            files={folder_key(files.image_path.name): files for files in found},
            decode=decode,
            classes=Classes.of_vocabulary(benchmark.vocabulary, has_background=benchmark.has_background),
            name=benchmark.name,
        )

    def places(self, image: LabelledImage) -> Int32[np.ndarray, "h w"]:
        """Places of the label map."""
        name = image.key.rsplit("/", 1)[-1]
        if name not in self.files:
            raise RowError(NO_TRUTH, f"{image.where}: the split of {self.name} has no image {name!r}")
        try:
            labels = read_truth_image(self.files[name], config=self.decode).labels
        except OvsopsError as error:
            raise RowError(BAD_TRUTH, f"{image.where}: {error}") from error
        places = self.classes.places(labels.astype(np.int32), ignore=IGNORE, where=image.where)
        return of_size(places, image)


def of_size(places: Int32[np.ndarray, "h w"], image: LabelledImage) -> Int32[np.ndarray, "h w"]:
    """A map, if it is of the image's size. Raises `RowError`."""
    if image.size_hw is not None and places.shape != image.size_hw:
        raise RowError(
            BAD_TRUTH,
            f"{image.where}: the truth is {places.shape[0]}x{places.shape[1]} pixels (h x w), the labelled image"
            f" {image.size_hw[0]}x{image.size_hw[1]}; truth and labels must be of the same picture",
        )
    return places
