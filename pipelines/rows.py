"""The row that travels from reader to writer: one image, or the closing row of a shard.

A shard of n images is n image rows with `index` 0..n-1, then one closing row with `index` n whose `closing`
is JSON (`Closing`). The closing row passes every stage untouched; with it, "the shard is whole" can be told
from the intervals of indexes alone, whatever Ray does to blocks.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pyarrow as pa

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
"""What a reader yields. `shard` is `Shard.slug`; `image` the encoded bytes; `sidecar` the raw JSON text;
`notes` reason codes that do not fail the row (`N_...`); a row with `error_code` has no image."""


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
