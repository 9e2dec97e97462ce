"""Boxes of masks. `boxes_xyxy` are half-open pixels, `boxes_xywh` COCO's; both from the top left corner."""

import numpy as np
from jaxtyping import Bool, Shaped


def mask_to_box_xyxy(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int] | None:
    """The tight half-open box (x0, y0, x1, y1) of a mask, or None when no pixel is set."""
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[y0:y1].any(axis=0))
    return int(columns[0]), y0, int(columns[-1]) + 1, y1


def boxes_xyxy_to_xywh(boxes_xyxy: Shaped[np.ndarray, "*N 4"]) -> Shaped[np.ndarray, "*N 4"]:
    """Corner form to COCO form: the second corner becomes width and height."""
    return np.concatenate([boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]], axis=-1)


def boxes_xywh_to_xyxy(boxes_xywh: Shaped[np.ndarray, "*N 4"]) -> Shaped[np.ndarray, "*N 4"]:
    """COCO form to corner form."""
    return np.concatenate([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], axis=-1)
