"""FiftyOne, in its COCO form: `labels.json` and `data/`, imported as `fiftyone.types.COCODetectionDataset`.

With `label_types=["segmentations"]` masks come as instance masks. FiftyOne keeps the names of classes, not their
ids, so each region says its own in the attribute `class_id`; scores become `confidence`, texts become attributes.
"""

from collections.abc import Mapping
from typing import Any

from ovsops.masks.rle import rle_box_xywh
from pipelines.exporters.coco import CocoFormat
from pipelines.exporters.format import ExportImage, region_rle

LABELS = "labels.json"


class FiftyOneFormat(CocoFormat):
    """See `format.ExportFormat`."""

    merged_name = LABELS

    def begin_shard(self, shard: str) -> None:
        """Nothing: there is one file."""

    def _image(self, image: ExportImage) -> dict[str, Any]:
        return super()._image(image) | {"file_name": image.file_name.removeprefix("data/")}

    def _annotation(self, image: ExportImage, region: Mapping[str, Any], number: int) -> dict[str, Any]:
        box = list(rle_box_xywh(region_rle(image, region)))  # a mask is cut to its box: it must be tight
        own = {"bbox": box, "attributes": {"class_id": region["category_id"]}}
        return super()._annotation(image, region, number) | own
