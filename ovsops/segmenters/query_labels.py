"""Similarities of queries on the patch grid to labels of pixels, a few rows of the image at a time.

Axes: V views, Q queries, C classes, H W patch grid, h w pixels, r rows of pixels.

A pixel's probabilities are the softmax of its scaled similarities over all queries; a class has that of its best query
(CASS at commit 228ecdd, SC-CLIP at commit 0417ba9). Views are put together and upsampled only for the rows at hand,
with the queries of a pixel beside each other in memory: at most `STRIP_ELEMENTS` numbers exist at once, or those of one
row, whatever image and vocabulary, and the result is that of the plain form, which holds a plane of pixels a query.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ovsops.segmenters.views import ViewPlan

STRIP_ELEMENTS = 1 << 21
"""Similarities of pixels that are made at a time (8 MiB of float32, which caches hold)."""


def label_queries(
    similarity: Float[Tensor, "V Q H W"],
    query_class: Int[Tensor, " Q"],
    plan: ViewPlan,
    *,
    logit_scale: float,
    prob_threshold: float,
    area_threshold: float | None = None,
    class_chunk: int,
) -> tuple[Int[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Label of each pixel of the image (0 background, j the j-th class) and the probability of its best class.

    `query_class` is a query's class from 1, or 0 for background. Views are upsampled to their windows and averaged,
    the canvas is upsampled to the image, both before the softmax. Background wins where its own best query is not
    beaten, and where no class reaches `prob_threshold`. With `area_threshold`, classes that win no more than this share
    of the pixels that any class wins are taken out, and their pixels go to the best of the rest. `class_chunk` planes
    of pixels are the most that stand in memory; it changes no label.
    """
    order = query_class.argsort(stable=True)  # background first; a tie goes to the first class
    classes = query_class[order]
    views = (similarity[:, order].float() * logit_scale).permute(0, 2, 3, 1).contiguous()  # V H W Q
    is_kept = None
    if area_threshold is not None:
        is_kept = _large_classes(views, classes, plan, area_threshold=area_threshold, class_chunk=class_chunk)
    labels = torch.zeros(plan.image_hw, dtype=torch.int32, device=similarity.device)
    scores = torch.zeros(plan.image_hw, device=similarity.device)
    for rows, pixels in _strips(views, plan, class_chunk=class_chunk):
        won = _winners(pixels, classes, is_kept)
        highest = torch.maximum(won.highest, won.background)
        denominator = pixels.sub_(highest[..., None]).exp_().sum(dim=-1)
        score = (won.best - highest).exp() / denominator
        is_background = (won.background >= won.best) | (score < prob_threshold)
        labels[rows] = won.label.masked_fill(is_background, 0)
        scores[rows] = score
    return labels, scores


class _Winners(NamedTuple):
    label: Int[Tensor, "r w"]
    """Best class among those that are kept."""
    best: Float[Tensor, "r w"]
    """Its scaled similarity; -inf where none is kept."""
    highest: Float[Tensor, "r w"]
    """Scaled similarity of the best query of any class, kept or not."""
    background: Float[Tensor, "r w"]
    """That of the best background query; -inf without one."""


def _winners(
    pixels: Float[Tensor, "r w Q"], classes: Int[Tensor, " Q"], is_kept: Bool[Tensor, " C1"] | None
) -> _Winners:
    nothing = pixels.new_full(pixels.shape[:2], -torch.inf)
    num_background = int((classes == 0).sum())
    background = pixels[..., :num_background].amax(dim=-1) if num_background else nothing
    rivals, of = pixels[..., num_background:], classes[num_background:].to(torch.int32)
    if is_kept is None:
        best, index = rivals.max(dim=-1)
        return _Winners(label=of[index], best=best, highest=best, background=background)
    kept = is_kept[of].nonzero()[:, 0]
    if len(kept) == 0:
        label = torch.zeros_like(nothing, dtype=torch.int32)
        return _Winners(label=label, best=nothing, highest=rivals.amax(dim=-1), background=background)
    best, index = rivals[..., kept].max(dim=-1)
    return _Winners(label=of[kept][index], best=best, highest=rivals.amax(dim=-1), background=background)


