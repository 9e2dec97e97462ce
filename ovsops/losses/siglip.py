"""SigLIP's pairwise sigmoid loss (arXiv:2303.15343, algorithm 1).

Axes: B pairs of this rank, M pairs of all ranks, D channels.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ShapeError
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.precision import at_least_float32, cosines

LOG_SCALE_INITIAL = math.log(10)
"""t' of the paper: the logit scale is exp(t'), learned."""
BIAS_INITIAL = -10.0
"""b of the paper, learned: at the start nearly every pair is a negative one, and the loss says so."""


def siglip_loss(
    texts: Float[Tensor, "B D"],
    images: Float[Tensor, "B D"],
    *,
    log_scale: float | Float[Tensor, ""] = LOG_SCALE_INITIAL,
    bias: float | Float[Tensor, ""] = BIAS_INITIAL,
    positives: Bool[Tensor, "B M"] | None = None,
    gather: Gather = no_gather,
) -> Float[Tensor, ""]:
    """-(1/B) sum_i sum_j log sigmoid(z_ij (e^log_scale cos(text_i, image_j) + bias)).

    z is +1 for a true pair and -1 for any other. `positives[i, j]` says that this rank's text i is true of
    image j, counted over all ranks: equal captions are several true pairs (`equal_pairs` builds it). Left
    out, text i belongs to image i alone. The sum over j makes the value B times the mean over all elements.
    """
    similarity = cosines(texts, gather(images))
    if positives is None:
        positives = own_pairs(len(texts), len(similarity.T), rank=gather.rank, device=texts.device)
    return sigmoid_loss(similarity, positives, log_scale=log_scale, bias=bias)


def sigmoid_loss(
    similarity: Float[Tensor, "B M"],
    positives: Bool[Tensor, "B M"],
    *,
    log_scale: float | Float[Tensor, ""] = LOG_SCALE_INITIAL,
    bias: float | Float[Tensor, ""] = BIAS_INITIAL,
) -> Float[Tensor, ""]:
    """The same from a matrix of cosines that is at hand already: sum over columns, mean over rows."""
    if not len(similarity):
        raise ShapeError(
            "sigmoid loss: the batch holds no pair, so it has no mean; skip the step on every rank"
        )
    similarity = at_least_float32(similarity)
    logits = similarity * torch.as_tensor(log_scale, dtype=similarity.dtype).exp() + bias
    signed = torch.where(positives, logits, -logits)
    return -F.logsigmoid(signed).sum() / len(signed)


def own_pairs(num_rows: int, num_columns: int, *, rank: int, device: torch.device) -> Bool[Tensor, "B M"]:
    """Row i of this rank belongs to column `rank * num_rows + i` and to no other."""
    return torch.eye(num_columns, dtype=torch.bool, device=device).narrow(0, rank * num_rows, num_rows)


def equal_pairs(keys: Int[Tensor, " B"], *, gather: Gather = no_gather) -> Bool[Tensor, "B M"]:
    """Pairs whose keys are equal, this rank's against everybody's: ids of captions or of what they say."""
    return keys[:, None] == gather(keys)[None, :]
