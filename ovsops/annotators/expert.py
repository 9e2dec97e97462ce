"""The region expert: FG-CLIP 2's word on every box that a detector found. Axes: N boxes, C classes, D channels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from ovsops.annotators.config import AnyCaptionerConfig, ExpertConfig
from ovsops.annotators.expert_text import ExpertText
from ovsops.annotators.grounder import CaptionGrounder, SeenRegions, see_regions
from ovsops.annotators.judging import ExpertLook, JudgedBoxes, judge_boxes
from ovsops.backbones.detections import Detections
from ovsops.backbones.fgclip2 import FgClip2, FgClip2Image
from ovsops.backbones.fgclip2_scores import image_text_probabilities
from ovsops.regions.captions import RegionCaptioner
from ovsops.regions.presence import joined_similarity
from ovsops.regions.recalibrate import region_similarity
from ovsops.regions.said import RegionCaption
from ovsops.regions.verdicts import Verification
from ovsops.regions.verify import evidence_map, verify_regions


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertClasses:
    """What the expert knows of a vocabulary's classes beside their texts."""

    competing: Int64[Tensor, " C"]
    """Classes that compete share a number."""
    rivals: Bool[Tensor, "C C"]
    """Names that stand against each other when a label is verified."""
    names: tuple[str, ...]
    nouns: tuple[str, ...]
    """What captions begin with, in their language."""
    is_stuff: tuple[bool, ...]
    caption_language: str


class RegionExpert:
    """Names, scores and presence by FG-CLIP 2, joined with a detector's."""

    def __init__(
        self,
        config: ExpertConfig,
        text: ExpertText,
        model: FgClip2,
        *,
        classes: ExpertClasses,
        device: str,
    ) -> None:
        self.config, self.model, self.classes = config, model, classes
        self.text = text.to(device)
        self.captioner = (
            None
            if config.captions is None
            else RegionCaptioner(partial(model.encode_text, length="box"), config=config.captions)
        )

    def see(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[FgClip2Image]:
        """What the expert sees of each image; images do not depend on each other."""
        return self.model.encode_images(images, budget=self.config.max_patches)

    def regions(self, seen: FgClip2Image, boxes_xyxy: Float[Tensor, "N 4"]) -> SeenRegions:
        """What the expert sees of boxes; everything else that is said of them starts here."""
        return see_regions(self.model, seen, boxes_xyxy)

    def look(self, seen: FgClip2Image, regions: SeenRegions) -> ExpertLook:
        """What judging needs, in main memory; runs no tower again."""
        image = image_text_probabilities(
            seen.pooled[None],
            self.text.short,
            logit_scale=self.model.logit_scale,
            logit_bias=self.model.logit_bias,
        )[0]
        config = None if self.config.presence is None else self.config.presence.similarity
        joined = joined_similarity(seen.pooled, seen.dense_map, seen.attention, self.text.box, config=config)
        return ExpertLook(
            similarity=self._similarity(regions),
            is_empty=regions.is_empty.cpu(),
            image_scores=image.cpu(),
            joined=joined.cpu(),
        )

    def judge(self, seen: FgClip2Image, regions: SeenRegions, found: Detections) -> JudgedBoxes:
        """Boxes with the expert's names and scores, doubles and what is not there removed.

        Nothing is said of the presence of stuff: nobody looks for it with boxes, and the gate is fitted on things.
        """
        look = self.look(seen, regions)
        judged = judge_boxes(look, found, self.config, competing=self.classes.competing)
        things = frozenset(label for label, is_stuff in enumerate(self.classes.is_stuff) if not is_stuff)
        return replace(judged, presence=judged.presence.of(things))

    def describe(self, regions: SeenRegions, labels: Int64[Tensor, " N"]) -> list[RegionCaption] | None:
        """A caption of each box, from its class's noun; None where no captions are wanted."""
        config = self.config.captions
        if self.captioner is None or config is None:
            return None
        words = [self.classes.nouns[label] for label in labels.tolist()]
        asked = [
            config.asked(self.classes.names[label], is_stuff=bool(self.classes.is_stuff[label]))
            for label in labels.tolist()
        ]
        return self.captioner.caption(
            regions.features,
            regions.is_empty,
            words,
            language=self.classes.caption_language,
            asked=asked,
        )

    def grounder(self, config: AnyCaptionerConfig, *, language: str) -> CaptionGrounder | None:
        """Who checks a captioner's words with this expert's model; None where they are believed."""
        if config.grounding is None:
            return None
        return CaptionGrounder(
            self.model,
            config.grounding,
            language=language,
            words=config.words,
            max_phrases=config.max_phrases,
            max_patches=self.config.max_patches,
        )

    def verify(
        self,
        seen: FgClip2Image,
        regions: SeenRegions,
        boxes_xyxy: Float[Tensor, "N 4"],
        labels: Int64[Tensor, " N"],
    ) -> list[Verification] | None:
        """Whether each box is what its label says; None where nobody asks."""
        config = self.config.verify
        if config is None:
            return None
        is_empty = regions.is_empty.cpu()
        found = verify_regions(
            self._similarity(regions), labels, is_empty, is_rival=self.classes.rivals[labels], config=config
        )
        if not config.evidence_side:
            return found
        return [
            each
            if empty
            else replace(
                each,
                evidence=evidence_map(seen, box, self.text.box[label], max_side=config.evidence_side),
            )
            for each, empty, box, label in zip(
                found, is_empty.tolist(), boxes_xyxy.tolist(), labels.tolist(), strict=True
            )
        ]

    def _similarity(self, regions: SeenRegions) -> Float[Tensor, "N C"]:
        return region_similarity(regions.features, self.text.box).cpu()
