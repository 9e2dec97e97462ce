"""What SAM 3 predicts to scores of pixels and to instances.

Axes: P prompts, Q object queries, m m cells of a mask, c rows of scores, h w pixels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ovsops.backbones.sam3 import Sam3Prediction
from ovsops.masks.class_map import ClassMap
from ovsops.masks.nms import mask_nms
from ovsops.masks.rle import Rle
from ovsops.segmenters.labels import upsampled
from ovsops.segmenters.sam3_config import Sam3SegmenterConfig

RefinePlanes = Callable[[Tensor], Tensor]
"""Planes [c h w] of any size to refined planes of the size of a picture."""


@dataclass(frozen=True, kw_only=True)
class Sam3Instance:
    """One thing that a prompt found."""

    prompt: int
    """Place of the prompt in the text features, from 0."""
    label: int
    """Place of its class, from 1; 0 for a background prompt."""
    score: float
    """Query score times presence, in [0, 1]."""
    box_xyxy: tuple[float, float, float, float]
    """The model's own box, pixels; not the box of the mask."""
    mask: Rle


@dataclass(frozen=True, kw_only=True)
class Sam3Detections:
    """What all prompts found in one image."""

    presence: np.ndarray
    """Presence score of each prompt, float32, in [0, 1]."""
    instances: tuple[Sam3Instance, ...]
    """Best first."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Instances before their masks are drawn at the image's size. Axes: N candidates."""

    mask_logits: Float[Tensor, "N m m"]
    scores: Float[Tensor, " N"]
    boxes_xyxy: Float[Tensor, "N 4"]
    prompts: Int[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, places: Int[Tensor, " K"]) -> "Candidates":
        """Some of them, in that order."""
        return Candidates(**{name: value[places] for name, value in vars(self).items()})

    def joined(self, others: "Candidates") -> "Candidates":
        """These, then the others."""
        both = {name: torch.cat([value, getattr(others, name)]) for name, value in vars(self).items()}
        return Candidates(**both)


def semantic_scores(prediction: Sam3Prediction, *, instance_threshold: float) -> Float[Tensor, "P m m"]:
    """max(semantic head, instances weighted by their query's score) times presence, each in [0, 1].

    Instances count above `instance_threshold` (score with presence). After SegEarth-OV3 (arXiv:2512.08730), which joins
    the heads so; the rest of that method is not used.
    """
    scores = prediction.semantic_logits.float().sigmoid()
    query_scores = prediction.query_logits.float().sigmoid()
    counts = prediction.scores > instance_threshold
    for prompt, queries in enumerate(counts):
        if bool(queries.any()):
            masks = prediction.mask_logits[prompt, queries].float().sigmoid()
            found = (masks * query_scores[prompt, queries, None, None]).amax(dim=0)
            scores[prompt] = torch.maximum(scores[prompt], found)
    return scores * prediction.presence[:, None, None]


def candidates(
    prediction: Sam3Prediction, config: Sam3SegmenterConfig, *, first_prompt: int = 0
) -> Candidates:
    """Instances above the threshold, each prompt's own duplicates suppressed; prompts count from `first_prompt`."""
    scores = prediction.scores
    prompts, queries = (scores > config.instance_threshold).nonzero(as_tuple=True)
    found = Candidates(
        mask_logits=prediction.mask_logits[prompts, queries].float(),
        scores=scores[prompts, queries],
        boxes_xyxy=prediction.boxes_xyxy[prompts, queries].float(),
        prompts=prompts + first_prompt,
    )
    return suppressed(found, found.prompts, config)


def suppressed(found: Candidates, groups: Int[Tensor, " N"], config: Sam3SegmenterConfig) -> Candidates:
    """Without duplicates within a group, best first, at most `max_instances`. Empty masks are none."""
    masks = found.mask_logits > mask_logit(config)
    kept = mask_nms(
        masks, found.scores, iou=config.nms_iou, containment=config.nms_containment, groups=groups
    )
    return found.at(kept[: config.max_instances])


def mask_logit(config: Sam3SegmenterConfig) -> float:
    """The logit of the mask threshold."""
    return math.log(config.mask_threshold / (1 - config.mask_threshold))


def full_mask(
    logits: Float[Tensor, "m m"],
    image_hw: tuple[int, int],
    config: Sam3SegmenterConfig,
    refine: RefinePlanes | None = None,
) -> Bool[Tensor, "h w"]:
    """An instance's mask at the image's size: bilinear, then the threshold. `refine` acts before the threshold.

    `upstream` resizes logits, `corrected` probabilities.
    """
    in_logits = config.mode == "upstream"
    planes = logits[None] if in_logits else logits[None].sigmoid()
    if refine is not None:
        planes = refine(planes)
    threshold = mask_logit(config) if in_logits else config.mask_threshold
    return upsampled(planes, image_hw, align_corners=False)[0] > threshold


def contending(scores: Float[Tensor, "V P m m"], *, margin: float) -> Bool[Tensor, " P"]:
    """Prompts that come within `margin` of the best one in some cell of some view."""
    return (scores >= scores.amax(dim=1, keepdim=True) - margin).flatten(2).any(dim=2).any(dim=0)


class PixelVote:
    """The best class of every pixel, from rows of scores that come a few at a time.

    Holds three planes of the image, however many rows come: memory grows with the image, not with the vocabulary.
    """

    def __init__(self, image_hw: tuple[int, int], *, device: str) -> None:
        self.best = torch.zeros(image_hw, device=device)
        self.label = torch.zeros(image_hw, dtype=torch.int32, device=device)
        self.background = torch.zeros(image_hw, device=device)

    def add(self, scores: Float[Tensor, "c h w"], labels: Int[Tensor, " c"]) -> None:
        """Let rows compete; label 0 is background. Of equal scores the first that came stays."""
        for plane, label in zip(scores, labels.tolist(), strict=True):
            if label == 0:
                torch.maximum(self.background, plane, out=self.background)
                continue
            self.label.masked_fill_(plane > self.best, label)
            torch.maximum(self.best, plane, out=self.best)

    def paint(self, mask: Bool[Tensor, "h w"], score: float, label: int) -> None:
        """Let one instance compete for the pixels of its mask."""
        plane = self.background if label == 0 else self.best
        wins = mask & (plane < score)
        plane.masked_fill_(wins, score)
        if label:
            self.label.masked_fill_(wins, label)

    def class_map(self, *, threshold: float) -> ClassMap:
        """Background wins below the threshold and where a background prompt has more."""
        label = self.label.masked_fill((self.best < threshold) | (self.background > self.best), 0)
        return ClassMap(labels=label.cpu().numpy().astype(np.uint16), scores=self.best.cpu().numpy())
