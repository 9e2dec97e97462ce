"""Scores of views on the patch grid to labels of pixels, a few classes at a time.

Axes: V views, K rows that compete (classes, then background prompts), C classes, H W patch grid, h w
pixels. At most `class_chunk` planes of pixels exist at once, so memory grows with the image, not with the
vocabulary.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ovsops.geometry import Window
from ovsops.segmenters.cleaning import Mode
from ovsops.segmenters.views import ViewPlan

MAX_CHUNK_PIXELS = 1 << 25
"""Pixels times classes that may be upsampled at once (128 MiB of float32)."""

Refine = Callable[[Tensor, Window | None], Tensor]
"""Refines planes of scores [c h w] of a window, or of the whole canvas where that is None."""


def label_pixels(
    scores: Float[Tensor, "V K H W"],
    plan: ViewPlan,
    *,
    num_classes: int,
    threshold: float,
    mode: Mode,
    class_chunk: int,
    refine: Refine | None = None,
) -> tuple[Int[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Label of each pixel of the image (0 background, j the j-th class) and the score of its best class.

    Scores may be any number that grows with likeliness, the threshold in the same unit. Background wins where the
    best class's score is below the threshold, or below that of a background prompt.
    Refinement sees all rows at once, on the canvas, because it may choose among them.
    """
    chunk = max(1, min(class_chunk, MAX_CHUNK_PIXELS // (plan.image_hw[0] * plan.image_hw[1])))
    refined = None if refine is None else canvas_scores(scores, plan, mode=mode, refine=refine)

    def planes(first: int, end: int) -> Tensor:
        if refined is not None:
            return upsampled(refined[first:end], plan.image_hw, align_corners=False)
        canvas = canvas_scores(scores[:, first:end], plan, mode=mode)
        return upsampled(canvas, plan.image_hw, align_corners=False)

    best = torch.full(plan.image_hw, -torch.inf, device=scores.device)
    label = torch.zeros(plan.image_hw, dtype=torch.int32, device=scores.device)
    for first in range(0, num_classes, chunk):
        value, index = planes(first, min(first + chunk, num_classes)).max(dim=0)
        better = value > best
        best = torch.where(better, value, best)
        label = torch.where(better, index.to(torch.int32) + first + 1, label)
    label[best < threshold] = 0
    for first in range(num_classes, scores.shape[1], chunk):
        label[planes(first, first + chunk).amax(dim=0) > best] = 0
    return label, best


def canvas_scores(
    scores: Float[Tensor, "V c H W"], plan: ViewPlan, *, mode: Mode, refine: Refine | None = None
) -> Float[Tensor, "c h w"]:
    """Scores on the canvas: views upsampled to their windows, averaged where they overlap.

    `upstream` puts the corners of patch grid and window on each other and refines every window by itself;
    `corrected` puts patches where they lie and refines the assembled canvas once.
    """
    canvas = scores.new_zeros((scores.shape[1], *plan.canvas_hw))
    num_views = scores.new_zeros(plan.canvas_hw)
    for view, window in enumerate(plan.windows):
        planes = upsampled(scores[view], window.size_hw, align_corners=mode == "upstream")
        if refine is not None and mode == "upstream":
            planes = refine(planes, window)
        canvas[:, window.y1 : window.y2, window.x1 : window.x2] += planes
        num_views[window.y1 : window.y2, window.x1 : window.x2] += 1
    canvas /= num_views
    return refine(canvas, None) if refine is not None and mode == "corrected" else canvas


def upsampled(
    planes: Float[Tensor, "c h w"], size_hw: tuple[int, int], *, align_corners: bool
) -> Float[Tensor, "c h2 w2"]:
    """Bilinear; the identity at the same size."""
    if tuple(planes.shape[-2:]) == tuple(size_hw):
        return planes
    return F.interpolate(planes[None], size=list(size_hw), mode="bilinear", align_corners=align_corners)[0]
