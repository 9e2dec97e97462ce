"""KoLeo: spread the vectors of a batch over the sphere (arXiv:1806.03198; DINOv2, arXiv:2304.07193, section 4).

Axes: B images of this rank, D channels.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ShapeError
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.precision import at_least_float32, cosines

EPS = 1e-8
"""Equal vectors have distance `EPS`: a large loss with a finite gradient."""


def koleo_loss(vectors: Float[Tensor, "B D"], *, gather: Gather = no_gather) -> Float[Tensor, ""]:
    """-mean_i log(distance of unit vector i to its nearest other of all ranks).

    The gradient also pushes the neighbour away. Give it views of different images only: two views of one image
    should stay near each other.
    """
    unit = F.normalize(at_least_float32(vectors), dim=-1)
    everybody = gather(unit)
    if len(everybody) < 2:
        raise ShapeError(f"KoLeo: {len(everybody)} vector has no neighbour; give a batch of at least 2")
    with torch.no_grad():
        own = torch.arange(len(unit), device=unit.device)
        nearness = cosines(unit, everybody)
        nearness[own, own + gather.rank * len(unit)] = -torch.inf
        nearest = nearness.argmax(dim=1)
    return -(F.pairwise_distance(unit, everybody[nearest], eps=EPS) + EPS).log().mean()
