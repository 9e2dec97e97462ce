"""A folder for `datasets.load_dataset`: `data/SHARD-00000.parquet` with the images' own bytes, and a card."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

import pyarrow as pa

from pipelines.exporters.format import ExportImage, image_texts, region_rle
from pipelines.exporters.hf_card import CardCounts, label_card
from pipelines.exporters.options import ExportContext
from pipelines.writers.finehard_parquet import IMAGE, SEGMENTATION
from pipelines.writers.hf_folder import hf_schema
from pipelines.writers.row_groups import RowGroups
from pipelines.writers.whole_files import WholeFile, numbered, write_whole

CARD = "README.md"

REGION = pa.struct(
    [
        pa.field("instance_uid", pa.string()),
        pa.field("category_id", pa.int32()),
        pa.field("category", pa.string()),
        pa.field("bbox", pa.list_(pa.float32(), 4)),
        pa.field("segmentation", SEGMENTATION),
        pa.field("area", pa.int64()),
        pa.field("score", pa.float32()),
        pa.field("score_calibrated", pa.float32()),
        pa.field("prompt", pa.string()),
        pa.field("language", pa.string()),
        pa.field("caption_short", pa.string()),
        pa.field("caption_long", pa.string()),
        pa.field("caption_source", pa.string()),
        pa.field("verdict", pa.string()),
        pa.field("decision", pa.string()),
        pa.field("reason_codes", pa.list_(pa.string())),
    ]
)
"""`bbox` is COCO's, in pixels."""

COLUMNS = pa.schema(
    [
        pa.field("image", IMAGE),
        pa.field("image_uid", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("key", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("exif_orientation", pa.int32()),
        pa.field("license", pa.string()),
        pa.field("source_url", pa.string()),
        pa.field("attribution", pa.list_(pa.string())),
        pa.field("caption_short", pa.string()),
        pa.field("caption_long", pa.string()),
        pa.field("verified_absent", pa.list_(pa.int32())),
        pa.field("regions", pa.list_(REGION)),
    ]
)
"""One row an image. `attribution` holds `field: text` of what came with it."""


class HfFormat:
    """See `format.ExportFormat`."""

    def __init__(self, context: ExportContext) -> None:
        self.context, self.report, self.names = context, context.report, context.names
        self._schema = hf_schema(COLUMNS)
        self._pattern, self._num_files = "", 0
        self._file: WholeFile | None = None
        self._counts = CardCounts(licenses=Counter(), categories=Counter())

    def begin_shard(self, shard: str) -> None:
        """Files are called after their shard."""
        self._publish()
        self._pattern, self._num_files = f"data/{shard}-*.parquet", 0

    def add(self, image: ExportImage) -> None:
        """One row."""
        assert image.data is not None
        if self._file is None:
            self._file = WholeFile(self.context.folder / numbered(self._pattern, self._num_files))
            self._rows = RowGroups(cast(BinaryIO, self._file), self._schema)
        self._rows.add_row(self._row(image), image_bytes=len(image.data))
        self._counts.licenses[image.row["license"] or ""] += 1
        self._counts.categories.update(self.names[region["category_id"]] for region in image.regions)
        if self._file.num_bytes >= self.context.options.max_file_bytes:
            self._publish()

    def finish(self) -> None:
        """The last file, and the card."""
        self._publish()
        card = label_card(self.context, self._counts, COLUMNS)
        write_whole(self.context.folder / CARD, card.encode())

    def close(self) -> None:
        """Drop the file that is not finished."""
        if self._file is not None:
            self._file.discard()

    def _publish(self) -> None:
        if self._file is not None:
            self._rows.close()
            self._file.publish()
            self._file = None
            self._num_files += 1

    def _row(self, image: ExportImage) -> dict[str, Any]:
        texts = image_texts(image)
        named = texts.pop("attribution", {})
        row = {name: image.row[name] for name in ("width", "height", "exif_orientation")}
        return {
            "image": {"bytes": image.data, "path": image.file_name.rpartition("/")[2]},
            **texts,
            **row,
            "attribution": [f"{name}: {text}" for name, text in named.items()],
            "verified_absent": texts.get("verified_absent", []),
            "regions": [self._region(image, region) for region in image.regions],
        }

    def _region(self, image: ExportImage, region: Mapping[str, Any]) -> dict[str, Any]:
        rle = region_rle(image, region).to_coco()
        fields = {field.name: region[field.name] for field in REGION if field.name in region}
        return fields | {"category": self.names[region["category_id"]], "segmentation": rle}
