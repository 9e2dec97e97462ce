"""Small pictures as words, for tests of regions, boxes and masks."""

from dataclasses import dataclass

import numpy as np
import torch

from ovsops.backbones.detections import Detections
from ovsops.masks.class_map import ClassMap
from ovsops.masks.rle import Rle, mask_to_rle, rle_to_mask


@dataclass(frozen=True)
class NamedClass:
    id: int
    kind: str


CLASSES = [NamedClass(7, "thing"), NamedClass(3, "stuff"), NamedClass(5, "thing")]
Box = tuple[float, float, float, float]


def drawn(picture: str, scores: float | np.ndarray = 0.5) -> ClassMap:
    """Digits are labels, dots background; a picture's rows are words."""
    labels = np.array([[0 if c == "." else int(c) for c in row] for row in picture.split()], np.uint16)
    planes = np.broadcast_to(np.asarray(scores, np.float32), labels.shape)
    return ClassMap(labels=labels, scores=planes.astype(np.float32))


def boxed(*found: tuple[Box, float, int]) -> Detections:
    """Box, score and label of each detection."""
    return Detections(
        boxes_xyxy=torch.tensor([box for box, _, _ in found], dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([score for _, score, _ in found], dtype=torch.float32),
        labels=torch.tensor([label for _, _, label in found], dtype=torch.int64),
    )


def shown(rle: Rle | None) -> str | None:
    """The mask as a picture."""
    if rle is None:
        return None
    return " ".join("".join("#" if on else "." for on in row) for row in rle_to_mask(rle))


def masked(picture: str) -> Rle:
    """The RLE of a picture."""
    return mask_to_rle(np.array([[c == "#" for c in row] for row in picture.split()]))
