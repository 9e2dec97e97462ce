"""Pixel-adaptive mask refinement (PAMR): masks drawn to the edges of the picture they were made from.

Axes: B images, K channels of the guide, C classes, O offsets, H W grid of the given masks, h w guide pixels.

Source: arXiv:2005.08104, section 4, with the constants that Talk2DINO (commit 4918c2d) uses. Written from the
formulas as sums of shifted planes: next to the masks there is one buffer of O planes an image, not one for
each class.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ovsops.errors import ConfigError

_STD_SHARE = 0.1
_EPS = 1e-8
_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


@dataclass(frozen=True, kw_only=True)
class PamrConfig:
    """How masks are refined. The defaults are the published ones."""

    num_iterations: int = 10
    """Times that every pixel becomes the weighted mean of its neighbours."""
    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    """Distances of the rings of eight neighbours, in pixels of the grid that is refined."""
    align_corners: bool = True
    """How masks of another size are brought to the guide's; the published implementations use True."""
    class_chunk: int = 32
    """Classes refined at a time: bounds the memory, changes no number."""
    winning_margin: float | None = None
    """None refines every class. A number refines, image by image, the classes that come within it of the best
    class at some pixel, and hands the others on as they were resized: far cheaper for large vocabularies. A
    label can differ only where a class left out would have gained more than the margin. In mask units."""
    resolution_share: float = 1.0
    """Side of the refined grid over the guide's; 0.5 takes a quarter of the time, reaches twice as far."""

    def __post_init__(self) -> None:
        if self.num_iterations < 0 or self.class_chunk < 1:
            raise ConfigError(
                f"pamr: num_iterations {self.num_iterations} and class_chunk {self.class_chunk}: "
                "expected at least 0 and at least 1"
            )
        if not self.dilations or min(self.dilations) < 1:
            raise ConfigError(f"pamr: dilations {self.dilations} must be one or more distances >= 1")
        if self.winning_margin is not None and self.winning_margin < 0:
            raise ConfigError(
                f"pamr: winning_margin {self.winning_margin} must be >= 0, or None for every class"
            )
        if not 0 < self.resolution_share <= 1:
            raise ConfigError(f"pamr: resolution_share {self.resolution_share} must be above 0, up to 1")


class PamrGuide:
    """Guides made ready once, for masks that come in parts."""

    def __init__(self, guides: Float[Tensor, "B K h w"], config: PamrConfig) -> None:
        self.config, self.size_hw = config, (guides.shape[-2], guides.shape[-1])
        self.work_hw = _work_size(self.size_hw, config.resolution_share)
        small = guides.float()
        if self.work_hw != self.size_hw:
            small = F.interpolate(
                small, size=self.work_hw, mode="bilinear", align_corners=False, antialias=True
            )
        self.weights = pamr_weights(small, config.dilations)

    def refine(self, masks: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Masks of each image, resized to its guide and refined, as by `pamr`."""
        config = self.config
        resized = _resize(masks.float(), self.work_hw, align_corners=config.align_corners)
        if config.winning_margin is None:
            refined = _refine(resized, self.weights, config)
        else:
            refined = resized.clone()
            for image, is_contender in enumerate(contenders(resized, config.winning_margin)):
                one = slice(image, image + 1)
                refined[one, is_contender] = _refine(resized[one, is_contender], self.weights[one], config)
        return _resize(refined, self.size_hw, align_corners=config.align_corners).to(masks.dtype)


def pamr(
    guides: Float[Tensor, "B K h w"],
    masks: Float[Tensor, "B C H W"],
    config: PamrConfig,
) -> Float[Tensor, "B C h w"]:
    """Masks of each image, resized to its guide and refined. Values stay within the range of their class.

    The guide is the RGB image; its scale (0 to 1 or 0 to 255) makes no difference. A batch of n images gives
    what n batches of one give.
    """
    return PamrGuide(guides, config).refine(masks)


def pamr_weights(guides: Float[Tensor, "B K h w"], dilations: tuple[int, ...]) -> Float[Tensor, "B O h w"]:
    """How much each of the O = 8 neighbours per dilation counts for each pixel; they sum to 1.

    A softmax over the offsets of minus the difference to the neighbour, over a tenth of the standard
    deviation around the pixel, averaged over the channels. The centre is in the deviation, once for each
    dilation, and not among the neighbours.
    """
    num_samples = 9 * len(dilations)
    total = guides * len(dilations)
    for neighbour in _shifted(guides, dilations):
        total = total + neighbour
    mean = total / num_samples
    squares = (guides - mean).square() * len(dilations)
    for neighbour in _shifted(guides, dilations):
        squares += (neighbour - mean).square()
    scale = _EPS + _STD_SHARE * (squares / (num_samples - 1)).sqrt()

    batch, _, height, width = guides.shape
    logits = guides.new_empty(batch, len(_NEIGHBOURS) * len(dilations), height, width)
    for o, neighbour in enumerate(_shifted(guides, dilations)):
        logits[:, o] = -((guides - neighbour).abs() / scale).mean(dim=1)
    return logits.softmax(dim=1)


def _refine(
    masks: Float[Tensor, "B C h w"], weights: Float[Tensor, "B O h w"], config: PamrConfig
) -> Float[Tensor, "B C h w"]:
    refined = []
    for chunk in masks.split(config.class_chunk, dim=1):
        for _ in range(config.num_iterations):
            moved = torch.zeros_like(chunk)
            for o, neighbour in enumerate(_shifted(chunk, config.dilations)):
                moved.addcmul_(weights[:, o : o + 1], neighbour)
            chunk = moved
        refined.append(chunk)
    return torch.cat(refined, dim=1)


def _shifted(
    planes: Float[Tensor, "B C h w"], dilations: tuple[int, ...]
) -> Iterator[Float[Tensor, "B C h w"]]:
    """Views of the planes moved to each neighbour; beyond the edge the nearest pixel is repeated."""
    height, width = planes.shape[-2:]
    reach = max(dilations)
    padded = F.pad(planes, (reach, reach, reach, reach), mode="replicate")
    for dilation in dilations:
        for dy, dx in _NEIGHBOURS:
            top, left = reach + dy * dilation, reach + dx * dilation
            yield padded[..., top : top + height, left : left + width]


def contenders(masks: Float[Tensor, "B C h w"], margin: float) -> list[Tensor]:
    """For each image, the indexes of classes that come within `margin` of the best somewhere."""
    is_close = masks >= masks.amax(dim=1, keepdim=True) - margin
    return [row.nonzero().flatten() for row in is_close.flatten(2).any(dim=2)]


def _work_size(full_hw: tuple[int, int], share: float) -> tuple[int, int]:
    height, width = (max(1, round(side * share)) for side in full_hw)
    return height, width


def _resize(
    planes: Float[Tensor, "B C H W"], size_hw: tuple[int, int], *, align_corners: bool
) -> Float[Tensor, "B C h w"]:
    if tuple(planes.shape[-2:]) == size_hw:
        return planes
    return F.interpolate(planes, size=size_hw, mode="bilinear", align_corners=align_corners)
