"""RoIAlign without torchvision: boxes of a feature map, averaged over their bins from bilinear samples.

Axes: N maps, C channels, H W cells of a map, K boxes, P Q bins of the output, S samples a bin.

Source: "Mask R-CNN" (arXiv:1703.06870, section 3) with the conventions of torchvision's compiled `roi_align`. Whether a
sample lies on the map and its bilinear weights are products of a row part and a column part, so the mean of a bin is
A_y F A_x^T with one small matrix an axis: exact, and no sample is ever gathered.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.errors import ShapeError

_SAMPLES_AT_ONCE = 64
_NUMBERS_AT_ONCE = 1 << 24
"""Numbers in the half-reduced maps of a chunk of boxes (64 MiB of float32)."""


def roi_align(
    maps: Float[Tensor, "N C H W"],
    rois: Float[Tensor, "K 5"],
    output_size: tuple[int, int],
    *,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Float[Tensor, "K C P Q"]:
    """Means of the bins of boxes (map index, x1, y1, x2, y2), the box times `spatial_scale` being in cells.

    `sampling_ratio` samples a bin along each axis; 0 or less takes ceil(bin size). `aligned` shifts boxes by half a
    cell, so that a cell's value lies in its middle; without it a box is at least one cell wide and high. A sample
    further than one cell outside the map counts as zero. With `aligned`, a box without area gives zeros.

    Works in float32 (float64 for float64 maps), under autocast, too; result as `maps`. A box on a map that is not
    there, or one that is not finite, is a ShapeError.
    """
    working = torch.float64 if maps.dtype == torch.float64 else torch.float32
    num_maps, channels, height, width = maps.shape
    boxes = rois[:, 1:].to(working)
    owner = rois[:, 0].long()
    if len(rois) and not (
        bool(boxes.isfinite().all()) and int(owner.min()) >= 0 and int(owner.max()) < num_maps
    ):
        raise ShapeError(
            f"boxes for RoIAlign: expected (map index 0..{num_maps - 1}, x1, y1, x2, y2), all finite; "
            f"got indexes {owner.min()}..{owner.max()}"
        )
    x1, y1, x2, y2 = (boxes * spatial_scale - (0.5 if aligned else 0.0)).unbind(1)
    least = -torch.inf if aligned else 1.0
    rows, num_y = _axis_weights(
        y1, (y2 - y1).clamp(min=least), bins=output_size[0], size=height, ratio=sampling_ratio
    )
    columns, num_x = _axis_weights(
        x1, (x2 - x1).clamp(min=least), bins=output_size[1], size=width, ratio=sampling_ratio
    )
    means = maps.new_zeros((len(rois), channels, *output_size), dtype=working)
    chunk = max(1, _NUMBERS_AT_ONCE // max(1, output_size[0] * channels * width))
    for number in range(num_maps):
        flat = maps[number].to(working).transpose(0, 1).flatten(1)  # H CW
        for places in (owner == number).nonzero()[:, 0].split(chunk):
            if len(places) == 0:
                continue
            with torch.autocast(maps.device.type, enabled=False):
                half = (rows[places].flatten(0, 1) @ flat).view(len(places), output_size[0], channels, width)
                means[places] = torch.einsum("kpcw,kqw->kcpq", half, columns[places])
    return (means / (num_y * num_x).clamp(min=1)[:, None, None, None]).to(maps.dtype)


def boxes_to_rois(boxes_xyxy: Sequence[Float[Tensor, "_ 4"]]) -> Float[Tensor, "K 5"]:
    """Boxes of each map, in order, with the map's index before them."""
    return torch.cat(
        [
            torch.cat([boxes.new_full((len(boxes), 1), number), boxes], dim=1)
            for number, boxes in enumerate(boxes_xyxy)
        ]
    )


def _axis_weights(
    starts: Float[Tensor, " K"], lengths: Float[Tensor, " K"], *, bins: int, size: int, ratio: int
) -> tuple[Float[Tensor, "K P size"], Float[Tensor, " K"]]:
    """Sum of the bilinear weights of a bin's samples for each cell of one axis, and samples a bin."""
    bin_length = lengths / bins
    num_samples = torch.full_like(lengths, ratio) if ratio > 0 else torch.ceil(bin_length)
    weights = starts.new_zeros((len(starts), bins, size))
    most = int(num_samples.max()) if len(starts) else 0
    bin_starts = starts[:, None] + torch.arange(bins, device=starts.device) * bin_length[:, None]  # K P
    step = bin_length / num_samples.clamp(min=1)
    for first in range(0, most, _SAMPLES_AT_ONCE):
        index = torch.arange(first, min(first + _SAMPLES_AT_ONCE, most), device=starts.device)
        place = bin_starts[:, :, None] + (index + 0.5) * step[:, None, None]  # K P S
        counts = (index < num_samples[:, None, None]) & (place >= -1) & (place <= size)
        place = place.clamp(0, size - 1)
        low = place.floor().long()
        share = place - low
        weights.scatter_add_(2, low, torch.where(counts, 1 - share, 0))
        weights.scatter_add_(2, (low + 1).clamp(max=size - 1), torch.where(counts, share, 0))
    return weights, num_samples.clamp(min=0)
