"""Label Studio: `tasks-00000.json`, ... with predictions to be imported, and `label_config.xml` to be pasted.

Each region is a brush with its mask and a rectangle. Category ids stand in the labels of the config
(`category="17"`) and in the `meta` of each brush.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from pipelines.exporters.format import ExportImage, image_texts, region_mask, region_texts
from pipelines.exporters.labelstudio_rle import mask_to_brush_rle
from pipelines.exporters.options import ExportContext
from pipelines.exporters.xml_text import xml_text
from pipelines.report.overlay import category_colour
from pipelines.writers.coco import shortest
from pipelines.writers.whole_files import WholeFile, numbered, write_whole

CONFIG = "label_config.xml"
TASKS = "tasks-*.json"


class LabelStudioFormat:
    """See `format.ExportFormat`."""

    def __init__(self, context: ExportContext) -> None:
        self.context, self.report, self.names = context, context.report, context.names
        self._num_files = self._num_tasks = 0
        self._file: WholeFile | None = None

    def begin_shard(self, shard: str) -> None:
        """Nothing: files are cut by the number of tasks."""

    def add(self, image: ExportImage) -> None:
        """One task."""
        if self._file is None:
            self._file = WholeFile(self.context.folder / numbered(TASKS, self._num_files))
            self._num_tasks = 0
        text = json.dumps(self._task(image), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        self._file.write(("[\n" if self._num_tasks == 0 else ",\n").encode() + text.encode())
        self._num_tasks += 1
        if self._num_tasks >= self.context.options.max_tasks:
            self._publish()

    def finish(self) -> None:
        """The last file, and the config."""
        self._publish()
        write_whole(self.context.folder / CONFIG, self._config().encode())

    def close(self) -> None:
        """Drop the file that is not finished."""
        if self._file is not None:
            self._file.discard()

    def _publish(self) -> None:
        if self._file is not None:
            self._file.write(b"\n]\n")
            self._file.publish()
            self._file = None
            self._num_files += 1

    def _task(self, image: ExportImage) -> dict[str, Any]:
        results = [result for region in image.regions for result in self._results(image, region)]
        scores = [shortest(region["score"]) for region in image.regions]
        prediction: dict[str, Any] = {
            "model_version": f"ovsops-{self.context.recipe_hash[:12]}",
            "result": results,
        }
        if scores:
            prediction["score"] = round(sum(scores) / len(scores), 6)
        address = self.context.options.image_prefix + quote(image.file_name)
        return {"data": {"image": address} | image_texts(image), "predictions": [prediction]}

    def _results(self, image: ExportImage, region: Mapping[str, Any]) -> list[dict[str, Any]]:
        name, uid = self.names[region["category_id"]], region["instance_uid"]
        width, height = image.row["width"], image.row["height"]
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        common = size | {"to_name": "image", "score": shortest(region["score"])}
        texts = region_texts(region)
        meta: dict[str, Any] = {"category_id": region["category_id"], "instance_uid": uid} | texts
        if caption := region["caption_long"] or region["caption_short"]:
            meta["text"] = [caption]  # shown in the list of regions
        x, y, w, h = (float(value) for value in region["bbox"])
        box = {
            "x": 100 * x / width,
            "y": 100 * y / height,
            "width": 100 * w / width,
            "height": 100 * h / height,
        }
        rectangle = {
            "id": f"{uid}-box",
            "type": "rectanglelabels",
            "from_name": "box",
            "value": {key: round(value, 6) for key, value in box.items()}
            | {"rotation": 0, "rectanglelabels": [name]},
        }
        mask = region_mask(image, region)
        if not mask.any():
            self.report.lost["masks_empty_left_out"] += 1
            return [common | rectangle | {"meta": meta}]
        brush = {
            "id": uid,
            "type": "brushlabels",
            "from_name": "mask",
            "value": {"format": "rle", "rle": mask_to_brush_rle(mask), "brushlabels": [name]},
        }
        return [common | brush | {"meta": meta}, common | rectangle]

    def _config(self) -> str:
        labels = "".join(
            f"    <Label value={quoteattr(xml_text(spec.name)[0])} category={quoteattr(str(spec.id))}"
            f' background="#{bytes(category_colour(spec.id)).hex()}"/>\n'
            for spec in self.context.vocabulary.classes
        )
        return (
            '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
            f'  <BrushLabels name="mask" toName="image">\n{labels}  </BrushLabels>\n'
            f'  <RectangleLabels name="box" toName="image">\n{labels}  </RectangleLabels>\n</View>\n'
        )
