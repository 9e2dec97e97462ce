"""Captions that somebody else wrote, checked against the picture by FG-CLIP 2. Axes: N boxes, h w pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, UInt8
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

    def ground(
        self,
        seen: FgClip2Image,
        boxes_xyxy: Float[Tensor, "N 4"],
        written: Sequence[WrittenCaption | None],
        *,
        source: str,
    ) -> list[RegionCaption | None]:
        """What the boxes support of what was written about them; None where that is nothing, or nothing was written.

        A box without area on the grid supports nothing.
        """
        features, is_empty = self.model.region_features(seen, boxes_xyxy)
        found: list[RegionCaption | None] = []
        for feature, empty, words in zip(features, is_empty.tolist(), written, strict=True):
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
