"""What is said of one image before masks are cut out and written. Axes: h w pixels."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ovsops.masks.class_map import ClassMap
from ovsops.masks.rle import Rle
from ovsops.regions.said import RegionCaption
from ovsops.regions.verdicts import Verification

BoxXyxy = tuple[float, float, float, float]
"""Corners in EXIF-applied pixels."""


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A name that was found on the same thing and lost: a candidate for a hard negative, once it is validated."""

    label: int
    """Place of its class in the vocabulary, from 0."""
    score: float


@dataclass(frozen=True, kw_only=True)
class FoundBox:
    """A thing with a name, before its mask is cut out."""

    label: int
    """Place of its class in the vocabulary, from 0."""
    box_xyxy: BoxXyxy
    prompt: str
    """The words that found it; those of its class after it was renamed."""
    language: str
    score: float
    """The last word: fused where two models spoke."""
    score_detector: float | None = None
    score_alignment: float | None = None
    score_calibrated: float | None = None
    mask: Rle | None = None
    """From a model that draws instances itself."""
    rivals: tuple[Rival, ...] = ()
    caption: RegionCaption | None = None
    verification: Verification | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImagePresence:
    """Which classes are in the image at all. Labels are places in the vocabulary, from 0."""

    scores: tuple[tuple[int, float], ...] = ()
    """Chance of each class that was asked for."""
    verified_absent: tuple[int, ...] = ()
    """Looked for and not there: negatives that one may train on."""
    exhaustive: tuple[int, ...] = ()
    """All their objects are believed found."""

    def of(self, labels: Collection[int]) -> "ImagePresence":
        """What is said of these classes."""
        return ImagePresence(
            scores=tuple(pair for pair in self.scores if pair[0] in labels),
            verified_absent=tuple(label for label in self.verified_absent if label in labels),
            exhaustive=tuple(label for label in self.exhaustive if label in labels),
        )


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One image, annotated."""

    class_map: ClassMap | None = None
    boxes: tuple[FoundBox, ...] | None = None
    """None where nobody looked for boxes."""
    other_map: ClassMap | None = None
    """A second segmenter's opinion."""
    presence: ImagePresence = field(default_factory=ImagePresence)
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Boxes left out, counted by reason (`R_...`)."""
