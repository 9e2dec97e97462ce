"""COCO instances: `instances.json`, or a file a shard. Masks as RLE, exact, or as polygons.

Ids of images and annotations are unique over the whole export, so that files of shards can be joined. Fields that
COCO does not know (uids, captions, attribution, `neg_category_ids`, `score`) stand beside its own; its readers leave
them alone.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from ovsops.masks.polygons import mask_to_coco_polygons
from ovsops.masks.rle import Rle, rle_area, rle_to_mask
from pipelines.exporters.format import ExportImage, image_texts, region_rle, region_texts
from pipelines.exporters.options import ExportContext
from pipelines.writers.coco import CocoWriter, Licenses, coco_categories, shortest


class CocoFormat:
    """See `format.ExportFormat`."""

    merged_name = "instances.json"

    def __init__(self, context: ExportContext) -> None:
        self.context, self.report = context, context.report
        self.licenses = Licenses()
        self._num_annotations = 0
        self._stack = ExitStack()
        self._writer: CocoWriter | None = None
        if context.options.merged:
            self._writer = self._open(self.merged_name)

    def begin_shard(self, shard: str) -> None:
        """The next file, where each shard has one."""
        if not self.context.options.merged:
            self.finish()
            self._writer = self._open(f"{shard}.json")

    def add(self, image: ExportImage) -> None:
        """An image and its annotations."""
        assert self._writer is not None
        self._writer.add_image(self._image(image))
        for region in image.regions:
            self._num_annotations += 1
            self._writer.add_annotation(self._annotation(image, region, self._num_annotations))

    def finish(self) -> None:
        """Give the open file its name."""
        if self._writer is not None:
            self._writer.finish(self.licenses.to_coco())
            self.close()

    def close(self) -> None:
        """Drop the file that is not finished."""
        self._stack.close()
        self._writer = None

    def _open(self, name: str) -> CocoWriter:
        vocabulary = self.context.vocabulary
        info = {
            "description": f"Labelled by ovsops with the vocabulary {vocabulary.name}",
            "version": self.context.recipe_hash,
            "contributor": "",
            "url": "",
        }
        writer = CocoWriter(self.context.folder / name, info=info, categories=coco_categories(vocabulary))
        return self._stack.enter_context(writer)

    def _image(self, image: ExportImage) -> dict[str, Any]:
        texts = image_texts(image)
        coco: dict[str, Any] = {
            "id": image.number,
            "file_name": image.file_name,
            "width": image.row["width"],
            "height": image.row["height"],
        }
        if license_text := texts.pop("license", None):
            coco["license"] = self.licenses.id_of(license_text)
        if source := texts.pop("source_url", None):
            coco["coco_url"] = source
        if absent := texts.pop("verified_absent", None):
            coco["neg_category_ids"] = absent  # LVIS's word for "looked for, not there"
        return coco | texts

    def _annotation(self, image: ExportImage, region: Mapping[str, Any], number: int) -> dict[str, Any]:
        rle = region_rle(image, region)
        return {
            "id": number,
            "image_id": image.number,
            "category_id": region["category_id"],
            "bbox": [shortest(value) for value in region["bbox"]],
            "area": region["area"],
            "iscrowd": region["iscrowd"],
            "score": shortest(region["score"]),
            "instance_uid": region["instance_uid"],
            **region_texts(region),
            **self._segmentation(rle),
        }

    def _segmentation(self, rle: Rle) -> dict[str, Any]:
        self.report.lost["masks_empty"] += rle_area(rle) == 0
        if self.context.options.segmentation == "rle":
            return {"segmentation": rle.to_coco()}
        drawn = mask_to_coco_polygons(rle_to_mask(rle), self.context.options.polygons)
        if not drawn.rings:
            self.report.lost["masks_as_rle"] += 1
            return {"segmentation": rle.to_coco()}
        self.report.measure(drawn.iou)
        return {"segmentation": drawn.rings, "polygon_iou": round(drawn.iou, 6)}
