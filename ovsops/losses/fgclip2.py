"""The loss of FG-CLIP 2's training: five terms, weighted as the paper or as the published code does.

Axes: B images of this rank, R regions, H hard regions, K = 1 + negatives, D channels.

Source: FG-CLIP 2 (arXiv:2510.10921, eq. 4) and repository 360CVGroup/FG-CLIP, commit b1af1cd. There every failure of a
regional term is caught and forgotten (in float32, or with fewer than 10 regions, all of them vanish). Here a term that
cannot be computed is an error on every rank, or is skipped, named and counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ovsops.errors import ConfigError, TrainingError
from ovsops.losses.fgclip2_terms import (
    MAX_MARGIN,
    NUM_NEAREST,
    TicMode,
    cmr_loss,
    fgt_loss,
    hard_infonce_loss,
    next_margin,
    tic_loss,
)
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.infonce import infonce_loss
from ovsops.losses.precision import at_least_float32
from ovsops.losses.siglip import siglip_loss

Weights = Literal["paper", "code"]
Term = Literal["global_short", "global_long", "fgv", "fgt", "tic", "cmr", "hard_infonce"]

WEIGHTS: Mapping[Weights, Mapping[Term, float]] = MappingProxyType(
    {
        "paper": MappingProxyType(
            {"global_short": 1.0, "global_long": 1.0, "fgv": 0.1, "fgt": 0.5, "tic": 0.1, "cmr": 0.4}
        ),
        "code": MappingProxyType(
            {
                "global_short": 1.0,
                "global_long": 1.0,
                "fgv": 0.2,
                "fgt": 0.5 * 3.0,
                "tic": 0.1,
                "cmr": 0.5 * 0.4,
                "hard_infonce": 0.5 * 0.6,
            }
        ),
    }
)
"""What each term is multiplied by. A term that is not there is not computed."""


@dataclass(frozen=True, kw_only=True)
class FgClip2LossConfig:
    """Which of the published variants."""

    weights: Weights = "paper"
    """`paper` ranks cosines by their margin (eq. 3), `code` logits, in a margin of logits."""
    tic_mode: TicMode = "corrected"
    """Whether texts that are too alike are left out (`corrected`) or compete as a cosine of 0 (`upstream`)."""
    too_few: Literal["error", "skip"] = "error"
    """What happens where a rank has too few regions for a term."""

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise ConfigError(f"FG-CLIP 2 loss: weights {self.weights!r} are not one of {', '.join(WEIGHTS)}")
        if self.tic_mode not in ("corrected", "upstream") or self.too_few not in ("error", "skip"):
            raise ConfigError(
                f"FG-CLIP 2 loss: tic_mode {self.tic_mode!r}, too_few {self.too_few!r}; corrected or upstream, and "
                "error or skip, are expected"
            )

    @property
    def least(self) -> dict[Term, int]:
        """Regions (hard regions for the last three) that a term needs on a rank to mean anything."""
        tic = NUM_NEAREST if self.tic_mode == "upstream" else 2
        needed: dict[Term, int] = {"fgv": 2, "tic": tic, "fgt": 1, "cmr": 1, "hard_infonce": 1}
        return {term: number for term, number in needed.items() if term in WEIGHTS[self.weights]}


@dataclass(frozen=True, kw_only=True)
class FgClip2Batch:
    """Embeddings of one rank's batch; lengths do not matter."""

    images: Float[Tensor, "B D"]
    texts_short: Float[Tensor, "B D"]
    texts_long: Float[Tensor, "B D"]
    region_images: Float[Tensor, "R D"]
    region_texts: Float[Tensor, "R D"]
    """The own phrase of each region."""
    hard_images: Float[Tensor, "H D"]
    """Regions with negatives."""
    hard_texts: Float[Tensor, "H K D"]
    """The own phrase of each, then its negatives."""
    global_positives: Bool[Tensor, "B M"] | None = None
    """Images of this rank against texts of all ranks that are true of them; None: only an image's own."""
    region_positives: Bool[Tensor, "R R"] | None = None
    """Regions whose phrases are equal; None: every phrase is of one region only."""
    region_rivals: Bool[Tensor, "R R"] | None = None
    """Regions whose phrases count as false of each other; None: all that are not equal."""


@dataclass(frozen=True, kw_only=True)
class FgClip2Scales:
    """The learned scalars: logarithms of scales, as the checkpoint has them."""

    log_scale: Float[Tensor, ""] | float
    bias: Float[Tensor, ""] | float
    log_scale_regions: Float[Tensor, ""] | float
    """Of FGV; starts at ln 100."""
    log_scale_hard: Float[Tensor, ""] | float
    """Of the hard texts; starts at ln 100."""


