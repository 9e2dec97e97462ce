"""Patch tokens unlike their neighbours in feature space: local outlier factor (LOF), robust norm test, both.

Axes: B images, N patch tokens, D channels, K nearest neighbours of a token.

Sources: M. M. Breunig et al., "LOF: Identifying Density-Based Local Outliers", SIGMOD 2000, definitions 3 to 7; the
variant of repository SuleBai/SC-CLIP at 0417ba9. Distances come from a Gram matrix, a chunk of rows at a time: memory
is O(chunk N + N D), never N x N x D. Tokens are centred first: that changes no distance and keeps float32 exact where
all tokens share a large offset.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ovsops.errors import ConfigError, ShapeError

LofVariant = Literal["published", "simplified_sq"]
OutlierMode = Literal["lof", "norm", "lof_and_norm"]

_DENSITY_EPS = 1e-10
"""Added to a mean reach before it is inverted, in units of distance: tokens with K duplicates stay finite."""
_CANCELLATION = 1e-3
"""A squared distance below this share of the two squared norms has lost three digits in the Gram form: it is measured
again from the difference of the two tokens, so that duplicates are exactly 0 apart."""
_PAIRS_BYTES = 16 * 2**20
_MAD_TO_STD = 1.4826
_MIN_SPREAD = 1e-5
"""Norms that spread by less than this share of their median differ by rounding only."""


@dataclass(frozen=True, kw_only=True)
class OutlierConfig:
    """Which patch tokens count as outliers. The defaults are SC-CLIP's numbers with the published LOF."""

    mode: OutlierMode = "lof"
    """lof: density. norm: length of the token, which finds artefacts that are each other's neighbours and leaves small
    objects alone. lof_and_norm: both must agree."""
    variant: LofVariant = "published"
    """simplified_sq is what SC-CLIP's code computes; see `local_outlier_factor`."""
    num_neighbours: int = 30
    """K of the LOF; fewer tokens than that use all others. Objects of fewer patches than about K are outliers too."""
    contamination: float = 0.05
    """Cap: at most this share of an image's tokens. Without `min_score`, mode lof always reaches it."""
    min_score: float | None = None
    """A LOF at or below it is no outlier (1 = as dense as its neighbours; 1.5 is a careful value). None: no limit."""
    norm_z: float = 5.0
    """Robust z-score of the norm above which a token is an outlier; modes norm and lof_and_norm."""
    chunk: int = 512
    """Rows of distances at a time: bounds the memory, changes no number beyond rounding."""

    def __post_init__(self) -> None:
        _check_neighbours(self.num_neighbours, self.chunk)
        _check_contamination(self.contamination)
        if self.min_score is not None and not self.min_score > 0:
            raise ConfigError(f"outliers: min_score {self.min_score} must be above 0, or None for no limit")
        if not self.norm_z > 0:
            raise ConfigError(f"outliers: norm_z {self.norm_z} must be above 0")


class Outliers(NamedTuple):
    """What `find_outliers` found."""

    mask: Bool[Tensor, "*B N"]
    """True where the token is an outlier."""
    scores: Float[Tensor, "*B N"]
    """LOF of each token; in mode norm the robust z-score of its norm."""


class Neighbours(NamedTuple):
    """The K nearest other tokens of each token, nearest first."""

    squared_distances: Float[Tensor, "*B N K"]
    indices: Int[Tensor, "*B N K"]


def find_outliers(tokens: Float[Tensor, "*B N D"], config: OutlierConfig) -> Outliers:
    """The outliers of each image by itself, and the scores they were chosen by."""
    if config.mode == "norm":
        z_scores = norm_z_scores(tokens)
        is_outlier = outlier_mask(z_scores, contamination=config.contamination, min_score=config.norm_z)
        return Outliers(is_outlier, z_scores)
    scores = local_outlier_factor(
        tokens, num_neighbours=config.num_neighbours, variant=config.variant, chunk=config.chunk
    )
    is_outlier = outlier_mask(scores, contamination=config.contamination, min_score=config.min_score)
    if config.mode == "lof_and_norm":
        is_outlier &= norm_z_scores(tokens) > config.norm_z
    return Outliers(is_outlier, scores)


