"""SAM 3 as a source of instances: masks for the boxes of a detector, and its own instances as detections.

Axes: N boxes, P prompts, Q object queries, m m cells of a mask, h w pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ovsops.backbones.detections import Detections
from ovsops.backbones.sam3 import Sam3ImageFeatures
from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.box_nms import box_iou
from ovsops.masks.rle import Rle, mask_to_rle
from ovsops.regions.box_masks import BoxMasks, pixel_boxes
from ovsops.regions.reasons import NO_AREA, NO_MASK
from ovsops.segmenters.sam3 import Sam3Segmenter
from ovsops.segmenters.sam3_masks import Sam3Detections, full_mask

_LIKE_THIS = 1
"""Label of a box that shows the thing."""


@dataclass(frozen=True, kw_only=True)
class Sam3BoxConfig:
    """Which of the instances that a box prompt finds is the box's own."""

    min_box_iou: float = 0.5
    """The model's box must overlap the prompt's this much. A box is an example to SAM 3 ("things like this"), so it
    finds others too; the one that overlaps it most is meant."""
    min_score: float = 0.0
    """And it must have this score (query score times presence)."""

    def __post_init__(self) -> None:
        for name in ("min_box_iou", "min_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"sam3 boxes: {name} {getattr(self, name)}: expected 0 to 1")


class Sam3BoxPrompter:
    """Masks of boxes by SAM 3 (`BoxPrompter`). Each box is prompted with itself and its class's first phrase.

    The image is encoded once; memory is bounded by the segmenter's `prompts_per_batch`, time grows with the boxes.
    """

    def __init__(self, segmenter: Sam3Segmenter, config: Sam3BoxConfig | None = None) -> None:
        if segmenter.config.views != "squash":
            raise ConfigError("segmenter.views must be squash for boxes: windows would cut things in two")
        self.segmenter, self.config = segmenter, config or Sam3BoxConfig()
        owners = segmenter.text.query_class.tolist()
        first = {label: prompt for prompt, label in reversed(list(enumerate(owners)))}
        self._prompt_of_label = [first.get(label + 1, -1) for label in range(segmenter.text.num_classes)]

    @torch.inference_mode()
    def masks(
        self, image: UInt8[np.ndarray, "h w 3"], boxes_xyxy: Float[Tensor, "N 4"], labels: Int[Tensor, " N"]
    ) -> BoxMasks:
        """A mask for each box of an RGB image; none (`R_NO_MASK`) where nothing that SAM 3 finds lies on the box.

        Raises `ShapeError` for a label that no phrase of the vocabulary speaks for.
        """
        size_hw = (int(image.shape[0]), int(image.shape[1]))
        pixels = pixel_boxes(boxes_xyxy, size_hw)
        rles: list[Rle | None] = [None] * len(pixels)
        scores = np.full(len(pixels), np.nan)
        reasons = [(NO_MASK,) if box[2] > box[0] else (NO_AREA,) for box in pixels]
        prompts = self._prompts(labels.tolist())
        wanted = torch.tensor([i for i, why in enumerate(reasons) if why == (NO_MASK,)], dtype=torch.int64)
        if len(wanted):
            [features] = self.segmenter.encoded_features([image])
            shares = boxes_xyxy.cpu().float() / torch.tensor([size_hw[1], size_hw[0]] * 2)
            shares = shares.clamp(0, 1)
            for some in wanted.split(self.segmenter.config.prompts_per_batch):
                found = self._found(features, prompts[some], shares[some], size_hw)
                for i, (rle, score) in zip(some.tolist(), found, strict=True):
                    if rle is not None:
                        rles[i], scores[i], reasons[i] = rle, score, ()
        return BoxMasks(size_hw=size_hw, rles=tuple(rles), scores=scores, reasons=tuple(reasons))

    def _prompts(self, labels: Sequence[int]) -> Int[Tensor, " N"]:
        known = self._prompt_of_label
        for label in labels:
            if not 0 <= label < len(known) or known[label] < 0:
                raise ShapeError(
                    f"box of label {label}: the segmenter's vocabulary has {len(known)} classes with phrases"
                )
        return torch.tensor([known[label] for label in labels], dtype=torch.int64)

    def _found(
        self,
        features: Sam3ImageFeatures,
        prompts: Int[Tensor, " P"],
        shares_xyxy: Float[Tensor, "P 4"],
        size_hw: tuple[int, int],
    ) -> list[tuple[Rle | None, float]]:
        """Mask and score of the query that lies best on each box."""
        segmenter, device = self.segmenter, self.segmenter.device
        centre = (shares_xyxy[:, :2] + shares_xyxy[:, 2:]) / 2
        cxcywh = torch.cat([centre, shares_xyxy[:, 2:] - shares_xyxy[:, :2]], dim=1)
        at = prompts.to(device)
        prediction = segmenter.sam3.predict(
            features,
            segmenter.text.tokens[at],
            segmenter.text.attention_mask[at],
            boxes_cxcywh=cxcywh[:, None].to(device),
            box_labels=torch.full((len(prompts), 1), _LIKE_THIS, device=device),
        )
        found: list[tuple[Rle | None, float]] = []
        for place, share in enumerate(shares_xyxy):
            overlaps = box_iou(share[None], prediction.boxes_xyxy[place].float().cpu())[0]
            scores = prediction.scores[place].cpu()
            overlaps = overlaps.masked_fill(scores < self.config.min_score, -1)
            best = int(overlaps.argmax())
            if overlaps[best] < self.config.min_box_iou:
                found.append((None, float("nan")))
                continue
            mask = full_mask(prediction.mask_logits[place, best].float(), size_hw, segmenter.config)
            is_some = bool(mask.any())
            found.append((mask_to_rle(mask.cpu().numpy()) if is_some else None, float(scores[best])))
        return found


def instances_as_detections(found: Sam3Detections, size_hw: tuple[int, int]) -> tuple[Detections, BoxMasks]:
    """SAM 3's own instances, for `build_instances`: boxes, scores and classes, and the mask of each.

    What background prompts found is left out: it has no class.
    """
    things = [instance for instance in found.instances if instance.label > 0]
    detections = Detections(
        boxes_xyxy=torch.tensor([thing.box_xyxy for thing in things]).reshape(-1, 4),
        scores=torch.tensor([thing.score for thing in things], dtype=torch.float32),
        labels=torch.tensor([thing.label - 1 for thing in things], dtype=torch.int64),
    )
    masks = BoxMasks(
        size_hw=size_hw,
        rles=tuple(thing.mask for thing in things),
        scores=np.array([thing.score for thing in things], np.float64),
        reasons=((),) * len(things),
    )
    return detections, masks
