"""What a detector found, and how logits of tokens become boxes with labels.

Axes: N detections, Q object queries, T tokens of a prompt, L labels of a prompt, K best pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ovsops.masks.box_nms import box_nms


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Boxes with labels, best score first. No detection is N = 0."""

    boxes_xyxy: Float[Tensor, "N 4"]
    """Pixels of the image as given, inside it, with an area."""
    scores: Float[Tensor, " N"]
    """The detector's own, in [0, 1]; not calibrated."""
    labels: Int[Tensor, " N"]
    """Place of the name among those asked for."""

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, places: Int[Tensor, " K"] | Bool[Tensor, " N"]) -> "Detections":
        """Those at `places`, in that order, or those where `places` is true."""
        return Detections(
            boxes_xyxy=self.boxes_xyxy[places], scores=self.scores[places], labels=self.labels[places]
        )

    def cpu(self) -> "Detections":
        """The same in main memory."""
        return Detections(
            boxes_xyxy=self.boxes_xyxy.cpu(), scores=self.scores.cpu(), labels=self.labels.cpu()
        )


def no_detections() -> Detections:
    """Nothing found."""
    return Detections(
        boxes_xyxy=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.int64)
    )


def label_scores(
    token_logits: Float[Tensor, "Q T"], tokens_of_label: Bool[Tensor, "L T"]
) -> Float[Tensor, "Q L"]:
    """Mean over a label's tokens of the sigmoid of their logits (LLMDet, `grounding_dino_head.py` at 5426efb).

    A token that is padding has logit -inf and score 0. Every label needs a token.
    """
    tokens = tokens_of_label.float()
    return token_logits.float().sigmoid() @ (tokens / tokens.sum(dim=1, keepdim=True)).T


def best_pairs(
    scores: Float[Tensor, "Q L"], *, limit: int, min_score: float
) -> tuple[Float[Tensor, " K"], Int[Tensor, " K"], Int[Tensor, " K"]]:
    """Score, query and label of the best pairs of at least `min_score`; of equal pairs the first comes first.

    One query may come back with several labels.
    """
    flat = scores.flatten()
    order = flat.argsort(descending=True, stable=True)[:limit]
    order = order[flat[order] >= min_score]
    num_labels = max(scores.shape[1], 1)
    return flat[order], order // num_labels, order % num_labels


def boxes_in_pixels(
    boxes_cxcywh: Float[Tensor, "N 4"], size_hw: tuple[int, int]
) -> tuple[Float[Tensor, "N 4"], Bool[Tensor, " N"]]:
    """Corners in pixels from centres and sides as shares of the image's, cut to it; and which boxes still have an
    area.
    """
    centre, half = boxes_cxcywh[:, :2].float(), boxes_cxcywh[:, 2:].float() / 2
    height, width = size_hw
    size_wh = torch.tensor([width, height], dtype=centre.dtype, device=centre.device)
    corners = torch.cat([centre - half, centre + half], dim=1) * size_wh.repeat(2)
    corners = corners.clamp(min=0).minimum(size_wh.repeat(2))
    return corners, (corners[:, 2:] > corners[:, :2]).all(dim=1)


def merged_detections(
    parts: Sequence[Detections], *, iou: float | None, across_labels: bool, limit: int
) -> Detections:
    """The best of several prompts about one image: sorted, without doubles, at most `limit`.

    Doubles are boxes of one label, or of any where `across_labels`, whose IoU with a better one is above `iou`.
    """
    if not parts:
        return no_detections()
    everything = Detections(
        boxes_xyxy=torch.cat([part.boxes_xyxy for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
    )
    groups = None if across_labels else everything.labels
    return everything.at(
        box_nms(everything.boxes_xyxy, everything.scores, iou=iou, groups=groups, limit=limit)
    )