@dataclass(frozen=True, kw_only=True)
class FgClip2Loss:
    """This rank's share of the loss, taken apart."""

    total: Float[Tensor, ""]
    terms: Mapping[Term, Float[Tensor, ""]]
    """Before they are weighted; those of `skipped` are 0."""
    margin: Float[Tensor, ""]
    """The margin of the next step, equal on all ranks; it belongs into the training's checkpoint."""
    skipped: tuple[Term, ...] = field(default=())
    """Terms for which this rank had too few regions."""


def fgclip2_loss(
    batch: FgClip2Batch,
    scales: FgClip2Scales,
    *,
    margin: float | Float[Tensor, ""],
    config: FgClip2LossConfig | None = None,
    gather: Gather = no_gather,
) -> FgClip2Loss:
    """The weighted sum of the terms, and the margin that the next step uses (0 at the first).

    Images meet the texts of all ranks in the global terms; regions meet those of their own rank. A skipped term stays
    in the graph with gradients of 0, so that every rank has the same parameters in use. With `too_few="error"` all
    ranks raise when one has too few: none is left waiting.
    """
    config = FgClip2LossConfig() if config is None else config
    skipped = _too_few(batch, config, gather)
    scale_hard = _exp(scales.log_scale_hard, batch.images)
    ranking_scale = scale_hard if config.weights == "code" else 1.0
    terms: dict[Term, Tensor] = {}
    for term in WEIGHTS[config.weights]:
        if term in skipped:
            terms[term] = _connected_zero(batch, scales)
        elif term in ("global_short", "global_long"):
            terms[term] = siglip_loss(
                batch.images,  # rows: each image of this rank against the texts of all
                batch.texts_short if term == "global_short" else batch.texts_long,
                log_scale=scales.log_scale,
                bias=scales.bias,
                positives=batch.global_positives,
                gather=gather,
            )
        elif term == "fgv":
            terms[term] = infonce_loss(
                batch.region_texts,
                batch.region_images,
                logit_scale=_exp(scales.log_scale_regions, batch.images),
                positives=batch.region_positives,
                rivals=batch.region_rivals,
            )
        elif term == "tic":
            terms[term] = tic_loss(batch.region_texts, mode=config.tic_mode)
        elif term == "fgt":
            terms[term] = fgt_loss(batch.hard_images, batch.hard_texts, logit_scale=scale_hard)
        elif term == "cmr":
            terms[term] = cmr_loss(
                batch.hard_images, batch.hard_texts, margin=margin, logit_scale=ranking_scale
            )
        else:
            terms[term] = hard_infonce_loss(batch.hard_images, batch.hard_texts, logit_scale=scale_hard)
    return FgClip2Loss(
        total=torch.stack([weight * terms[term] for term, weight in WEIGHTS[config.weights].items()]).sum(),
        terms=MappingProxyType(terms),
        margin=next_margin(
            batch.hard_images,
            batch.hard_texts,
            margin=margin,
            logit_scale=ranking_scale,
            maximum=MAX_MARGIN,
            gather=gather,
        ),
        skipped=skipped,
    )


def _too_few(batch: FgClip2Batch, config: FgClip2LossConfig, gather: Gather) -> tuple[Term, ...]:
    """Terms for which this rank has too few regions; an error on all ranks where that is asked for."""
    own = [len(batch.region_texts), len(batch.hard_texts)]
    lacking = []
    for rank, counts in enumerate(gather(torch.tensor([own], device=batch.images.device)).tolist()):
        have = {"fgv": counts[0], "tic": counts[0]}
        few = [term for term, least in config.least.items() if have.get(term, counts[1]) < least]
        if few and config.too_few == "error":
            needs = ", ".join(f"{term} at least {config.least[term]}" for term in few)
            raise TrainingError(
                f"FG-CLIP 2 loss: rank {rank} has {counts[0]} regions and {counts[1]} with negatives, but needs for "
                f'{needs}; give larger batches, or too_few="skip", which counts what it leaves out'
            )
        lacking.append(tuple(few))
    return lacking[gather.rank]


def _connected_zero(batch: FgClip2Batch, scales: FgClip2Scales) -> Float[Tensor, ""]:
    """0 that depends on everything a regional term could use."""
    used = [batch.region_images, batch.region_texts, batch.hard_images, batch.hard_texts]
    zero = torch.stack([at_least_float32(tensor).sum() * 0.0 for tensor in used]).sum()
    for scale in (scales.log_scale_regions, scales.log_scale_hard):
        zero = zero + 0.0 * scale
    return zero


def _exp(log_scale: float | Tensor, like: Tensor) -> Float[Tensor, ""]:
    scale = torch.as_tensor(log_scale, device=like.device)
    return (at_least_float32(scale) if scale.is_floating_point() else scale.float()).exp()