def local_outlier_factor(
    tokens: Float[Tensor, "*B N D"],
    *,
    num_neighbours: int,
    variant: LofVariant = "published",
    chunk: int = 512,
) -> Float[Tensor, "*B N"]:
    """How much thinner each token's surroundings are than its neighbours': about 1 inside a cluster, more outside.

    published: reach(p, o) = max(k-distance(o), d(p, o)), density = 1 / mean reach, score = mean density of the
    neighbours over the own one (definitions 5 to 7). simplified_sq: SC-CLIP's code takes the token's own k-distance
    for the reach and squared distances throughout, which comes to kd(p)^2 times the mean of 1 / kd(o)^2; it chooses
    other tokens. Exactly K neighbours count, ties by order.

    A token with K duplicates, and one that is alone, score 1. Scores are float32 (float64 for float64 tokens).
    """
    num_tokens = tokens.shape[-2]
    if num_tokens <= 1:
        _check_neighbours(num_neighbours, chunk)
        return torch.ones(tokens.shape[:-1], dtype=_working_dtype(tokens), device=tokens.device)
    neighbours = nearest_neighbours(tokens, num_neighbours=num_neighbours, chunk=chunk)
    squared_kdist = neighbours.squared_distances[..., -1]  # *B N
    if variant == "published":
        kdist = squared_kdist.sqrt()
        reach = torch.maximum(neighbours.squared_distances.sqrt(), _at(kdist, neighbours.indices))
        density = 1 / (reach.mean(dim=-1) + _DENSITY_EPS)
        scores = _at(density, neighbours.indices).mean(dim=-1) / density
    else:
        thinness = squared_kdist + _DENSITY_EPS**2
        scores = thinness * _at(1 / thinness, neighbours.indices).mean(dim=-1)
    scores = scores.masked_fill(squared_kdist == 0, 1.0)
    _refuse_not_finite(scores)
    return scores


def outlier_mask(
    scores: Float[Tensor, "*B N"], *, contamination: float, min_score: float | None = None
) -> Bool[Tensor, "*B N"]:
    """Scores above the (1 - contamination) quantile of their image and above `min_score`. Equal scores: none."""
    is_outlier = scores > score_threshold(scores, contamination=contamination)[..., None]
    return is_outlier if min_score is None else is_outlier & (scores > min_score)


def score_threshold(scores: Float[Tensor, "*B N"], *, contamination: float) -> Float[Tensor, "*B"]:
    """The (1 - contamination) quantile of each image, between two scores by linear interpolation.

    The place is computed in float64 and rounded to 1e-9, so that a quantile that is itself a score is that score to
    the bit, in any precision: a strict comparison then never takes one token more.
    """
    _check_contamination(contamination)
    num_tokens = scores.shape[-1]
    if num_tokens == 0:
        return scores.new_full(scores.shape[:-1], torch.inf)
    place = round((1 - contamination) * (num_tokens - 1), 9)
    low = int(place)
    ordered = scores.sort(dim=-1).values
    return torch.lerp(ordered[..., low], ordered[..., min(low + 1, num_tokens - 1)], place - low)


def norm_z_scores(tokens: Float[Tensor, "*B N D"]) -> Float[Tensor, "*B N"]:
    """Distance of each token's norm from the median norm of its image, over 1.4826 median absolute deviations.

    The deviation is taken as at least 1e-5 of the median: unit tokens have no outliers.
    """
    if tokens.shape[-2] == 0:
        return torch.ones(tokens.shape[:-1], dtype=_working_dtype(tokens), device=tokens.device)
    norms = torch.linalg.vector_norm(tokens, dim=-1, dtype=_working_dtype(tokens))
    _refuse_not_finite(norms)
    centre = norms.quantile(0.5, dim=-1, keepdim=True)
    deviations = (norms - centre).abs()
    spread = _MAD_TO_STD * deviations.quantile(0.5, dim=-1, keepdim=True)
    spread = torch.maximum(spread, _MIN_SPREAD * centre).clamp(min=torch.finfo(norms.dtype).tiny)
    return deviations / spread


