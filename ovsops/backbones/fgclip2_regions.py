"""Regions of FG-CLIP 2: RoIAlign on the dense map. Axes: H W patch grid, D channels, R regions."""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.roi_align import roi_align

RegionMode = Literal["corrected", "upstream"]
"""Told in `region_means`."""


def region_means(
    dense_map: Float[Tensor, "H W D"],
    boxes_xyxy: Num[Tensor, "R 4"],
    image_hw: tuple[int, int],
    *,
    mode: RegionMode = "corrected",
) -> tuple[Float[Tensor, "R D"], Bool[Tensor, " R"]]:
    """The mean of the dense map in each box, not normalised, and which boxes hold nothing of the image.

    Boxes are in pixels of the image before it was resized. A box without area (turned round ones too) or beside the
    image gives the zero vector and True. RoIAlign into one bin, `aligned`, as many samples as cells (rounded up); its
    grid coordinates are computed in float64 (repository 360CVGroup/FG-CLIP, commit b1af1cd).

    `corrected` cuts boxes to the image first, so that a box is what it shows. `upstream` does not: samples up to one
    cell outside repeat the border, so that a box just beside the image is given the border's features.
    A coordinate that is not finite is a ShapeError in both, another mode a ConfigError.
    """
    if mode not in get_args(RegionMode):
        raise ConfigError(
            f"FG-CLIP 2 regions: mode {mode!r}; one of {', '.join(get_args(RegionMode))} is expected"
        )
    height, width = image_hw
    rows, columns, _ = dense_map.shape
    boxes = boxes_xyxy.to(device=dense_map.device, dtype=torch.float64)
    if not bool(boxes.isfinite().all()):
        bad = (~boxes.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
        raise ShapeError(f"boxes {bad[:5]} of {len(boxes)}: a coordinate is not finite; drop them before")
    if mode == "corrected":
        most = boxes.new_tensor([width, height, width, height])
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1, keepdim=True)
        boxes = torch.where(has_area, boxes.clamp(min=0).minimum(most), 0)
    cells = boxes / boxes.new_tensor([width, height, width, height])
    cells = (cells * cells.new_tensor([columns, rows, columns, rows])).float()
    rois = torch.cat([cells.new_zeros((len(cells), 1)), cells], dim=1)
    means = roi_align(dense_map.permute(2, 0, 1)[None], rois, (1, 1), sampling_ratio=-1, aligned=True)
    features = means[:, :, 0, 0]
    return features, (features == 0).all(dim=1)