def _large_classes(
    views: Float[Tensor, "V H W Q"],
    classes: Int[Tensor, " Q"],
    plan: ViewPlan,
    *,
    area_threshold: float,
    class_chunk: int,
) -> Bool[Tensor, " C1"]:
    """By class from 0 (background): whether it wins more than the share of all pixels that classes win."""
    area = torch.zeros(int(classes[-1]) + 1, dtype=torch.int64, device=views.device)
    for _, pixels in _strips(views, plan, class_chunk=class_chunk):
        won = _winners(pixels, classes, None)
        label = won.label.masked_fill(won.background >= won.best, 0)
        area += label.flatten().bincount(minlength=len(area))
    return area > area_threshold * area[1:].sum()


def _strips(
    views: Float[Tensor, "V H W Q"], plan: ViewPlan, *, class_chunk: int
) -> Iterator[tuple[slice, Float[Tensor, "r w Q"]]]:
    """Rows of the image from the top, and the values of their pixels, which may be written to."""
    (height, width), (canvas_height, canvas_width) = plan.image_hw, plan.canvas_hw
    row = views.shape[3] * max(width, canvas_width * canvas_height // height)  # numbers in one row
    num_rows = max(1, min(STRIP_ELEMENTS, class_chunk * height * width) // row)
    overlap = _num_views(plan).to(views.device)
    for first in range(0, height, num_rows):
        rows = slice(first, min(first + num_rows, height))
        low, high, share = _samples(canvas_height, height, rows, device=views.device)
        top, bottom = int(low[0]), int(high[-1]) + 1
        canvas = _canvas_rows(views, plan, top, bottom) / overlap[top:bottom, :, None]
        between = torch.lerp(canvas[low - top], canvas[high - top], share)
        yield rows, _widened(between, width)


def _canvas_rows(
    views: Float[Tensor, "V H W Q"], plan: ViewPlan, first: int, end: int
) -> Float[Tensor, "r w Q"]:
    """Rows of the canvas: sums over the windows that lie there."""
    canvas = views.new_zeros(end - first, plan.canvas_hw[1], views.shape[3])
    for view, window in zip(views, plan.windows, strict=True):
        top, bottom = max(first, window.y1), min(end, window.y2)
        if top >= bottom:
            continue
        height, width = window.size_hw
        rows = slice(top - window.y1, bottom - window.y1)
        low, high, share = _samples(view.shape[0], height, rows, device=view.device)
        canvas[top - first : bottom - first, window.x1 : window.x2] += _widened(
            torch.lerp(view[low], view[high], share), width
        )
    return canvas


def _num_views(plan: ViewPlan) -> Float[Tensor, "h w"]:
    """Windows over each pixel of the canvas."""
    count = torch.zeros(plan.canvas_hw)
    for window in plan.windows:
        count[window.y1 : window.y2, window.x1 : window.x2] += 1
    return count


def _samples(
    length: int, new_length: int, rows: slice, *, device: torch.device
) -> tuple[Int[Tensor, " r"], Int[Tensor, " r"], Float[Tensor, "r 1 1"]]:
    """Bilinear sampling along one axis for some of its new places: the two old ones, and the share of the second.

    Pixels are squares (align_corners False), as in `torch.nn.functional.interpolate`.
    """
    places = torch.arange(rows.start, rows.stop, device=device, dtype=torch.float64)
    source = ((places + 0.5) * (length / new_length) - 0.5).clamp_min(0)
    low = source.to(torch.int64).clamp_max(length - 1)
    high = (low + 1).clamp_max(length - 1)
    return low, high, (source - low).float()[:, None, None]


def _widened(rows: Float[Tensor, "r w Q"], width: int) -> Float[Tensor, "r w2 Q"]:
    """Bilinear along the rows; the identity at the same width."""
    if rows.shape[1] == width:
        return rows
    planes = rows[None].permute(0, 3, 1, 2)  # in this order torch sees that queries lie beside each other
    wider = F.interpolate(planes, size=(rows.shape[0], width), mode="bilinear", align_corners=False)
    return wider[0].permute(1, 2, 0)
