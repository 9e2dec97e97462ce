"""The precision that losses are computed in, whatever the model runs in.

Axes: A rows, C columns, D channels.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def at_least_float32(tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Half precision becomes float32; float64 stays, so that gradients can be checked in it."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def cosines(rows: Float[Tensor, "*B A D"], columns: Float[Tensor, "*B C D"]) -> Float[Tensor, "*B A C"]:
    """Cosine of every row with every column; the zero vector has cosine 0 with everything.

    Autocast is off inside: it would run the product in bfloat16, whose step near 1 is 0.004, and a logit
    scale of 100 turns that into a step of 0.4.
    """
    with torch.autocast(rows.device.type, enabled=False):
        unit_rows = F.normalize(at_least_float32(rows), dim=-1)
        unit_columns = F.normalize(at_least_float32(columns), dim=-1)
        return unit_rows @ unit_columns.transpose(-1, -2)
