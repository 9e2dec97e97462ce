"""An answer to "is it what the label says?", and the map it rests on. Axes: H W patches.

No model is needed to read them, so nothing heavy is imported.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, UInt8

from ovsops.errors import ShapeError

Answer = Literal["yes", "no", "unsure"]
FGCLIP2 = "fgclip2"
"""Who answered; an endpoint is `vlm:NAME`."""


@dataclass(frozen=True, kw_only=True)
class EvidenceMap:
    """Cosines of a label with the patches of a region, as bytes."""

    data: bytes
    """uint8, row by row; 0 is `low`, 255 is `high`."""
    shape: tuple[int, int]
    """Rows and columns."""
    box_xyxy: tuple[float, float, float, float]
    """What the map covers, in pixels of the image: whole patches, so a little more than the region's box."""
    low: float
    high: float

    def __post_init__(self) -> None:
        if len(self.data) != self.shape[0] * self.shape[1] or not self.data:
            raise ShapeError(
                f"evidence map of {self.shape} with {len(self.data)} bytes: one byte a cell is wanted"
            )

    def grid(self) -> UInt8[np.ndarray, "H W"]:
        """The bytes as rows and columns; not writable."""
        return np.frombuffer(self.data, np.uint8).reshape(self.shape)

    def cosines(self) -> Float64[np.ndarray, "H W"]:
        """As they were, to (high - low) / 510."""
        return self.low + self.grid().astype(np.float64) * ((self.high - self.low) / 255)

    def to_row(self) -> dict[str, Any]:
        """Plain data; `from_row` reads it back."""
        return {
            "data": self.data,
            "shape": list(self.shape),
            "box_xyxy": list(self.box_xyxy),
            "low": self.low,
            "high": self.high,
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "EvidenceMap":
        """Inverse of `to_row`."""
        rows, columns = (int(side) for side in row["shape"])
        x0, y0, x1, y1 = (float(side) for side in row["box_xyxy"])
        return cls(
            data=bytes(row["data"]),
            shape=(rows, columns),
            box_xyxy=(x0, y0, x1, y1),
            low=float(row["low"]),
            high=float(row["high"]),
        )


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The answer about one region."""

    answer: Answer
    source: str
    """`fgclip2`, or `vlm:NAME`."""
    cosine: float | None = None
    margin: float | None = None
    """Cosine above the best rival; none without rivals, for an empty region, and from an endpoint."""
    rival: int | None = None
    """Place of the best rival's name."""
    evidence: EvidenceMap | None = None
