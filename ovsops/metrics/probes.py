"""What patch tokens know: k nearest neighbours and a linear probe. Axes: N samples, D channels, C ids.

Both take a train and a test side from the caller and give ids, to be counted with `ConfusionCounts`. They
measure what can be read off the features linearly or by neighbours, given labels: not what a model says without
labels. Random features already separate stuff, so print them beside a trained model, and watch the nouns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.counts import ratio

_CHUNK = 4096


@dataclass(frozen=True, kw_only=True)
class LinearProbeConfig:
    """How the linear probe is fitted."""

    l2: float = 1e-3
    """Weight of half the squared norm of the weights (not of the bias), beside the mean cross-entropy."""
    max_iterations: int = 300
    """Steps of L-BFGS."""
    tolerance: float = 1e-6
    """Stop when no entry of the gradient is larger."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ConfigError(f"linear_probe.{name} = {value}: it must be positive")


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearProbe:
    """Multinomial logistic regression on standardised features."""

    ids: Int64[Tensor, "C"]
    """Ids that the training side has, ascending; nothing else is ever predicted."""
    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, "C"]
    mean: Float[Tensor, "D"]
    scale: Float[Tensor, "D"]
    """Standard deviation of the training features; 1 where a channel is constant."""
    max_gradient: float
    """Largest entry of the gradient at the end: above the tolerance, the fit stopped early."""

    def predict(self, features: Float[Tensor, "N D"]) -> Int64[Tensor, "N"]:
        """The most likely id of each sample."""
        standardised = (features.double() - self.mean) / self.scale
        return self.ids[(standardised @ self.weight.T + self.bias).argmax(dim=1)]


def fit_linear_probe(
    features: Float[Tensor, "N D"], ids: Int64[Tensor, "N"], *, config: LinearProbeConfig | None = None
) -> LinearProbe:
    """The one minimum of the penalised loss, from zero weights, in float64: no randomness is involved."""
    config = config or LinearProbeConfig()
    _check_samples(features, ids)
    inputs = features.detach().double()
    mean, deviation = inputs.mean(dim=0), inputs.std(dim=0, unbiased=False)
    scale = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    inputs = (inputs - mean) / scale
    known, targets = ids.unique(return_inverse=True)
    weight = inputs.new_zeros((len(known), inputs.shape[1]), requires_grad=True)
    bias = inputs.new_zeros(len(known), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=config.max_iterations,
        tolerance_grad=config.tolerance,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(inputs @ weight.T + bias, targets) + config.l2 / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
        loss()
    gradients = [
        parameter.grad.abs().max().item() for parameter in (weight, bias) if parameter.grad is not None
    ]
    return LinearProbe(
        ids=known,
        weight=weight.detach(),
        bias=bias.detach(),
        mean=mean,
        scale=scale,
        max_gradient=max(gradients),
    )


def predict_by_neighbours(
    train_features: Float[Tensor, "N D"],
    train_ids: Int64[Tensor, "N"],
    features: Float[Tensor, "M D"],
    *,
    k: int = 15,
) -> Int64[Tensor, "M"]:
    """Majority id of the `k` training samples of highest cosine.

    Of ids with as many votes, the one whose voters are more similar in sum wins, then the lower id. A feature of
    length 0 has cosine 0 with all.
    """
    _check_samples(train_features, train_ids)
    if not 1 <= k <= len(train_ids):
        raise ShapeError(
            f"k = {k} neighbours of {len(train_ids)} training samples: give 1 to {len(train_ids)}"
        )
    gallery = F.normalize(train_features.float(), dim=1)
    known, targets = train_ids.unique(return_inverse=True)
    found = []
    for queries in F.normalize(features.float(), dim=1).split(_CHUNK):
        cosines, neighbours = (queries @ gallery.T).topk(k, dim=1)
        voted = targets[neighbours]
        votes = cosines.new_zeros((len(queries), len(known)), dtype=torch.float64)
        # Votes are whole; the similarities, brought into [0, 1), only part ids with the same number of them.
        votes.scatter_add_(1, voted, 1 + cosines.double().clamp(-1, 1) / (2 * k + 1))
        found.append(known[votes.argmax(dim=1)])
    return torch.cat(found) if found else train_ids[:0]


def group_accuracy(counts: Int64[np.ndarray, "C C"], ids: Sequence[int]) -> float:
    """Share of the samples whose true id is in `ids` that got it; nan without such samples."""
    chosen = list(ids)
    return float(ratio(counts.diagonal()[chosen].sum(), counts[chosen].sum()))


def _check_samples(features: Float[Tensor, "N D"], ids: Int64[Tensor, "N"]) -> None:
    if len(ids) == 0:
        raise ShapeError("a probe without training samples: give at least one patch per class")
    if not features.isfinite().all():
        rows = (~features.isfinite().all(dim=1)).nonzero().flatten()[:5].tolist()
        raise ShapeError(f"training features {rows} are not finite: mend the encoder before it is probed")
