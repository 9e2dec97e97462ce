"""LLMDet (MM-Grounding-DINO): boxes of any names, and boxes of the phrases of a caption.

Axes: B images of one size, N pairs of an image and a prompt, Q object queries, T tokens, h w pixels.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from transformers import MMGroundingDinoForObjectDetection

from ovsops.backbones.checkpoint import ResolvedCheckpoint, load_pretrained, read_config
from ovsops.backbones.detections import (
    Detections,
    best_pairs,
    boxes_in_pixels,
    label_scores,
    merged_detections,
)
from ovsops.backbones.grounding_pixels import detector_size, padded_size, padded_views, resized_pixels
from ovsops.backbones.grounding_prompts import GroundingPrompt, caption_prompt, name_prompts, padded_ids
from ovsops.backbones.inputs import check_images
from ovsops.backbones.wordpiece import WordPieces
from ovsops.errors import CheckpointError, ConfigError, ShapeError
from ovsops.text.label_names import LabelNames

Item = TypeVar("Item")

logger = logging.getLogger(__name__)

MAX_TOKENS = 256
"""Tokens of a prompt, where config.json says nothing."""
MODEL_TYPE = "mm-grounding-dino"
"""What the config.json of LLMDet says."""


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """How images and names reach the detector, and what of its answer is kept."""

    short_side: int = 800
    """Pixels of an image's short side when it is read."""
    max_long_side: int = 1333
    """Pixels that the long side may have at most."""
    names_per_prompt: int = 40
    """Names that share a prompt, where they fit into its tokens. Scores of a name depend a little on the others."""
    pairs_per_pass: int = 1
    """Pairs of an image and a prompt that run together: memory and speed, not results."""
    min_score: float = 0.05
    """Detections below this are dropped."""
    max_per_prompt: int = 300
    """Best pairs of a box and a name that one prompt may add."""
    nms_iou: float | None = 0.8
    """A box with an IoU above this with a better one is a double of it; None keeps doubles, as published."""
    nms_across_labels: bool = False
    """Whether boxes of different names may be doubles of each other."""
    max_detections: int = 300
    """Best detections of an image that stay."""

    def __post_init__(self) -> None:
        for field in (
            "short_side",
            "max_long_side",
            "names_per_prompt",
            "pairs_per_pass",
            "max_per_prompt",
            "max_detections",
        ):
            if getattr(self, field) < 1:
                raise ConfigError(f"detector: {field} is {getattr(self, field)}; give 1 or more")
        if self.max_long_side < self.short_side:
            raise ConfigError(
                f"detector: max_long_side {self.max_long_side} is under short_side {self.short_side}"
            )
        for field, value in (("min_score", self.min_score), ("nms_iou", self.nms_iou)):
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"detector: {field} is {value}; give a number in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class DetectorImages:
    """What the image encoder made of some images of one size; every prompt starts from it."""

    levels: tuple[tuple[Float[Tensor, "B _ _ _"], Bool[Tensor, "B _ _"]], ...]
    """Maps, fine to coarse, and where they show the image."""
    positions: tuple[Float[Tensor, "B _ _ _"], ...]
    pixel_mask: Bool[Tensor, "B h w"]
    sizes_hw: tuple[tuple[int, int], ...]
    """Sizes of the images as given."""

    def __len__(self) -> int:
        return len(self.sizes_hw)


