"""Class maps and boxes in, regions with exact RLE out."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ovsops.masks.regions import Region, RegionConfig, find_regions
from pipelines.maps import unpack_class_map, unpack_labels
from pipelines.records import RegionClass, decision_of, segmentation_record
from pipelines.rows import ENCODED_ROW, ENCODED_WITH_IMAGE, IMAGE_FIELD
from pipelines.spans import Stopwatch
from pipelines.stage import Stage

if TYPE_CHECKING:
    from ovsops.annotators.regions import InstancesConfig
    from ovsops.regions.agreement import AgreementConfig


class EncodeStage(Stage):
    """Regions of each image, from what the models said of it."""

    name = "encode"

    def __init__(
        self,
        classes: tuple[RegionClass, ...],
        regions: RegionConfig,
        segmenter: str,
        *,
        detector: str = "",
        instances: "InstancesConfig | None" = None,
        agreement: "AgreementConfig | None" = None,
    ) -> None:
        self.classes, self.config, self.segmenter, self.detector = classes, regions, segmenter, detector
        self.instances, self.agreement = instances, agreement

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One table, maps and boxes replaced by regions; images go on where they came."""
        watch = Stopwatch()
        schema = ENCODED_WITH_IMAGE if IMAGE_FIELD.name in batch.column_names else ENCODED_ROW
        self.by_id = {c.id: c for c in self.classes}
        notes = batch.column("notes").to_pylist()
        regions: list[list[dict[str, Any]] | None] = []
        complete = {name: batch.column(name).to_pylist() for name in ("verified_absent", "exhaustive")}
        for i in range(batch.num_rows):
            row = {name: batch.column(name)[i] for name in ("class_map", "score_map", "other_map", "boxes")}
            if not (row["class_map"].is_valid or row["boxes"].is_valid):
                regions.append(None)
                continue
            size_hw = (batch.column("height")[i].as_py(), batch.column("width")[i].as_py())
            found, dropped = self._regions(row, size_hw)
            notes[i] += [f"{reason}:{count}" for reason, count in sorted(dropped.items())]
            regions.append(found)
            if not any(ids[i] for ids in complete.values()):
                continue
            of_boxes = row["boxes"].values.field("category_id").to_pylist() if row["boxes"].is_valid else ()
            boxes, rows = Counter(of_boxes), Counter(region["category_id"] for region in found)
            for name, ids in complete.items():
                ids[i] = ids[i] and still_complete(ids[i], boxes, rows, is_absent=name == "verified_absent")
        kept = batch.select([n for n in schema.names if n in batch.column_names])
        for name, changed in {"notes": notes, **complete}.items():
            place = kept.schema.get_field_index(name)
            kept = kept.set_column(place, name, pa.array(changed, schema.field(name).type))
        kept = kept.append_column("regions", pa.array(regions, schema.field("regions").type))
        for name, values in watch.columns(self.name, batch.num_rows).items():
            kept = kept.append_column(name, values)
        yield kept.select(schema.names).cast(schema)

    def _regions(
        self, row: Mapping[str, Any], size_hw: tuple[int, int]
    ) -> tuple[list[dict[str, Any]], Mapping[str, int]]:
        class_map = other = None
        if row["class_map"].is_valid:
            maps = (row["class_map"].as_buffer(), row["score_map"].as_buffer())
            class_map = unpack_class_map(*maps, size_hw=size_hw)
        if row["other_map"].is_valid:
            other = unpack_labels(row["other_map"].as_buffer(), size_hw=size_hw)
        boxes: list[dict[str, Any]] | None = row["boxes"].as_py()
        if boxes is None and other is None and class_map is not None:
            found = find_regions(class_map, self.classes, self.config)
            return [self._record(region) for region in found.regions], found.dropped
        from pipelines.cutting import cut_boxes  # needs torch, which runs of class maps alone do without

        cut = cut_boxes(
            class_map,
            self.classes,
            boxes,
            size_hw=size_hw,
            regions=self.config,
            instances=self.instances,
            other=other,
            agreement=self.agreement,
        )
        records = [
            self._record(
                each.region,
                box=None if each.box is None or boxes is None else boxes[each.box],
                agreement=each.agreement,
                agreement_other=each.agreement_other,
            )
            for each in cut.regions
        ]
        return records, cut.dropped

    def _record(
        self,
        region: Region,
        *,
        box: Mapping[str, Any] | None = None,
        agreement: float | None = None,
        agreement_other: float | None = None,
    ) -> dict[str, Any]:
        named = self.by_id[region.category_id]
        record: dict[str, Any] = {
            "category_id": region.category_id,
            "prompt": named.prompt,
            "language": named.language,
            "score": region.score,
            "rivals": [],
            "reason_codes": list(region.reasons),
        }
        if box is not None:
            codes = sorted({*box["reason_codes"], *region.reasons})
            record = {**box, "detector": self.detector, "reason_codes": codes}
        record |= {
            "bbox": list(region.bbox_xywh),
            "segmentation": segmentation_record(region.rle),
            "area": region.area,
            "segmenter": self.segmenter or None,
            "agreement": agreement,
            "agreement_other": agreement_other,
        }
        return record | {"decision": decision_of(record)}


def still_complete(
    ids: Sequence[int], boxes: Counter[int], rows: Counter[int], *, is_absent: bool
) -> list[int]:
    """Classes that are complete in their image once masks are cut: those with as many regions as boxes, or with none.

    The gate spoke of boxes. A box whose mask was left out, and a thing of the class map that no box covers, say that
    not all of a class is found, or that it is not absent.
    """
    return [each for each in ids if rows[each] == (0 if is_absent else boxes[each])]
