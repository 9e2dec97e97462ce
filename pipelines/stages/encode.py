"""Class maps and boxes in, regions with exact RLE out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch

from ovsops.annotators.regions import CutRegion, InstancesConfig, cut_regions
from ovsops.backbones.detections import Detections
from ovsops.masks.regions import RegionConfig
from ovsops.masks.rle import Rle, rle_from_coco
from ovsops.regions.agreement import AgreementConfig
from pipelines.maps import unpack_class_map, unpack_labels
from pipelines.records import RegionClass, decision_of, segmentation_record
from pipelines.rows import ENCODED_ROW, ENCODED_WITH_IMAGE, IMAGE_FIELD
from pipelines.stage import Stage


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
        instances: InstancesConfig | None = None,
        agreement: AgreementConfig | None = None,
    ) -> None:
        self.classes, self.config, self.segmenter, self.detector = classes, regions, segmenter, detector
        self.instances, self.agreement = instances, agreement

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One table, maps and boxes replaced by regions; images go on where they came."""
        schema = ENCODED_WITH_IMAGE if IMAGE_FIELD.name in batch.column_names else ENCODED_ROW
        self.by_id = {c.id: c for c in self.classes}
        self.place = {c.id: place for place, c in enumerate(self.classes)}
        notes = batch.column("notes").to_pylist()
        regions: list[list[dict[str, Any]] | None] = []
        for i in range(batch.num_rows):
            row = {name: batch.column(name)[i] for name in ("class_map", "score_map", "other_map", "boxes")}
            if not (row["class_map"].is_valid or row["boxes"].is_valid):
                regions.append(None)
                continue
            size_hw = (batch.column("height")[i].as_py(), batch.column("width")[i].as_py())
            found, dropped = self._regions(row, size_hw)
            notes[i] += [f"{reason}:{count}" for reason, count in sorted(dropped.items())]
            regions.append(found)
        kept = batch.select([n for n in schema.names if n != "regions"])
        place = kept.schema.get_field_index("notes")
        kept = kept.set_column(place, "notes", pa.array(notes, schema.field("notes").type))
        kept = kept.append_column("regions", pa.array(regions, schema.field("regions").type))
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
        cut = cut_regions(
            class_map,
            self.classes,
            size_hw=size_hw,
            regions=self.config,
            boxes=None if boxes is None else self._detections(boxes),
            box_masks=() if boxes is None else [_own_mask(box) for box in boxes],
            instances=self.instances,
            other=other,
            agreement=self.agreement,
        )
        return [self._record(each, boxes or ()) for each in cut.regions], cut.dropped

    def _detections(self, boxes: Sequence[Mapping[str, Any]]) -> Detections:
        xywh = torch.tensor([box["bbox"] for box in boxes], dtype=torch.float32).reshape(-1, 4)
        return Detections(
            boxes_xyxy=torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1),
            scores=torch.tensor([box["score"] for box in boxes], dtype=torch.float32),
            labels=torch.tensor([self.place[box["category_id"]] for box in boxes], dtype=torch.int64),
        )

    def _record(self, cut: CutRegion, boxes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        region = cut.region
        named = self.by_id[region.category_id]
        record: dict[str, Any] = {
            "category_id": region.category_id,
            "prompt": named.prompt,
            "language": named.language,
            "score": region.score,
            "rivals": [],
            "reason_codes": list(region.reasons),
        }
        if cut.box is not None:
            box = boxes[cut.box]
            codes = sorted({*box["reason_codes"], *region.reasons})
            record = {**box, "detector": self.detector, "reason_codes": codes}
        record |= {
            "bbox": list(region.bbox_xywh),
            "segmentation": segmentation_record(region.rle),
            "area": region.area,
            "segmenter": self.segmenter or None,
            "agreement": cut.agreement,
            "agreement_other": cut.agreement_other,
        }
        return record | {"decision": decision_of(record)}


def _own_mask(box: Mapping[str, Any]) -> Rle | None:
    """The mask that a box came with."""
    return rle_from_coco(box["segmentation"]) if box["segmentation"]["counts"] else None
