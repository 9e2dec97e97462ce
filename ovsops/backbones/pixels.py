"""Pixels as each backbone wants them. Axes: B views, h w pixels."""

import torch
from jaxtyping import Float
from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIGLIP_MEAN, SIGLIP_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def normalized(
    pixels: Float[Tensor, "B 3 h w"], *, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float[Tensor, "B 3 h w"]:
    """RGB in 0..255 to zero mean and unit spread, channel by channel."""
    center = torch.tensor(mean, device=pixels.device).view(1, 3, 1, 1)
    spread = torch.tensor(std, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.float() / 255 - center) / spread
