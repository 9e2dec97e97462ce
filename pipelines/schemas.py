"""Arrow schemas of everything that is written. Frozen: a change of a column is a new `SCHEMA_VERSION`."""

import pyarrow as pa

SCHEMA_VERSION = 3

_METADATA = {"ovsops.schema_version": str(SCHEMA_VERSION)}


def _required(name: str, dtype: pa.DataType) -> pa.Field:
    return pa.field(name, dtype, nullable=False)


SEGMENTATION = pa.struct([_required("size", pa.list_(pa.int32(), 2)), _required("counts", pa.string())])
"""COCO compressed RLE: `size` is (height, width), runs are column-major."""

PRESENCE = pa.struct([_required("category_id", pa.int32()), _required("score", pa.float32())])
"""How sure it is that a class is in the image."""

RIVAL = pa.struct([_required("category_id", pa.int32()), _required("score", pa.float32())])
"""A name that excludes the region's own, was found on the same thing, and lost."""

EVIDENCE = pa.struct(
    [
        _required("rows", pa.int32()),
        _required("columns", pa.int32()),
        _required("values", pa.binary()),
        _required("low", pa.float32()),
        _required("high", pa.float32()),
        _required("bbox", pa.list_(pa.float32())),
    ]
)
"""Where a label was seen: cosines with the patches of the box `bbox` (COCO xywh), uint8 from `low` to `high`, row by
row."""

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
        pa.field("hash_difference", pa.uint64()),
        pa.field("hash_frequency", pa.uint64()),
        pa.field("license", pa.string()),
        pa.field("source_url", pa.string()),
        pa.field("caption_short", pa.string()),
        pa.field("caption_long", pa.string()),
        pa.field("sidecar", pa.string()),
        _required("presence", pa.list_(PRESENCE)),
        _required("verified_absent", pa.list_(pa.int32())),
        _required("exhaustive", pa.list_(pa.int32())),
        _required("notes", pa.list_(pa.string())),
        _required("status", pa.string()),
        pa.field("error_code", pa.string()),
        pa.field("error_stage", pa.string()),
        pa.field("error_message", pa.string()),
    ],
    metadata=_METADATA,
)
"""One row per image of a shard, whatever became of it. `width` and `height` are EXIF-applied pixels.
`hash_difference` and `hash_frequency` are perceptual hashes of the decoded picture (`ovsops.images.phash`),
null for one without structure. `shard` is the shard's path below its input folder, `index` its place in the shard.
`status` is labelled, skipped or failed. `presence`, `verified_absent` (looked for, not there) and `exhaustive` (classes
all of whose objects are believed found) are of things, and empty where no presence gate has looked."""

INSTANCES = pa.schema(
    [
        _required("instance_uid", pa.string()),
        _required("image_uid", pa.string()),
        _required("category_id", pa.int32()),
        pa.field("prompt", pa.string()),
        pa.field("language", pa.string()),
        _required("bbox", pa.list_(pa.float32(), 4)),
        _required("segmentation", SEGMENTATION),
        pa.field(
            "bbox_detector", pa.list_(pa.float32())
        ),  # fixed sizes with nulls: pyarrow 25 reads none of them
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
        pa.field("agreement_other", pa.float32()),
        _required("rivals", pa.list_(RIVAL)),
        pa.field("verdict", pa.string()),
        pa.field("verdict_margin", pa.float32()),
        pa.field("verdict_source", pa.string()),
        pa.field("evidence", EVIDENCE),
        pa.field("decision", pa.string()),
        _required("reason_codes", pa.list_(pa.string())),
    ],
    metadata=_METADATA,
)
"""One row per instance or stuff region. `bbox` is COCO xywh in EXIF-applied pixels and tight around the mask, `area` in
mask pixels. `bbox_detector` is the box as the detector drew it, null for what no detector found. `score` is the last
word before calibration: the segmenter's, the detector's, or both joined. `agreement` is the IoU of the detector's box
and the mask's, `agreement_other` that of the mask and a second segmenter's. `decision` is accept or review."""

_OF_THE_TABLE = ("instance_uid", "image_uid", "iscrowd")
REGION = pa.struct([field for field in INSTANCES if field.name not in _OF_THE_TABLE])
"""A region while it travels nested in its image's row."""

NEGATIVES = pa.schema(
    [
        _required("instance_uid", pa.string()),
        _required("image_uid", pa.string()),
        pa.field("key", pa.string()),
        _required("category_id", pa.int32()),
        pa.field("positive", pa.string()),
        pa.field("language", pa.string()),
        _required("level", pa.string()),
        pa.field("negatives", pa.list_(pa.string())),
        pa.field("types", pa.list_(pa.string())),
        pa.field("reason", pa.string()),
        _required("dropped", pa.list_(pa.string())),
    ],
    metadata=_METADATA,
)
"""One row per region of the label run, whatever became of it. `negatives` are exactly ten, with their `types`, or null
with a `reason`. `positive` is the text that they were made of, marks set straight; with a reason it is the text as it
came. `dropped` counts candidates that a validator refused (`V_LABEL:2`)."""

WRITTEN_NEGATIVES = NEGATIVES.append(pa.field("sources", pa.list_(pa.string())))
"""`NEGATIVES` where a language model writes, too: `rule` or `llm` for each negative. The recipe decides which of both
schemas an output has, so that readers who know the first one read either."""