class LlmDet:
    """A frozen MM-Grounding-DINO with the pre- and post-processing of LLMDet.

    Images share a pass only with images of the same size after resizing: the image encoder's norms run over padding
    too, so that an image padded to the size of a larger one would get other boxes.
    """

    def __init__(
        self,
        checkpoint: ResolvedCheckpoint,
        *,
        device: str,
        dtype: torch.dtype,
        config: DetectorConfig | None = None,
    ) -> None:
        self.config = config or DetectorConfig()
        self.model: Any = load_pretrained(
            MMGroundingDinoForObjectDetection, checkpoint, device=device, dtype=dtype
        )
        self.pieces = WordPieces(checkpoint.folder)
        self.max_tokens = int(self.model.config.max_text_len)
        self._backbone = _ReplayedBackbone(self.model.model.backbone)
        self.model.model.backbone = self._backbone
        self._strides = _strides(self.model.config)

    def detect(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: LabelNames) -> list[Detections]:
        """Boxes of the names in each image, in main memory; an image's boxes do not depend on the other images.

        The names go through as many prompts as they need, the image through its encoder once. Labels are places in
        `names`; of names that collide, the first. No images give no detections; what is no RGB image in 0..255 is a
        `ShapeError`.
        """
        prompts = self.name_prompts(names)
        return self._found(images, prompts)

    def ground(
        self, image: UInt8[np.ndarray, "_ _ 3"], caption: str, spans: Sequence[tuple[int, int]]
    ) -> Detections:
        """Boxes of phrases of a caption; a label is the place of the phrase among `spans`, its characters.

        A caption of more tokens than the detector reads is a `ShapeError`.
        """
        prompt = caption_prompt(self.pieces, caption, spans, max_tokens=self.max_tokens)
        return self._found([image], [prompt])[0]

    def name_prompts(self, names: LabelNames) -> list[GroundingPrompt]:
        """The prompts that `detect` asks for these names."""
        return name_prompts(
            self.pieces, names, names_per_prompt=self.config.names_per_prompt, max_tokens=self.max_tokens
        )

    @torch.inference_mode()
    def encode_images(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> DetectorImages:
        """Run the image encoder on images that have one size after resizing; none, or several sizes, are a
        `ShapeError`.
        """
        check_images(images)
        sizes_hw = sorted({self._size(image) for image in images})
        if len(sizes_hw) != 1:
            raise ShapeError(
                f"detector: {len(images)} images, sizes after resizing {sizes_hw[:5]} (height, width); images of"
                " exactly one size are encoded together, and `detect` sorts them by it"
            )
        resized = torch.stack([resized_pixels(image, sizes_hw[0]) for image in images])
        size_hw = padded_size(
            (resized.shape[-2], resized.shape[-1]),
            strides=self._strides,
            min_places=int(self.model.config.num_queries),
        )
        views, is_image = padded_views(resized.to(self.model.device), size_hw)
        levels, positions = self._backbone.run(views.to(self.model.dtype), is_image)
        return DetectorImages(
            levels=tuple(levels),
            positions=tuple(positions),
            pixel_mask=is_image,
            sizes_hw=tuple((image.shape[0], image.shape[1]) for image in images),
        )

    @torch.inference_mode()
    def predict(
        self, images: DetectorImages, pairs: Sequence[tuple[int, GroundingPrompt]]
    ) -> tuple[Float[Tensor, "N Q T"], Float[Tensor, "N Q 4"]]:
        """Logits of tokens and boxes (centre and sides, as shares of the image's) for pairs of an image's place and a
        prompt.
        """
        device = self.model.device
        ids, is_token = padded_ids([prompt for _, prompt in pairs])
        places = torch.tensor([place for place, _ in pairs], device=device)
        pixel_mask = images.pixel_mask[places]
        with self._backbone.replaying(images, places):
            found = self.model(
                pixel_values=pixel_mask[:, None].expand(-1, 3, -1, -1),  # only its shape is read
                pixel_mask=pixel_mask,
                input_ids=ids.to(device),
                attention_mask=is_token.to(device),
            )
        return found.logits, found.pred_boxes

    def _found(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], prompts: Sequence[GroundingPrompt]
    ) -> list[Detections]:
        check_images(images)
        found: dict[int, Detections] = {}
        for batch in self._batches(images):
            encoded = self.encode_images([images[place] for place in batch])
            for place, detections in zip(batch, self._merged(encoded, prompts), strict=True):
                found[place] = detections
        return [found[place] for place in range(len(images))]

    def _merged(self, images: DetectorImages, prompts: Sequence[GroundingPrompt]) -> list[Detections]:
        config = self.config
        parts: list[list[Detections]] = [[] for _ in range(len(images))]
        pairs = [(place, prompt) for prompt in prompts for place in range(len(images))]
        for some in _sliced(pairs, config.pairs_per_pass):
            token_logits, boxes_cxcywh = self.predict(images, some)
            for (place, prompt), logits, boxes in zip(some, token_logits, boxes_cxcywh, strict=True):
                parts[place].append(self._kept(prompt, logits, boxes, images.sizes_hw[place]))
        return [
            merged_detections(
                part,
                iou=config.nms_iou,
                across_labels=config.nms_across_labels,
                limit=config.max_detections,
            )
            for part in parts
        ]

    def _kept(
        self,
        prompt: GroundingPrompt,
        token_logits: Float[Tensor, "Q T"],
        boxes_cxcywh: Float[Tensor, "Q 4"],
        size_hw: tuple[int, int],
    ) -> Detections:
        """The best of one prompt, in main memory."""
        token_map = prompt.token_map(token_logits.shape[-1]).to(token_logits.device)
        corners, has_area = boxes_in_pixels(boxes_cxcywh, size_hw)
        scores = label_scores(token_logits, token_map).where(has_area[:, None], -1.0)
        best, queries, spans = best_pairs(
            scores, limit=self.config.max_per_prompt, min_score=self.config.min_score
        )
        labels = torch.tensor(prompt.labels, device=spans.device)[spans]
        return Detections(boxes_xyxy=corners[queries], scores=best, labels=labels).cpu()

    def _batches(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Iterator[list[int]]:
        """Places of images that share a size after resizing, `pairs_per_pass` at a time."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for place, image in enumerate(images):
            by_size.setdefault(self._size(image), []).append(place)
        for places in by_size.values():
            yield from _sliced(places, self.config.pairs_per_pass)

    def _size(self, image: UInt8[np.ndarray, "_ _ 3"]) -> tuple[int, int]:
        return detector_size(
            (image.shape[0], image.shape[1]),
            short_side=self.config.short_side,
            max_long_side=self.config.max_long_side,
        )


def check_detector_model(checkpoint: ResolvedCheckpoint) -> None:
    """Raise `CheckpointError` for a checkpoint of another model. Reads config.json alone."""
    found = read_config(checkpoint).get("model_type")
    if found != MODEL_TYPE:
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: model_type {found!r}; LLMDet is of {MODEL_TYPE!r}"
        )


def check_detector_names(
    checkpoint: ResolvedCheckpoint, names: LabelNames, *, names_per_prompt: int
) -> list[GroundingPrompt]:
    """The prompts that a detector would be asked, from its tokenizer alone.

    Raises `VocabularyError` for a name that it cannot read; warns of names that clean to one phrase.
    """
    collisions = names.collisions
    if collisions:
        logger.warning(
            "the detector cannot tell apart %s%s: what it finds is labelled with the first of each",
            "; ".join(", ".join(map(repr, same)) for same in collisions[:5]),
            f" and {len(collisions) - 5} more groups of names" if len(collisions) > 5 else "",
        )
    max_tokens = int(read_config(checkpoint).get("max_text_len", MAX_TOKENS))
    pieces = WordPieces(checkpoint.folder)
    return name_prompts(pieces, names, names_per_prompt=names_per_prompt, max_tokens=max_tokens)


class _ReplayedBackbone(nn.Module):
    """The model's image tower, which inside `replaying` hands out what it made before instead of running."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower: Any = tower
        self._given: tuple[DetectorImages, Tensor] | None = None

    @property
    def position_embedding(self) -> Any:
        """The model asks for it by this name, for the levels that it makes itself."""
        return self.tower.position_embedding

    def run(self, views: Tensor, is_image: Tensor) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        """Maps with masks, and position encodings, of padded views."""
        levels, positions = self.tower(views, is_image)
        return levels, positions

    @contextmanager
    def replaying(self, images: DetectorImages, places: Tensor) -> Iterator[None]:
        """Meanwhile the tower's answer is that for the images at `places`."""
        self._given = (images, places)
        try:
            yield
        finally:
            self._given = None

    def forward(
        self, pixel_values: Tensor, pixel_mask: Tensor
    ) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        if self._given is None:
            return self.run(pixel_values, pixel_mask)
        images, places = self._given
        levels = [(level[places], mask[places]) for level, mask in images.levels]
        return levels, [
            position[places] for position in images.positions
        ]  # a new list: the model appends to it


def _strides(config: Any) -> tuple[int, ...]:
    """Pixels between neighbours on each map: those of the backbone's stages, then twice the last again and again."""
    backbone = config.backbone_config
    stages = [int(backbone.patch_size) * 2 ** (index - 1) for index in backbone.out_indices]
    further = range(1, int(config.num_feature_levels) - len(stages) + 1)
    return (*stages, *(stages[-1] * 2**times for times in further))


def _sliced(items: Sequence[Item], length: int) -> Iterator[list[Item]]:
    for first in range(0, len(items), length):
        yield list(items[first : first + length])
