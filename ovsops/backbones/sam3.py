"""SAM 3: image features once an image, prompt features once a corpus, and what every prompt finds.

Axes: B images, P prompts, L tokens of a prompt, Q object queries, b boxes of a prompt, D channels, h w pixels, m m
cells of a mask. Written for `transformers.Sam3Model`, without torchvision and without its processor classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Sam3Model
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from ovsops.backbones.checkpoint import ResolvedCheckpoint, load_pretrained
from ovsops.backbones.pixels import SIGLIP_MEAN, SIGLIP_STD, normalized
from ovsops.backbones.sam3_calibration import CalibrationReport, SelfCalibration, joined_reports
from ovsops.backbones.sam3_calibration_config import (
    CalibrationConfig,
    CalibrationPreset,
    calibration_preset,
)
from ovsops.errors import ShapeError
from ovsops.masks.roi_align import boxes_to_rois, roi_align

_PADDING_BOX = -10
"""Label of a box that is not there."""


@dataclass(frozen=True, kw_only=True)
class Sam3ImageFeatures:
    """The feature pyramid of some images. At full size 0.11 GB an image in float32: it stays where it was made."""

    levels: tuple[Float[Tensor, "B D _ _"], ...]
    positions: tuple[Float[Tensor, "1 D _ _"], ...]
    """Position encodings, which are the same for every image."""
    report: CalibrationReport
    """What self-calibration did to the tokens."""

    def __len__(self) -> int:
        return len(self.levels[0])

    def images(self, first: int, end: int) -> "Sam3ImageFeatures":
        """Those of images `first` to `end` - 1, sharing memory with these."""
        return Sam3ImageFeatures(
            levels=tuple(level[first:end] for level in self.levels),
            positions=self.positions,
            report=self.report.images(first, end),
        )


@dataclass(frozen=True, kw_only=True)
class Sam3Prediction:
    """What prompts found in one image. Logits are the model's own, before any sigmoid."""

    mask_logits: Float[Tensor, "P Q m m"]
    semantic_logits: Float[Tensor, "P m m"]
    query_logits: Float[Tensor, "P Q"]
    presence_logits: Float[Tensor, " P"]
    """Whether the prompt's concept is in the image at all."""
    boxes_xyxy: Float[Tensor, "P Q 4"]
    """Corners as shares of the image's sides."""
    query_outliers: Bool[Tensor, "P Q"] | None
    """Queries that calibration of the decoder averaged; None where it is off."""

    @property
    def presence(self) -> Float[Tensor, " P"]:
        """Presence score of each prompt, in [0, 1]."""
        return self.presence_logits.float().sigmoid()

    @property
    def scores(self) -> Float[Tensor, "P Q"]:
        """Score of each query: its own times the prompt's presence."""
        return self.query_logits.float().sigmoid() * self.presence[:, None]


