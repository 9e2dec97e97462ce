"""FineHARD as Parquet: a row an image, regions nested, with masks, types and scores of negatives. Also the
table of an HF folder.

Reading needs nothing of ours. Rows are written in groups whose size depends on the samples alone; zstd, no
pandas index.
"""

from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from ovsops.errors import ConfigError
from pipelines.training_sets.record import Split, TrainingRegion, TrainingSample
from pipelines.writers.row_groups import RowGroups
from pipelines.writers.whole_files import DEFAULT_FILE_BYTES, SetWriter, file_pattern, image_path

FORMAT = "finehard-parquet"
SCHEMA_VERSION = 1


def _required(name: str, dtype: pa.DataType) -> pa.Field:
    return pa.field(name, dtype, nullable=False)


SEGMENTATION = pa.struct([_required("size", pa.list_(pa.int32())), _required("counts", pa.string())])
"""COCO compressed RLE. The two sizes are a list without a fixed length: pyarrow 26 cannot read a Parquet file
whose null structs hold a list with one ("Expected all lists to be of size=2 but index 2 had size=0")."""
REGION = pa.struct(
    [
        _required("region_uid", pa.string()),
        _required("bbox", pa.list_(pa.float32(), 4)),
        _required("score", pa.float32()),
        _required("category_id", pa.int32()),
        _required("category", pa.string()),
        _required("short_expr", pa.string()),
        _required("long_expr", pa.string()),
        _required("flag_short_neg", pa.int8()),
        _required("short_expr_negs", pa.list_(pa.string())),
        _required("neg_types", pa.list_(pa.string())),
        _required("neg_scores", pa.list_(pa.float32())),
        pa.field("segmentation", SEGMENTATION),
    ]
)
"""`bbox` is x1 y1 x2 y2 in shares of width and height. `short_expr_negs` holds ten texts where
`flag_short_neg` is 1, else none; `neg_types` goes with it, `neg_scores` too where scores were measured."""
NEG_SOURCES = _required("neg_sources", pa.list_(pa.string()))
"""A field of regions beside `neg_types`, in sets whose negatives say who wrote them: `rule` or `llm`."""

_COLUMNS = [
    _required("image_uid", pa.string()),
    _required("key", pa.string()),
    _required("sha256", pa.string()),
    _required("width", pa.int32()),
    _required("height", pa.int32()),
    _required("exif_orientation", pa.int8()),
    _required("language", pa.string()),
    _required("caption", pa.string()),
    _required("short_caption", pa.string()),
    pa.field("license", pa.string()),
    pa.field("source_url", pa.string()),
    _required("split", pa.string()),
    _required("group", pa.string()),
    _required("regions", pa.list_(REGION)),
]
FINEHARD = pa.schema(
    [_required("f_path", pa.string()), *_COLUMNS],
    metadata={"ovsops.training_set_version": str(SCHEMA_VERSION)},
)
"""One row an image. `caption` is the long one, as in FineHARD. `f_path` is relative to the set's folder."""
IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
"""An image as `datasets` stores it."""
WITH_IMAGES = pa.schema([_required("image", IMAGE), *_COLUMNS], metadata=FINEHARD.metadata)


def with_sources(schema: pa.Schema) -> pa.Schema:
    """`FINEHARD` or `WITH_IMAGES` with `NEG_SOURCES`. Sets of rules alone keep the schema without it."""
    fields = list(REGION)
    fields.insert(REGION.get_field_index("neg_types") + 1, NEG_SOURCES)
    regions = _required("regions", pa.list_(pa.struct(fields)))
    return schema.set(schema.get_field_index("regions"), regions)


def finehard_parquet_writer(
    folder: Path,
    split: Split,
    *,
    stem: str | None = None,
    max_file_bytes: int = DEFAULT_FILE_BYTES,
    has_sources: bool = False,
) -> SetWriter:
    """Files `SPLIT/STEM-00000.parquet`; images are named relative to `folder`.

    `has_sources` is of the whole set: files of one set have one schema, whatever is in them.
    """
    schema = with_sources(FINEHARD) if has_sources else FINEHARD
    pattern = file_pattern("SPLIT/STEM-*.parquet", split, stem)
    return SetWriter(
        folder,
        pattern,
        lambda stream: ParquetRows(stream, schema),
        split=split,
        max_file_bytes=max_file_bytes,
    )


class ParquetRows(RowGroups):
    """One Parquet file of samples."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        super().__init__(stream, schema)
        self._has_images = "image" in schema.names
        region = schema.field("regions").type.value_type
        self._has_sources = region.get_field_index(NEG_SOURCES.name) >= 0

    def add(self, sample: TrainingSample) -> None:
        """Append a row. ConfigError where its negatives say who wrote them, and the file has no place for it."""
        row = finehard_row(sample)
        for region in row["regions"]:
            if self._has_sources:
                region.setdefault(NEG_SOURCES.name, [])
            elif NEG_SOURCES.name in region:
                raise ConfigError(
                    f"region {region['region_uid']} says who wrote its negatives, and this file has no column for it:"
                    " open the writer with has_sources=True"
                )
        if self._has_images:
            row["image"] = {"bytes": sample.data, "path": f"{sample.image_uid}.{sample.extension}"}
        self.add_row(row, image_bytes=len(sample.data) if self._has_images else 0)


def finehard_row(sample: TrainingSample) -> dict[str, Any]:
    """The row of one image, without its bytes."""
    return {
        "f_path": image_path(sample),
        "image_uid": sample.image_uid,
        "key": sample.key,
        "sha256": sample.sha256,
        "width": sample.width,
        "height": sample.height,
        "exif_orientation": sample.exif_orientation,
        "language": sample.language,
        "caption": sample.caption_long,
        "short_caption": sample.caption_short,
        "license": sample.license,
        "source_url": sample.source_url,
        "split": sample.split,
        "group": sample.group,
        "regions": [_region(region) for region in sample.regions],
    }


def _region(region: TrainingRegion) -> dict[str, Any]:
    negatives = region.negatives
    row = {
        "region_uid": region.region_uid,
        "bbox": list(region.box),
        "score": region.score,
        "category_id": region.category_id,
        "category": region.category,
        "short_expr": region.short_expr,
        "long_expr": region.long_expr,
        "flag_short_neg": int(negatives is not None),
        "short_expr_negs": list(negatives.texts) if negatives else [],
        "neg_types": list(negatives.types) if negatives else [],
        "neg_scores": list(negatives.scores) if negatives and negatives.scores is not None else [],
        "segmentation": region.segmentation.to_coco() if region.segmentation else None,
    }
    if negatives is not None and negatives.sources is not None:
        row[NEG_SOURCES.name] = list(negatives.sources)
    return row
