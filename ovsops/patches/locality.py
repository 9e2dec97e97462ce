"""A Gaussian over the patch grid that keeps attention near. Axes: H W patch grid, P = H W patches.

Source: NACLIP (arXiv:2404.08181), as CASS at commit 228ecdd adds it to its fused graphs before the softmax.
"""

import torch
from jaxtyping import Float
from torch import Tensor

STD = 5.0
"""Standard deviation in patches, as published."""


def gaussian_locality(
    grid: tuple[int, int], *, std: float = STD, device: torch.device | str = "cpu"
) -> Float[Tensor, "P P"]:
    """exp(-|p - q|² / (2 std²)) for every pair of patches, p and q in patches; 1 on the diagonal."""
    rows, columns = (_along(side, std=std, device=device) for side in grid)
    height, width = grid
    return (rows[:, None, :, None] * columns[None, :, None, :]).reshape(height * width, height * width)


def _along(side: int, *, std: float, device: torch.device | str) -> Float[Tensor, "s s"]:
    places = torch.arange(side, device=device, dtype=torch.float32)
    return (-((places[:, None] - places) ** 2) / (2 * std**2)).exp()
