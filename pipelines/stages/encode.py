"""Class maps in, regions with exact RLE out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ovsops.masks.regions import Region, RegionConfig, find_regions
from pipelines.maps import unpack_class_map
from pipelines.rows import ENCODED_ROW
from pipelines.stage import Stage


@dataclass(frozen=True, kw_only=True)
class RegionClass:
    """What the written record says about a class of the vocabulary."""

    id: int
    kind: str
    prompt: str
    language: str


class EncodeStage(Stage):
    """Regions of each image's class map."""

    name = "encode"

    def __init__(self, classes: tuple[RegionClass, ...], regions: RegionConfig, segmenter: str) -> None:
        self.classes, self.config, self.segmenter = classes, regions, segmenter

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One table, the maps replaced by regions."""
        self.by_id = {c.id: c for c in self.classes}
        labels, scores = batch.column("class_map"), batch.column("score_map")
        heights, widths = batch.column("height").to_pylist(), batch.column("width").to_pylist()
        notes = batch.column("notes").to_pylist()
        regions: list[list[dict[str, Any]] | None] = []
        for i in range(batch.num_rows):
            if not labels[i].is_valid:
                regions.append(None)
                continue
            size_hw = (heights[i], widths[i])
            class_map = unpack_class_map(labels[i].as_buffer(), scores[i].as_buffer(), size_hw=size_hw)
            found = find_regions(class_map, self.classes, self.config)
            notes[i] += [f"{reason}:{count}" for reason, count in sorted(found.dropped.items())]
            regions.append([self._record(region) for region in found.regions])
        kept = batch.select([n for n in ENCODED_ROW.names if n != "regions"])
        place = kept.schema.get_field_index("notes")
        kept = kept.set_column(place, "notes", pa.array(notes, ENCODED_ROW.field("notes").type))
        yield kept.append_column("regions", pa.array(regions, ENCODED_ROW.field("regions").type)).cast(
            ENCODED_ROW
        )

    def _record(self, region: Region) -> dict[str, Any]:
        named = self.by_id[region.category_id]
        counts = region.rle.counts
        return {
            "category_id": region.category_id,
            "prompt": named.prompt,
            "language": named.language,
            "bbox": list(region.bbox_xywh),
            "segmentation": {
                "size": list(region.rle.size_hw),
                "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
            },
            "area": region.area,
            "score": region.score,
            "segmenter": self.segmenter,
            "reason_codes": list(region.reasons),
        }
