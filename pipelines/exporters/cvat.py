"""CVAT for images 1.1: `annotations.xml` with a `<mask>` for each region, and `images/`.

CVAT knows labels by name. Category ids, scores and texts are attributes of each mask. A mask is kept inside its box:
runs row by row, unset first.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from jaxtyping import Bool

from ovsops.masks.boxes import mask_to_box_xyxy
from pipelines.exporters.format import ExportImage, region_mask, region_texts
from pipelines.exporters.options import ExportContext
from pipelines.exporters.xml_text import xml_text
from pipelines.report.overlay import category_colour
from pipelines.writers.coco import shortest
from pipelines.writers.whole_files import WholeFile

ANNOTATIONS = "annotations.xml"
_ATTRIBUTES = (
    "category_id",
    "score",
    "instance_uid",
    "score_calibrated",
    "prompt",
    "language",
    "caption_short",
    "caption_long",
    "caption_source",
    "verdict",
    "decision",
    "reason_codes",
)


class CvatFormat:
    """See `format.ExportFormat`."""

    def __init__(self, context: ExportContext) -> None:
        self.context, self.report, self.names = context, context.report, context.names
        self._file = WholeFile(context.folder / ANNOTATIONS)
        self._write(
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n',
            f"  <meta><task><name>{self._escaped(context.vocabulary.name)}</name><mode>annotation</mode><labels>\n",
            *(self._label(spec.id, spec.name) for spec in context.vocabulary.classes),
            "  </labels></task></meta>\n",
        )

    def begin_shard(self, shard: str) -> None:
        """Nothing: there is one file."""

    def add(self, image: ExportImage) -> None:
        """One `<image>`."""
        is_copied = image.data is not None
        name = self._quoted(image.file_name.removeprefix("images/") if is_copied else image.file_name)
        self._write(
            f'  <image id="{image.number - 1}" name={name} width="{image.row["width"]}"'
            f' height="{image.row["height"]}">\n'
        )
        for region in image.regions:
            self._write(*self._mask(image, region))
        self._write("  </image>\n")

    def finish(self) -> None:
        """Give the file its name."""
        self._write("</annotations>\n")
        self._file.publish()

    def close(self) -> None:
        """Drop it where it was not finished."""
        self._file.discard()

    def _mask(self, image: ExportImage, region: Mapping[str, Any]) -> Iterator[str]:
        mask = region_mask(image, region)
        box = mask_to_box_xyxy(mask)
        if box is None:
            self.report.lost["masks_empty_left_out"] += 1
            return
        x0, y0, x1, y1 = box
        runs = ", ".join(map(str, row_runs(mask[y0:y1, x0:x1])))
        yield (
            f'    <mask label={self._quoted(self.names[region["category_id"]])} source="auto" occluded="0"'
            f' rle="{runs}" left="{x0}" top="{y0}" width="{x1 - x0}" height="{y1 - y0}" z_order="0">\n'
        )
        values = {
            "category_id": region["category_id"],
            "score": shortest(region["score"]),
            "instance_uid": region["instance_uid"],
        } | region_texts(region)
        for name in _ATTRIBUTES:
            if name in values:
                value = values[name]
                text = " ".join(value) if isinstance(value, list) else str(value)
                yield f'      <attribute name="{name}">{self._escaped(text)}</attribute>\n'
        yield "    </mask>\n"

    def _label(self, category_id: int, name: str) -> str:
        attributes = "".join(
            f"<attribute><name>{attribute}</name><mutable>False</mutable><input_type>text</input_type>"
            f"<default_value>{category_id if attribute == 'category_id' else ''}</default_value><values></values>"
            "</attribute>"
            for attribute in _ATTRIBUTES
        )
        colour = bytes(category_colour(category_id)).hex()
        return (
            f"    <label><name>{self._escaped(name)}</name><color>#{colour}</color><type>mask</type>"
            f"<attributes>{attributes}</attributes></label>\n"
        )

    def _escaped(self, text: str) -> str:
        """Between tags: a carriage return would else be read as a line feed."""
        clean, replaced = xml_text(text)
        self.report.lost["characters_replaced"] += replaced
        return escape(clean, {"\r": "&#13;"})

    def _quoted(self, text: str) -> str:
        """As an attribute: line feeds and tabs would else be read as blanks."""
        clean, replaced = xml_text(text)
        self.report.lost["characters_replaced"] += replaced
        return quoteattr(clean, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})

    def _write(self, *texts: str) -> None:
        for text in texts:
            self._file.write(text.encode())


def row_runs(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """Lengths of runs row by row: unset, set, unset, ...; the first is 0 where the first pixel is set."""
    flat = mask.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: list[int] = np.diff(edges, prepend=0, append=flat.size).tolist()
    return [0, *lengths] if flat[0] else lengths
