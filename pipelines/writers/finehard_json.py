"""FineHARD JSON as the published FG-CLIP 2 trainer reads it (360CVGroup/FG-CLIP b1af1cd,
fgclip2/train/train_fgclip2.py:241-406).

Each file is one JSON list. An item has `f_path`, `caption` (long), `short_caption`, `bbox_info`, and `is_cn` if it is
Chinese: its presence alone says so, whatever its value, and the published trainer then reads the captions without
"a photo of " and skips all regions. A region has `bbox` (x1 y1 x2 y2 in 0..1, and the score, which is not read),
`short_expr`, `long_expr`, `flag_short_neg` (1 with negatives) and `short_expr_negs`, an object whose ten values are
used in their order. The first four regions are read, so they are the best. Texts are lower case, because the trainer
lower-cases negatives and not their positive: case would tell them apart. The other fields (ids, size, licence, masks,
types, who wrote them) are ours; the trainer reads fields by name and passes them by.
"""

import json
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.training_sets.record import Split, TrainingRegion, TrainingSample
from pipelines.writers.coco import shortest
from pipelines.writers.whole_files import DEFAULT_FILE_BYTES, SetWriter, file_pattern, image_path

FORMAT = "finehard-json"


def finehard_json_writer(
    folder: Path, split: Split, *, stem: str | None = None, max_file_bytes: int = DEFAULT_FILE_BYTES
) -> SetWriter:
    """Files `SPLIT/STEM-00000.json`; point the trainer at the folder of its split. Images are named relative
    to `folder`.

    The published trainer loads whole files with `json.load`, so `max_file_bytes` bounds its memory, too.
    """
    pattern = file_pattern("SPLIT/STEM-*.json", split, stem)
    return SetWriter(folder, pattern, _JsonList, split=split, max_file_bytes=max_file_bytes)


class _JsonList:
    """One list, an item a line."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._num_items = stream, 0

    def add(self, sample: TrainingSample) -> None:
        text = json.dumps(
            finehard_item(sample), ensure_ascii=False, separators=(",", ":"), allow_nan=False
        ).encode()
        self._stream.write((b",\n" if self._num_items else b"[\n") + text)
        self._num_items += 1

    def close(self) -> None:
        self._stream.write(b"\n]\n")


def finehard_item(sample: TrainingSample) -> dict[str, Any]:
    """The item of one image."""
    item: dict[str, Any] = {
        "f_path": image_path(sample),
        "caption": sample.caption_long,
        "short_caption": sample.caption_short,
    }
    if sample.language == "zh":
        item["is_cn"] = True
    item["bbox_info"] = [_region(region) for region in sample.regions]
    item |= {
        "image_uid": sample.image_uid,
        "key": sample.key,
        "sha256": sample.sha256,
        "width": sample.width,
        "height": sample.height,
        "license": sample.license,
        "source_url": sample.source_url,
        "split": sample.split,
        "group": sample.group,
    }
    return item


def _region(region: TrainingRegion) -> dict[str, Any]:
    negatives = region.negatives
    info: dict[str, Any] = {
        "bbox": [shortest(value) for value in (*region.box, region.score)],
        "short_expr": region.short_expr,
        "long_expr": region.long_expr,
        "flag_short_neg": int(negatives is not None),
        "short_expr_negs": {str(i): text for i, text in enumerate(negatives.texts)} if negatives else {},
    }
    if negatives is not None:
        info["neg_types"] = list(negatives.types)
        if negatives.sources is not None:
            info["neg_sources"] = list(negatives.sources)
        if negatives.scores is not None:
            info["neg_scores"] = [shortest(score) for score in negatives.scores]
    info |= {"region_uid": region.region_uid, "category_id": region.category_id, "category": region.category}
    if region.segmentation is not None:
        info["segmentation"] = region.segmentation.to_coco()
    return info
