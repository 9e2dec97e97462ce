"""The row that travels from reader to writer: one image, or the closing row of a shard.

A shard of n images is n image rows with `index` 0..n-1, then one closing row with `index` n whose `closing`
is JSON (`Closing`). The closing row passes every stage untouched; with it, "the shard is whole" can be told
from the intervals of indexes alone, whatever Ray does to blocks.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from pipelines.schemas import IMAGES, REGION
from pipelines.spans import timing_fields

SOURCE_ROW = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("image", pa.binary()),
        pa.field("sha256", pa.string()),
        pa.field("license", pa.string()),
        pa.field("source_url", pa.string()),
        pa.field("caption_short", pa.string()),
        pa.field("caption_long", pa.string()),
        pa.field("sidecar", pa.string()),
        pa.field("notes", pa.list_(pa.string()), nullable=False),
        pa.field("error_code", pa.string()),
        pa.field("error_stage", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("closing", pa.string()),
    ]
)
"""What a reader yields. `shard` is `Shard.id`; `image` the encoded bytes; `sidecar` the raw JSON text;
`notes` reason codes that do not fail the row (`N_...`); a row with `error_code` has no image."""


DECODED_FIELDS = [
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("exif_orientation", pa.int8()),
    pa.field("num_frames", pa.int32()),
    pa.field("hash_difference", pa.uint64()),
    pa.field("hash_frequency", pa.uint64()),
]

TIMING_FIELDS = [pa.field("decode_seconds", pa.float32()), *timing_fields("segment")]
"""`segment_seconds` is the image's share of its batch; started and ended are Unix seconds of the batch."""

PRESENCE_FIELDS = [
    IMAGES.field(name).with_nullable(True) for name in ("presence", "verified_absent", "exhaustive")
]
"""What is said of classes in the image as a whole; null where nobody asked."""

_WITHOUT_IMAGE = [f for f in SOURCE_ROW if f.name != "image"]

ANNOTATED_ROW = pa.schema(
    [
        *_WITHOUT_IMAGE,
        *DECODED_FIELDS,
        *TIMING_FIELDS,
        *PRESENCE_FIELDS,
        pa.field("class_map", pa.binary()),
        pa.field("score_map", pa.binary()),
        pa.field("other_map", pa.binary()),
        pa.field("boxes", pa.list_(REGION)),
    ]
)
"""After the models: the class map (uint16, lz4), the winning scores (uint16 steps of 1/65535, lz4), a second
segmenter's class map, and boxes with names whose masks are not cut out yet (`area` 0). Null is what nobody made."""

ENCODED_ROW = pa.schema(
    [
        *_WITHOUT_IMAGE,
        *DECODED_FIELDS,
        *TIMING_FIELDS,
        *PRESENCE_FIELDS,
        *timing_fields("encode"),
        pa.field("regions", pa.list_(REGION)),
    ]
)
"""What a part file holds: one row per image with its regions nested."""

IMAGE_FIELD = SOURCE_ROW.field("image")
"""Travels beyond the models only where a later stage looks at the pixels again."""
ANNOTATED_WITH_IMAGE = ANNOTATED_ROW.append(IMAGE_FIELD)
ENCODED_WITH_IMAGE = ENCODED_ROW.append(IMAGE_FIELD)

ASKED_ROW = pa.schema([*ENCODED_ROW, *timing_fields("ask"), pa.field("asked", pa.string())])
"""After the endpoint: `asked` is JSON of `EndpointCounts` in the first row of each round of questions, else null; it
goes into `PART_ROW`, not into the part file, as the times of asking do."""

PART_ROW = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("first", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("closing", pa.string()),
        pa.field("decode_seconds", pa.float64(), nullable=False),
        pa.field("segment_seconds", pa.float64(), nullable=False),
        pa.field("segment_started", pa.float64()),
        pa.field("segment_ended", pa.float64()),
        pa.field("asked", pa.string()),
        pa.field("spans", pa.string()),
    ]
)
"""One part file: rows `first` to `end` (half-open) of a shard. All that reaches the driver. `asked` is JSON of
`EndpointCounts`, null where nobody was asked; `spans` JSON of when each stage worked on it (`pipelines.spans`)."""

SKIP_PREFIX = "S_"
"""Codes of rows that are left out on purpose (`S_SMALL`); every other code is a failure."""


def status_of(error_code: str | None) -> str:
    """labelled, skipped or failed."""
    if not error_code:
        return "labelled"
    return "skipped" if error_code.startswith(SKIP_PREFIX) else "failed"


@dataclass(frozen=True, kw_only=True)
class Closing:
    """How a shard ended: the content of its closing row."""

    num_rows: int
    """Image rows in the shard, failed ones included."""
    complete: bool
    """False when the archive is damaged: what was read is kept, what is missing cannot be counted."""
    damage_code: str = ""
    """Code of the damage: `E_TRUNCATED_ARCHIVE`, `E_BAD_HEADER`, ..."""
    damage: str = ""
    """What is damaged and where (byte offset, member)."""
    failed_code: str = ""
    """Not empty: the shard as a whole failed (`E_STORAGE`, `E_SHARD_CHANGED`) and must not be committed."""
    failed: str = ""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Archive members that are no image of a sample, counted by reason (`symlink`, `directory`, `pickle`)."""
    sha256: str = ""
    """Of the shard's bytes; empty for a folder."""
    num_bytes: int = 0

    def to_json(self) -> str:
        """Deterministic JSON."""
        return json.dumps(asdict(self) | {"ignored": dict(sorted(self.ignored.items()))}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Closing":
        """Inverse of `to_json`."""
        return cls(**json.loads(text))
