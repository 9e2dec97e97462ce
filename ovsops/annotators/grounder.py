"""Captions that somebody else wrote, checked against the picture by FG-CLIP 2. Axes: N boxes, h w pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from ovsops.backbones.fgclip2 import FgClip2, FgClip2Image
from ovsops.regions.attributes import Words, load_attributes
from ovsops.regions.caption_config import GroundingConfig
from ovsops.regions.grounding import ground_caption
from ovsops.regions.phrase_cache import PhraseCache
from ovsops.regions.said import DETECTOR, RegionCaption


@dataclass(frozen=True, kw_only=True)
class WrittenCaption:
    """A captioner's words about a region."""

    short: str
    long: str
    noun: str
    """What its class is called in the language of the words."""
    rivals: tuple[str, ...] = ()
    """Nouns that it may be mistaken for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenRegions:
    """What the boxes of an image show, as FG-CLIP 2 sees it: looked up once, used by everyone who asks about them."""

    features: Float[Tensor, "N D"]
    """Unit vectors, zero for an empty box; where the model is."""
    is_empty: Bool[Tensor, " N"]
    """Boxes without area on the model's grid."""

    def at(self, places: Int64[Tensor, " K"]) -> "SeenRegions":
        """Those of the boxes at `places`, in that order."""
        here = places.to(self.features.device)
        return SeenRegions(features=self.features[here], is_empty=self.is_empty[here])


def see_regions(model: FgClip2, seen: FgClip2Image, boxes_xyxy: Float[Tensor, "N 4"]) -> SeenRegions:
    """What `model` sees of each box."""
    features, is_empty = model.region_features(seen, boxes_xyxy)
    return SeenRegions(features=features, is_empty=is_empty)


class CaptionGrounder:
    """Drops clauses that a region does not support; keeps the features of phrases that it has met. For one thread."""

    def __init__(
        self,
        model: FgClip2,
        config: GroundingConfig,
        *,
        language: str,
        words: Words,
        max_phrases: int,
        max_patches: int | None,
    ) -> None:
        self.model, self.config, self.language, self.max_patches = model, config, language, max_patches
        self.vocabulary = load_attributes(words)
        self.vocabulary.check_language(language)
        self.phrases = PhraseCache(partial(model.encode_text, length="box"), max_phrases=max_phrases)

    def see(self, image: UInt8[np.ndarray, "_h _w 3"]) -> FgClip2Image:
        """The image as the check sees it."""
        return self.model.encode_images([image], budget=self.max_patches)[0]

    def see_regions(
        self, image: UInt8[np.ndarray, "_h _w 3"], boxes_xyxy: Float[Tensor, "N 4"]
    ) -> SeenRegions:
        """Boxes of an image that nobody has looked at yet."""
        return see_regions(self.model, self.see(image), boxes_xyxy)

    def ground(
        self,
        regions: SeenRegions,
        written: Sequence[WrittenCaption | None],
        *,
        source: str,
    ) -> list[RegionCaption | None]:
        """What regions support of what was written about them; None where that is nothing, or nothing was written.

        A box without area on the grid supports nothing.
        """
        found: list[RegionCaption | None] = []
        for feature, empty, words in zip(regions.features, regions.is_empty.tolist(), written, strict=True):
            if empty or words is None:
                found.append(None)
                continue
            caption = ground_caption(
                words.short,
                words.long,
                feature,
                words.noun,
                source=source,
                language=self.language,
                encode=self.phrases,
                vocabulary=self.vocabulary,
                rivals=words.rivals,
                config=self.config,
            )
            found.append(None if caption.source == DETECTOR else caption)
        return found