class Sam3:
    """A frozen SAM 3 image model, with self-calibration where that is asked for."""

    def __init__(self, model: Any, calibration: CalibrationConfig | CalibrationPreset = "off") -> None:
        self.model = model
        _give_roi_align(model.geometry_encoder)
        self.calibration_config = _calibration(model, calibration)
        self.calibration = SelfCalibration(model, self.calibration_config)
        self.calibration.attach()

    @property
    def image_size(self) -> int:
        """Side of the square that images are resized to; fixed when a model is built."""
        return int(self.model.config.vision_config.backbone_config.image_size)

    @torch.inference_mode()
    def encode_images(self, pixels: Float[Tensor, "B 3 h w"]) -> Sam3ImageFeatures:
        """Features of square RGB images in 0..255 of `image_size`."""
        if tuple(pixels.shape[-2:]) != (self.image_size, self.image_size):
            raise ShapeError(
                f"SAM 3 was built for {self.image_size}x{self.image_size} px, these images have "
                f"{pixels.shape[-1]}x{pixels.shape[-2]}; resize them, without keeping the aspect"
            )
        views = normalized(pixels, mean=SIGLIP_MEAN, std=SIGLIP_STD).to(self.model.dtype)
        found = self.model.get_vision_features(views)
        return Sam3ImageFeatures(
            levels=tuple(found.fpn_hidden_states),
            positions=tuple(encoding[:1] for encoding in found.fpn_position_encoding),
            report=self.calibration.take_report(),
        )

    @torch.inference_mode()
    def predict(
        self,
        features: Sam3ImageFeatures,
        tokens: Float[Tensor, "P L D"],
        attention_mask: Bool[Tensor, "P L"] | None,
        *,
        boxes_cxcywh: Float[Tensor, "P b 4"] | None = None,
        box_labels: Int[Tensor, "P b"] | None = None,
        geometry_token: bool = False,
    ) -> Sam3Prediction:
        """What each prompt finds in the image of `features` (one image). Without a mask no token is padding.

        Boxes are shares of the image's sides, labelled 1 (like this), 0 (not like this) or -10 (no box: padding).
        `geometry_token` adds the geometry encoder's own token where there are no boxes, as Meta's code
        (facebookresearch/sam3 at 99d02f2) does and transformers does not.
        """
        num_prompts = len(tokens)
        if num_prompts == 0 or len(features) != 1:
            raise ShapeError(
                f"SAM 3 predicts one image and one or more prompts at a time, not {len(features)} images and "
                f"{num_prompts} prompts; take `features.images(i, i + 1)`, and leave out images without prompts"
            )
        dtype = self.model.dtype
        if boxes_cxcywh is None and geometry_token:
            boxes_cxcywh = tokens.new_full((num_prompts, 1, 4), 0.5)
            box_labels = torch.full((num_prompts, 1), _PADDING_BOX, device=tokens.device)
        found = self.model(
            vision_embeds=Sam3VisionEncoderOutput(
                fpn_hidden_states=_expanded(features.levels, num_prompts),
                fpn_position_encoding=_expanded(features.positions, num_prompts),
            ),
            text_embeds=BaseModelOutputWithPooling(pooler_output=tokens.to(dtype)),
            attention_mask=attention_mask,
            input_boxes=None if boxes_cxcywh is None else boxes_cxcywh.to(dtype),
            input_boxes_labels=box_labels,
        )
        return Sam3Prediction(
            mask_logits=found.pred_masks,
            semantic_logits=found.semantic_seg[:, 0],
            query_logits=found.pred_logits,
            presence_logits=found.presence_logits[:, 0],
            boxes_xyxy=found.pred_boxes,
            query_outliers=self.calibration.query_outliers,
        )


def joined_features(parts: Sequence[Sam3ImageFeatures]) -> Sam3ImageFeatures:
    """Features of the images of several batches, in order."""
    return Sam3ImageFeatures(
        levels=tuple(torch.cat(level) for level in zip(*(part.levels for part in parts), strict=True)),
        positions=parts[0].positions,
        report=joined_reports([part.report for part in parts]),
    )


def load_sam3(
    checkpoint: ResolvedCheckpoint,
    *,
    device: str,
    dtype: torch.dtype,
    calibration: CalibrationConfig | CalibrationPreset = "off",
) -> Sam3:
    """The image side of a checkpoint. The text tower, two fifths of the weights, is dropped once loaded."""
    model = load_pretrained(Sam3Model, checkpoint, device="cpu", dtype=dtype)
    model.text_encoder = None
    return Sam3(model.to(device), calibration)


def _calibration(model: Any, chosen: CalibrationConfig | CalibrationPreset) -> CalibrationConfig:
    if isinstance(chosen, CalibrationConfig):
        return chosen
    backbone = model.config.vision_config.backbone_config
    return calibration_preset(
        chosen,
        num_blocks=int(backbone.num_hidden_layers),
        global_blocks=tuple(backbone.global_attn_indexes),
    )


def _expanded(maps: Sequence[Tensor], num_prompts: int) -> tuple[Tensor, ...]:
    return tuple(level.expand(num_prompts, *level.shape[1:]) for level in maps)


def _give_roi_align(geometry_encoder: Any) -> None:
    """Let this encoder's box pooling run with our RoIAlign.

    The method looks torchvision up among the names of its module. This one object gets the same method with names of
    its own, in which `torchvision.ops.roi_align` is ours; the module and every other model stay as they are.
    """
    original = type(geometry_encoder)._encode_boxes
    names = {
        **original.__globals__,
        "torchvision": SimpleNamespace(ops=SimpleNamespace(roi_align=_pooled_boxes)),
    }
    with_ours = FunctionType(
        original.__code__, names, original.__name__, original.__defaults__, original.__closure__
    )
    geometry_encoder._encode_boxes = MethodType(with_ours, geometry_encoder)


def _pooled_boxes(
    maps: Float[Tensor, "N D H W"], boxes_xyxy: Sequence[Float[Tensor, "b 4"]], side: int
) -> Float[Tensor, "K D side side"]:
    return roi_align(maps, boxes_to_rois(boxes_xyxy), (side, side))
