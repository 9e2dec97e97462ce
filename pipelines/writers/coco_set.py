"""A training set as COCO: a box, an RLE, an expression and negatives an annotation; ids unique over the whole set.

Files are `annotations/instances_SPLIT-STEM-00000.json`; images lie below the set's folder
(`whole_files.ImageFolder`). Regions without a mask have no `segmentation`, and pycocotools reads their boxes.
"""

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ovsops.errors import ConfigError
from ovsops.masks.rle import rle_area, rle_box_xywh
from pipelines.training_sets.record import Split, TrainingRegion, TrainingSample
from pipelines.writers.coco import CocoWriter, Licenses, shortest
from pipelines.writers.whole_files import DEFAULT_FILE_BYTES, WrittenFile, file_pattern, image_path, numbered

FORMAT = "coco"


class CocoSetWriter:
    """COCO files of one split; see `whole_files.SetWriter`.

    `first_image_id` and `first_annotation_id` go on where another writer of the set stopped.
    """

    def __init__(
        self,
        folder: Path,
        split: Split,
        *,
        categories: list[dict[str, Any]],
        info: Mapping[str, Any],
        stem: str | None = None,
        max_file_bytes: int = DEFAULT_FILE_BYTES,
        first_image_id: int = 1,
        first_annotation_id: int = 1,
    ) -> None:
        """`categories` as `coco_categories` gives them."""
        if max_file_bytes < 1 or min(first_image_id, first_annotation_id) < 1:
            raise ConfigError("max_file_bytes, first_image_id and first_annotation_id are at least 1")
        self.folder, self.split, self.categories, self.info = folder, split, categories, info
        self.pattern = file_pattern("annotations/instances_SPLIT-STEM-*.json", split, stem)
        self.max_file_bytes = max_file_bytes
        self.next_image_id, self.next_annotation_id = first_image_id, first_annotation_id
        self._written: list[WrittenFile] = []
        self._stack = ExitStack()
        self._writer: CocoWriter | None = None

    def __enter__(self) -> Self:
        return self

    def add(self, sample: TrainingSample) -> None:
        """Append an image and its annotations."""
        if sample.split != self.split:
            raise ConfigError(
                f"image {sample.image_uid} is of split {sample.split}, this writer's is {self.split}"
            )
        writer = self._open()
        image_id = self.next_image_id
        self.next_image_id += 1
        writer.add_image(self._image(sample, image_id))
        for region in sample.regions:
            writer.add_annotation(_annotation(region, sample, image_id, self.next_annotation_id))
            self.next_annotation_id += 1
        self._num_images += 1
        self._num_regions += len(sample.regions)
        if writer.num_bytes >= self.max_file_bytes:
            self._publish()

    def finish(self) -> list[WrittenFile]:
        """Close the last file; all files."""
        self._publish()
        return self._written

    def _open(self) -> CocoWriter:
        if self._writer is None:
            path = self.folder / numbered(self.pattern, len(self._written))
            writer = CocoWriter(path, info=self.info, categories=self.categories)
            self._writer = self._stack.enter_context(writer)
            self._licenses = Licenses()
            self._num_images = self._num_regions = 0
        return self._writer

    def _publish(self) -> None:
        if self._writer is None:
            return
        self._writer.finish(self._licenses.to_coco())
        self._stack.close()
        path, self._writer = self._writer.path, None
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self._written.append(
            WrittenFile(
                path=path.relative_to(self.folder).as_posix(),
                split=self.split,
                num_images=self._num_images,
                num_regions=self._num_regions,
                num_bytes=path.stat().st_size,
                sha256=sha256,
            )
        )

    def _image(self, sample: TrainingSample, image_id: int) -> dict[str, Any]:
        image = {
            "id": image_id,
            "file_name": image_path(sample),
            "width": sample.width,
            "height": sample.height,
            "key": sample.key,
            "sha256": sample.sha256,
            "image_uid": sample.image_uid,
            "caption": sample.caption_long,
            "short_caption": sample.caption_short,
            "language": sample.language,
            "split": sample.split,
            "group": sample.group,
        }
        if sample.license:
            image["license"] = self._licenses.id_of(sample.license)
        if sample.source_url:
            image["coco_url"] = sample.source_url
        return image

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()


def _annotation(
    region: TrainingRegion, sample: TrainingSample, image_id: int, annotation_id: int
) -> dict[str, Any]:
    x1, y1, x2, y2 = region.box
    if region.segmentation is not None:  # the mask's own box, in whole pixels
        box, area = list(rle_box_xywh(region.segmentation)), float(rle_area(region.segmentation))
    else:
        box = [
            round(value, 3)
            for value in (
                x1 * sample.width,
                y1 * sample.height,
                (x2 - x1) * sample.width,
                (y2 - y1) * sample.height,
            )
        ]
        area = round(box[2] * box[3], 3)
    annotation: dict[str, Any] = {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": region.category_id,
        "bbox": box,
        "area": area,
        "iscrowd": 0,
        "score": shortest(region.score),
        "region_uid": region.region_uid,
        "caption": region.short_expr,
        "long_caption": region.long_expr,
    }
    if region.segmentation is not None:
        annotation["segmentation"] = region.segmentation.to_coco()
    if region.negatives is not None:
        annotation["negatives"] = list(region.negatives.texts)
        annotation["negative_types"] = list(region.negatives.types)
        if region.negatives.sources is not None:
            annotation["negative_sources"] = list(region.negatives.sources)
    return annotation
