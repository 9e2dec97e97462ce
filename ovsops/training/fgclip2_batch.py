"""What a step of FG-CLIP 2's training sees, and where it comes from. A source of other data gives the same batches.

Axes: B images, R regions, H regions with negatives, h w pixels, T things of an image
(the most that any has), A attributes.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ovsops.errors import ShapeError


@dataclass(frozen=True, kw_only=True)
class CaptionBatch:
    """Images with a short and a long caption each; what stage 1 learns from."""

    images: tuple[UInt8[np.ndarray, "_h _w 3"], ...]
    """RGB, of any sizes."""
    captions_short: tuple[str, ...]
    captions_long: tuple[str, ...]
    caption_keys: Int[Tensor, " B"]
    """Images with equal keys have captions that are true of each other."""

    def __post_init__(self) -> None:
        lengths = {
            len(self.images),
            len(self.captions_short),
            len(self.captions_long),
            len(self.caption_keys),
        }
        if len(lengths) != 1 or not self.images:
            raise ShapeError(
                f"batch of {len(self.images)} images, {len(self.captions_short)} short and {len(self.captions_long)} "
                f"long captions, {len(self.caption_keys)} keys: as many of each, and at least one, are expected"
            )


@dataclass(frozen=True, kw_only=True)
class ThingMaps:
    """Which thing is where, in images of one size, and what it is."""

    instances: UInt8[Tensor, "B h w"]
    """0, or the place of a thing in its image, from 1."""
    codes: Int[Tensor, "B T A"]
    """Attributes of each thing in the order and numbers of `ovsops.training.scenes.FAMILIES`."""


@dataclass(frozen=True, kw_only=True)
class RegionBatch(CaptionBatch):
    """The same with regions of the images; what stage 2 learns from."""

    boxes_xyxy: Float[Tensor, "R 4"]
    """Pixels of the region's image."""
    box_images: Int[Tensor, " R"]
    """Place of the region's image, rising."""
    phrases: tuple[str, ...]
    """What each region is, in words."""
    phrase_keys: Int[Tensor, " R"]
    """Equal for phrases that say the same, in whatever language."""
    hard_regions: Int[Tensor, " H"]
    """Places of regions with negatives; a region may be there more than once."""
    hard_phrases: tuple[str, ...]
    """The true phrase of each, often a fuller one than in `phrases`."""
    negatives: tuple[tuple[str, ...], ...]
    """Phrases of each that are wrong in an attribute, as many for one as for another."""
    label_keys: Int[Tensor, " R"] | None = None
    """Equal for regions that are no rivals of each other, as one's phrase may be true of the other; None: all whose
    phrases differ are rivals."""
    things: "ThingMaps | None" = None
    """What is known of every pixel, where a source knows it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        of_regions = {len(self.boxes_xyxy), len(self.box_images), len(self.phrases), len(self.phrase_keys)}
        if self.label_keys is not None:
            of_regions.add(len(self.label_keys))
        of_hard = {len(self.hard_regions), len(self.hard_phrases), len(self.negatives)}
        counts = {len(row) for row in self.negatives}
        if len(of_regions) != 1 or len(of_hard) != 1 or len(counts) > 1 or counts == {0}:
            raise ShapeError(
                f"batch of {len(self.boxes_xyxy)} boxes with {len(self.phrases)} phrases, {len(self.hard_phrases)} "
                f"hard phrases with {sorted(counts)} negatives: a phrase and a key for each region, and "
                "as many negatives for one as for another, are expected"
            )
        images, hard = self.box_images, self.hard_regions
        if len(images) and not (
            0 <= int(images[0]) and int(images[-1]) < len(self.images) and bool((images.diff() >= 0).all())
        ):
            raise ShapeError(
                f"regions of images {images.tolist()}: places in the batch of {len(self.images)} are expected, rising"
            )
        if len(hard) and not 0 <= int(hard.min()) <= int(hard.max()) < len(images):
            raise ShapeError(f"negatives for regions {hard.tolist()}: the batch has {len(images)} regions")


@runtime_checkable
class CaptionSource(Protocol):
    """Where stage 1's batches come from."""

    def captions(self, step: int) -> CaptionBatch:
        """This worker's batch; it depends on the step alone."""


@runtime_checkable
class RegionSource(Protocol):
    """Where stage 2's batches come from."""

    def regions(self, step: int) -> RegionBatch:
        """This worker's batch; it depends on the step alone."""


def keys_of(values: list[object]) -> Int[Tensor, " R"]:
    """Small numbers, equal where the values are."""
    places: dict[object, int] = {}
    return torch.tensor([places.setdefault(value, len(places)) for value in values], dtype=torch.int64)