def nearest_neighbours(
    tokens: Float[Tensor, "*B N D"], *, num_neighbours: int, chunk: int = 512
) -> Neighbours:
    """The K = min(num_neighbours, N - 1) nearest other tokens by Euclidean distance. The token itself never counts.

    Squared distances are float32 (float64 for float64 tokens); duplicates are exactly 0 apart. An image's neighbours
    do not depend on the others of the batch.
    """
    _check_neighbours(num_neighbours, chunk)
    leading, (num_tokens, width) = tokens.shape[:-2], tokens.shape[-2:]
    count = max(0, min(num_neighbours, num_tokens - 1))
    flat = tokens.reshape(math.prod(leading), num_tokens, width)
    squared = torch.empty(
        flat.shape[0], num_tokens, count, dtype=_working_dtype(tokens), device=tokens.device
    )
    indices = torch.empty(squared.shape, dtype=torch.int64, device=tokens.device)
    if count > 0:
        for image, image_tokens in enumerate(flat):
            _fill_neighbours(image_tokens, squared[image], indices[image], chunk)
    return Neighbours(squared.view(*leading, num_tokens, count), indices.view(*leading, num_tokens, count))


def _fill_neighbours(
    tokens: Float[Tensor, "N D"], squared: Float[Tensor, "N K"], indices: Int[Tensor, "N K"], chunk: int
) -> None:
    """Write one image's neighbours into `squared` and `indices`."""
    centred = tokens.to(squared.dtype)
    centred = centred - centred.mean(dim=0)
    squared_norms = torch.linalg.vecdot(centred, centred)
    num_tokens, count = squared.shape
    for start in range(0, num_tokens, chunk):
        rows = slice(start, min(start + chunk, num_tokens))
        # without the row's own squared norm, which does not change its order
        partial = torch.addmm(squared_norms[None], centred[rows], centred.T, alpha=-2)
        partial.diagonal(start).fill_(torch.inf)
        nearest = partial.topk(count, dim=1, largest=False, sorted=True)
        squared[rows] = nearest.values + squared_norms[rows, None]
        indices[rows] = nearest.indices
    squared.clamp_(min=0)

    floor = _CANCELLATION * (squared_norms[:, None] + squared_norms[indices])
    row, place = (squared <= floor).nonzero(as_tuple=True)
    if len(row) == 0:
        return
    pairs = max(1, _PAIRS_BYTES // (centred.shape[1] * centred.element_size()))
    for some_rows, some_places in zip(row.split(pairs), place.split(pairs), strict=True):
        difference = centred[some_rows] - centred[indices[some_rows, some_places]]
        squared[some_rows, some_places] = torch.linalg.vecdot(difference, difference)
    order = squared.argsort(dim=1, stable=True)
    squared.copy_(squared.gather(1, order))
    indices.copy_(indices.gather(1, order))


def _at(values: Float[Tensor, "*B N"], indices: Int[Tensor, "*B N K"]) -> Float[Tensor, "*B N K"]:
    """The values of each token's neighbours."""
    return values.gather(-1, indices.flatten(-2)).view(indices.shape)


def _working_dtype(tokens: Tensor) -> torch.dtype:
    return torch.float64 if tokens.dtype == torch.float64 else torch.float32


def _refuse_not_finite(scores: Float[Tensor, "*B N"]) -> None:
    is_finite = scores.isfinite()
    if not bool(is_finite.all()):
        images = (~is_finite.reshape(-1, scores.shape[-1]).all(dim=1)).nonzero().flatten().tolist()
        raise ShapeError(
            f"patch tokens of images {images} have no outlier score: expected finite values whose squares fit "
            f"{scores.dtype}; look for NaN or infinity in what made the tokens, or make them in float32"
        )


def _check_neighbours(num_neighbours: int, chunk: int) -> None:
    if num_neighbours < 1 or chunk < 1:
        raise ConfigError(
            f"outliers: num_neighbours {num_neighbours} and chunk {chunk}: expected at least 1 of each"
        )


def _check_contamination(contamination: float) -> None:
    if not 0 <= contamination < 1:
        raise ConfigError(f"outliers: contamination {contamination} must be a share from 0 to below 1")
