"""Images to views: resized, cut into windows; squares of one patch grid, or windows that keep their shape.

Axes: V views, h w pixels of an image, s side of a view.

Segmenters of one tower (clip, scclip, cass) take `window_views`: a window keeps its pixels, so that a patch stands on
its trained scale, and has the shape of what it shows. The fused segmenter lays two streams of different patch size on
one square grid, and SAM 3 knows squares only: they take `cut_views`.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from ovsops.geometry import Window, resized_size, scale_window, slide_windows

Mode = Literal["upstream", "corrected"]
"""How what stands over a whole patch is treated."""


@runtime_checkable
class ViewSettings(Protocol):
    """The fields of a segmenter's config that say how images are cut into views."""

    @property
    def views(self) -> Literal["slide", "squash"]:
        """Overlapping windows, or the whole image as one square."""

    @property
    def short_side(self) -> int:
        """Pixels of the resized image's short side."""

    @property
    def max_long_side(self) -> int:
        """Cap of its long side, pixels."""

    @property
    def window(self) -> int:
        """Side of a window, pixels of the resized image."""

    @property
    def stride(self) -> int:
        """Distance between windows, pixels of the resized image."""


@dataclass(frozen=True, kw_only=True)
class ViewPlan:
    """Where the views of one image lie."""

    image_hw: tuple[int, int]
    canvas_hw: tuple[int, int]
    """Size of the resized image, in whose pixels the windows are given and scores are put together."""
    windows: tuple[Window, ...]


def plan_views(image_hw: tuple[int, int], config: ViewSettings) -> ViewPlan:
    """Windows of one image: a sliding grid over the resized image, or the whole image as one."""
    if config.views == "squash":
        canvas = resized_size(image_hw, short_side=min(image_hw), max_long_side=config.max_long_side)
        windows = [Window(0, 0, *canvas)]
    else:
        canvas = resized_size(image_hw, short_side=config.short_side, max_long_side=config.max_long_side)
        windows = slide_windows(canvas, window=config.window, stride=config.stride)
    return ViewPlan(image_hw=image_hw, canvas_hw=canvas, windows=tuple(windows))


def cut_views(
    image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan, *, side: int, window: int
) -> Float[Tensor, "V 3 s s"]:
    """Square views of `side` pixels, RGB 0..255.

    The image is resized once so that a full window is `side` wide; a window that the image's edge made
    thinner is stretched to the square. Streams of different patch size thus see the same places on the same
    patch grid.
    """
    if len(plan.windows) == 1:
        return resize(image, (side, side))[None]
    scaled_hw = (
        max(1, round(plan.canvas_hw[0] * side / window)),
        max(1, round(plan.canvas_hw[1] * side / window)),
    )
    scaled = resize(image, scaled_hw)
    places = [scale_window(w, from_hw=plan.canvas_hw, to_hw=scaled_hw) for w in plan.windows]
    return torch.stack([resized_pixels(scaled[:, w.y1 : w.y2, w.x1 : w.x2], (side, side)) for w in places])


def window_views(
    image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan, config: ViewSettings, *, patch: int, mode: Mode
) -> Float[Tensor, "V 3 h2 w2"]:
    """The windows of the plan in whole patches, RGB 0..255; with `views: squash` the image as one square of `window`
    pixels.

    Where the image is smaller than a window its windows are not square. All windows of an image have one size.
    """
    if config.views == "squash":
        side = max(1, round(config.window / patch)) * patch
        return resize(image, (side, side))[None]
    canvas = resize(image, plan.canvas_hw)
    views = torch.stack([canvas[:, w.y1 : w.y2, w.x1 : w.x2] for w in plan.windows])
    return in_whole_patches(views, patch=patch, mode=mode)


def in_whole_patches(
    views: Float[Tensor, "V 3 h w"], *, patch: int, mode: Mode
) -> Float[Tensor, "V 3 h2 w2"]:
    """Views whose sides are multiples of the patch.

    `corrected` resizes to the nearest; `upstream` drops what stands over at the bottom and on the right, as a
    convolution does. A side of less than one patch becomes one.
    """
    if mode == "upstream":
        height, width = (side - side % patch if side >= patch else side for side in views.shape[-2:])
        views = views[..., :height, :width]
    return resized_views(views, nearest_patches(views, patch))


def nearest_patches(views: Float[Tensor, "V 3 h w"], patch: int, *, scale: float = 1.0) -> tuple[int, int]:
    """Sides of the views, scaled, to the nearest whole patches; one at least."""
    height, width = (max(1, int(side * scale / patch + 0.5)) * patch for side in views.shape[-2:])
    return height, width


def resized_views(views: Float[Tensor, "V 3 h w"], size_hw: tuple[int, int]) -> Float[Tensor, "V 3 h2 w2"]:
    """Each view by itself; the identity at the same size."""
    if tuple(views.shape[-2:]) == tuple(size_hw):
        return views
    if not len(views):
        return views.new_zeros(0, 3, *size_hw)
    return torch.stack([resized_pixels(view, size_hw) for view in views])


def resize(image: UInt8[np.ndarray, "h w 3"], size_hw: tuple[int, int]) -> Float[Tensor, "3 h2 w2"]:
    """Channel by channel, so that a large photo never stands in memory as floats in whole."""
    pixels = torch.from_numpy(np.ascontiguousarray(image))
    return torch.cat([resized_pixels(pixels[None, :, :, c].float(), size_hw) for c in range(3)])


def resized_pixels(pixels: Float[Tensor, "c h w"], size_hw: tuple[int, int]) -> Float[Tensor, "c h2 w2"]:
    """Bilinear with antialiasing, which is what torchvision's Resize does; the identity at the same size."""
    if tuple(pixels.shape[-2:]) == tuple(size_hw):
        return pixels
    return F.interpolate(
        pixels[None], size=list(size_hw), mode="bilinear", antialias=True, align_corners=False
    )[0]
