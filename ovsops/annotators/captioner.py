"""A captioner's phrases for boxes that are judged, without what the expert does not see. Axes: N boxes, h w pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ovsops.annotators.grounder import CaptionGrounder, SeenRegions, WrittenCaption
from ovsops.annotators.names import first_prompts, group_rivals
from ovsops.backbones.florence2 import RegionText
from ovsops.errors import VocabularyError
from ovsops.regions.caption_text import clean_caption
from ovsops.regions.said import RegionCaption
from ovsops.text.vocabulary import Vocabulary

CAPTIONER_LANGUAGE = "en"
"""What Florence-2 writes."""


@runtime_checkable
class Describer(Protocol):
    """What puts a region into words."""

    def describe(
        self, image: UInt8[np.ndarray, "h w 3"], boxes_xyxy: Float[Tensor, "N 4"]
    ) -> list[RegionText | None]:
        """A phrase for each box; None for one that shows nothing."""


@dataclass(frozen=True, kw_only=True)
class CaptionerClasses:
    """What a captioner's language calls the classes, in vocabulary order."""

    nouns: tuple[str, ...]
    rivals: tuple[tuple[str, ...], ...]
    """Nouns that each may be mistaken for."""


def captioner_classes(
    vocabulary: Vocabulary, languages: Sequence[str], *, is_checked: bool
) -> CaptionerClasses:
    """What a captioner calls the classes. `VocabularyError` where its words are checked and a noun is missing."""
    words = first_prompts(vocabulary, tuple(dict.fromkeys((CAPTIONER_LANGUAGE, *languages))))
    foreign = [vocabulary.classes[each.label].name for each in words if each.language != CAPTIONER_LANGUAGE]
    if is_checked and foreign:
        raise VocabularyError(
            f"vocabulary {vocabulary.name}: the captioner writes English, its words are checked by their nouns, and "
            f"{', '.join(foreign[:5])} has no English prompt; add one, or set captioner.grounding to null"
        )
    nouns = tuple(each.prompt for each in words)
    return CaptionerClasses(
        nouns=nouns, rivals=tuple(tuple(nouns[i] for i in group) for group in group_rivals(vocabulary))
    )


class BoxCaptioner:
    """Describes boxes of an image, the first of them up to a cap."""

    def __init__(
        self,
        model: Describer,
        *,
        source: str,
        classes: CaptionerClasses,
        max_regions: int,
        grounder: CaptionGrounder | None = None,
    ) -> None:
        self.model, self.source, self.classes = model, source, classes
        self.max_regions, self.grounder = max_regions, grounder

    def describe(
        self,
        image: UInt8[np.ndarray, "_h _w 3"],
        regions: SeenRegions | None,
        boxes_xyxy: Float[Tensor, "N 4"],
        labels: Int64[Tensor, " N"],
        earlier: Sequence[RegionCaption | None] | None = None,
    ) -> list[RegionCaption | None]:
        """A caption of each box, best scores first; `regions` is what the expert saw of the boxes.

        Where the captioner says nothing, or nothing that is supported, the `earlier` caption stays.
        """
        before = [None] * len(labels) if earlier is None else list(earlier)
        boxes = boxes_xyxy[: self.max_regions]
        written = [
            None if said is None else self._written(said, label)
            for said, label in zip(
                self.model.describe(image, boxes), labels[: self.max_regions].tolist(), strict=True
            )
        ]
        if self.grounder is None or regions is None:
            found = [None if words is None else self._plain(words) for words in written]
        else:
            described = regions.at(torch.arange(len(written)))
            found = self.grounder.ground(described, written, source=self.source)
        return [new or old for new, old in zip(found, before, strict=False)] + before[self.max_regions :]

    def _written(self, said: RegionText, label: int) -> WrittenCaption | None:
        text = clean_caption(said.text).text
        if not any(map(str.isalnum, text)):
            return None
        return WrittenCaption(
            short=text, long=text, noun=self.classes.nouns[label], rivals=self.classes.rivals[label]
        )

    def _plain(self, words: WrittenCaption) -> RegionCaption:
        return RegionCaption(short=words.short, long=words.long, source=self.source)
