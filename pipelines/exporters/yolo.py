"""YOLO segmentation: `images/train/`, `labels/train/` with one polygon a region, `data.yaml`.

YOLO counts classes from 0 without gaps, so the index of a class is its category id less 1, whatever else is in the
vocabulary: ids never move, so indexes never do. Between ids that are not dense stand names that no region has.
What one polygon cannot say of a mask is measured (`yolo_polygon`). Licences and captions are in `images.jsonl`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ovsops.errors import ConfigError
from pipelines.exporters.format import ExportImage, region_mask
from pipelines.exporters.options import ExportContext
from pipelines.exporters.yolo_polygon import mask_to_yolo_polygon
from pipelines.writers.whole_files import write_whole

DATA = "data.yaml"
MAX_INDEXES = 10_000
"""Names in `data.yaml` at most: a detection head has one output each."""
_TEXTS = ("prompt", "caption_short", "caption_long", "verdict")


class YoloSegFormat:
    """See `format.ExportFormat`."""

    def __init__(self, context: ExportContext) -> None:
        self.context, self.report = context, context.report
        self.indexes = class_indexes(context.vocabulary.ids)
        self.labels = context.folder / "labels" / "train"
        self.labels.mkdir(parents=True)
        context.report.facts["index_by_category_id"] = {
            str(category_id): index for category_id, index in self.indexes.items()
        }

    def begin_shard(self, shard: str) -> None:
        """Nothing: a label file belongs to an image."""

    def add(self, image: ExportImage) -> None:
        """The label file of an image; an empty one says that nothing was found."""
        lines = [line for region in image.regions if (line := self._line(image, region)) is not None]
        path = self.labels / f"{Path(image.file_name).stem}.txt"
        path.write_text("".join(f"{line}\n" for line in lines), "ascii")

    def finish(self) -> None:
        """`data.yaml`."""
        names = {index: self.context.names[category_id] for category_id, index in self.indexes.items()}
        gaps = [index for index in range(max(names, default=-1)) if index not in names]
        self.report.lost["names_of_gaps"] += len(gaps)
        document = {
            "path": ".",
            "train": "images/train",
            "val": "images/train",
            "names": dict(sorted((names | {index: f"unused-{index + 1}" for index in gaps}).items())),
        }
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        head = "# Made by ovsops. The index of a class is its category id less 1. All images are in train.\n"
        write_whole(self.context.folder / DATA, (head + text).encode())

    def close(self) -> None:
        """Nothing is open."""

    def _line(self, image: ExportImage, region: Mapping[str, Any]) -> str | None:
        lost = self.report.lost
        polygon = mask_to_yolo_polygon(region_mask(image, region))
        if polygon is None:
            lost["masks_empty_left_out"] += 1
            return None
        self.report.measure(polygon.iou)
        lost["masks_of_parts"] += polygon.num_parts > 1
        lost["masks_with_holes"] += polygon.num_holes > 0
        lost["scores"] += 1
        lost["captions"] += any(region[name] for name in _TEXTS)
        # A quarter of a pixel more than the index: readers that round and readers that cut off both get the index.
        shares = (polygon.corners + 0.25) / [image.row["width"], image.row["height"]]
        return f"{self.indexes[region['category_id']]} " + " ".join(
            f"{share:.6f}" for share in shares.ravel()
        )


def class_indexes(category_ids: Sequence[int]) -> dict[int, int]:
    """YOLO's index of each category id, in order. ConfigError where ids are too large to be counted through."""
    if max(category_ids, default=0) > MAX_INDEXES:
        raise ConfigError(
            f"yolo-seg: category id {max(category_ids)} would be index {max(category_ids) - 1} of as many names; the"
            f" largest id may be {MAX_INDEXES:,}. Export coco, which takes any id"
        )
    return {category_id: category_id - 1 for category_id in sorted(category_ids)}
