"""Arrow schemas of everything that is written. Frozen: a change of a column is a new `SCHEMA_VERSION`."""

import pyarrow as pa

SCHEMA_VERSION = 1

_METADATA = {"ovsops.schema_version": str(SCHEMA_VERSION)}


def _required(name: str, dtype: pa.DataType) -> pa.Field:
    return pa.field(name, dtype, nullable=False)


SEGMENTATION = pa.struct([_required("size", pa.list_(pa.int32(), 2)), _required("counts", pa.string())])
"""COCO compressed RLE: `size` is (height, width), runs are column-major."""

IMAGES = pa.schema(
    [
        _required("image_uid", pa.string()),
        _required("shard", pa.string()),
        _required("index", pa.int32()),
        _required("key", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("exif_orientation", pa.int8()),
        pa.field("num_frames", pa.int32()),
        pa.field("license", pa.string()),
        pa.field("source_url", pa.string()),
        pa.field("caption_short", pa.string()),
        pa.field("caption_long", pa.string()),
        pa.field("sidecar", pa.string()),
        _required(
            "presence",
            pa.list_(pa.struct([_required("category_id", pa.int32()), _required("score", pa.float32())])),
        ),
        _required("verified_absent", pa.list_(pa.int32())),
        _required("notes", pa.list_(pa.string())),
        _required("status", pa.string()),
        pa.field("error_code", pa.string()),
        pa.field("error_stage", pa.string()),
        pa.field("error_message", pa.string()),
    ],
    metadata=_METADATA,
)
"""One row per image of a shard, whatever became of it. `width` and `height` are EXIF-applied pixels.
`shard` is the shard's path below its input folder, `index` its place in the shard. `status` is labelled,
skipped or failed. `presence` and `verified_absent` stay empty until a presence gate has looked."""

INSTANCES = pa.schema(
    [
        _required("instance_uid", pa.string()),
        _required("image_uid", pa.string()),
        _required("category_id", pa.int32()),
        pa.field("prompt", pa.string()),
        pa.field("language", pa.string()),
        _required("bbox", pa.list_(pa.float32(), 4)),
        _required("segmentation", SEGMENTATION),
        _required("area", pa.int64()),
        _required("iscrowd", pa.int8()),
        pa.field("score_detector", pa.float32()),
        pa.field("score_alignment", pa.float32()),
        _required("score", pa.float32()),
        pa.field("score_calibrated", pa.float32()),
        pa.field("caption_short", pa.string()),
        pa.field("caption_long", pa.string()),
        pa.field("caption_source", pa.string()),
        pa.field("segmenter", pa.string()),
        pa.field("detector", pa.string()),
        pa.field("agreement", pa.float32()),
        pa.field("decision", pa.string()),
        _required("reason_codes", pa.list_(pa.string())),
    ],
    metadata=_METADATA,
)
"""One row per instance or stuff region. `bbox` is COCO xywh in EXIF-applied pixels, `area` in mask pixels."""

REGION = pa.struct(
    [
        INSTANCES.field(name)
        for name in ("category_id", "prompt", "language", "bbox", "segmentation", "area", "score")
    ]
    + [INSTANCES.field("segmenter"), INSTANCES.field("reason_codes")]
)
"""A region while it travels nested in its image's row."""
