"""One training sample: an image, its captions, its regions with expressions and negatives. Every writer takes
this one type.

A record holds the contract (`contract.py`) or is not built: texts are lower case, boxes lie in the image,
negatives are ten or none. All texts of a sample are of one language, because the published trainer decides per
image how texts are read.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ovsops.errors import RowError
from ovsops.masks.rle import Rle
from pipelines.training_sets.contract import (
    Fault,
    box_faults,
    forbidden_character,
    negatives_faults,
    source_faults,
    text_faults,
)

Language = Literal["en", "zh"]
Split = Literal["train", "val", "test"]
Box = tuple[float, float, float, float]

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionNegatives:
    """Ten expressions that are false for a region."""

    texts: tuple[str, ...]
    types: tuple[str, ...]
    """What was changed in each: `colour`, or `colour+material`."""
    positive: str = ""
    """The expression that they were made of, where its marks were set straight: it takes the place of the region's
    short expression, because any difference but the changed words would give the positive away without the image."""
    scores: tuple[float, ...] | None = None
    """Cosine of the region with each, where one was measured."""
    sources: tuple[str, ...] | None = None
    """Who wrote each (`contract.SOURCES`), where a language model could have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRegion:
    """One thing in an image."""

    region_uid: str
    box: Box
    """x1 y1 x2 y2 in shares of the image's width and height, float32 numbers."""
    score: float
    """0 to 1; calibrated where the label job was."""
    category_id: int
    category: str
    short_expr: str
    long_expr: str
    negatives: RegionNegatives | None = None
    segmentation: Rle | None = None
    """The mask, of the image's size."""

    def __post_init__(self) -> None:
        faults = [*box_faults(self.box, "box"), *text_faults(self.short_expr, "short_expr")]
        faults += text_faults(self.long_expr, "long_expr")
        if not 0 <= self.score <= 1:
            faults.append(Fault("score", "score", f"{self.score} is not in 0..1"))
        if self.negatives is not None:
            faults += negatives_faults(self.short_expr, self.negatives.texts, "negatives")
            faults += _column_faults(self.negatives)
        _refuse(faults, f"region {self.region_uid}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSample:
    """One image with everything that is said of it."""

    image_uid: str
    """Unique in the set; letters, digits, `-` and `_` alone, so that it can be a file's name everywhere."""
    key: str
    """The image's name where it came from."""
    data: bytes
    """The encoded image, as it came."""
    extension: Literal["jpg", "png", "webp"]
    """By the magic bytes, not by a name."""
    sha256: str
    width: int
    height: int
    """Pixels, EXIF turn applied."""
    exif_orientation: int = 1
    """1 is upright. Others are in a set only where its builder was told to keep them."""
    language: Language
    caption_short: str
    caption_long: str
    license: str | None = None
    source_url: str | None = None
    split: Split = "train"
    group: str = ""
    """Images that are copies of each other, or look alike, share it; a group lies in one split."""
    regions: tuple[TrainingRegion, ...] = ()
    """Best first: the published trainer reads the first four."""

    def __post_init__(self) -> None:
        where = f"image {self.image_uid}"
        faults = [
            *text_faults(self.caption_short, "caption_short"),
            *text_faults(self.caption_long, "caption_long"),
        ]
        if not self.image_uid or not all(c.isascii() and (c.isalnum() or c in "-_") for c in self.image_uid):
            faults.append(Fault("key", "image_uid", "holds more than letters, digits, - and _"))
        if self.width < 1 or self.height < 1 or not self.data:
            faults.append(Fault("image", "data", "no pixels or no bytes"))
        if self.split not in SPLITS:
            faults.append(Fault("split", "split", f"{self.split!r} is none of {', '.join(SPLITS)}"))
        scores = [region.score for region in self.regions]
        if scores != sorted(scores, reverse=True):
            faults.append(Fault("box_best_first", "regions", "not sorted by score, best first"))
        for region in self.regions:
            mask = region.segmentation
            if mask is not None and mask.size_hw != (self.height, self.width):
                faults.append(Fault("rle", "segmentation", f"a mask of {mask.size_hw} (h w)"))
        for name in ("key", "license", "source_url"):
            if (bad := forbidden_character(getattr(self, name) or "")) is not None:
                faults.append(Fault("text_control", name, f"holds U+{ord(bad):04X}"))
        _refuse(faults, where)

    @property
    def file_name(self) -> str:
        """Where its bytes lie in a folder of images: `ab/ab12….jpg`, by content."""
        return f"{self.sha256[:2]}/{self.sha256}.{self.extension}"


def _column_faults(negatives: RegionNegatives) -> Iterable[Fault]:
    columns = {"types": negatives.types, "scores": negatives.scores, "sources": negatives.sources}
    for name, column in columns.items():
        if column is not None and len(column) != len(negatives.texts):
            yield Fault(
                "negatives_columns", name, f"{len(column)} {name} of {len(negatives.texts)} negatives"
            )
    yield from source_faults(negatives.sources or (), "sources")


def _refuse(faults: list[Fault], where: str) -> None:
    if faults:
        first = faults[0]
        raise RowError("E_CONTRACT", f"{where}: {first.field}: {first.message} ({first.rule})")
