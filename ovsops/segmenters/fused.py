"""From the features of one image's views to scores per class on the patch grid.

Axes: V views of one image, R text rows (classes, background prompts, negatives), K rows that compete
(classes, background prompts), P patches, N heads, D channels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.segmenters.cleaning import clean_background
from ovsops.segmenters.config import SegmenterConfig
from ovsops.segmenters.similarity import class_prior, fuse, patch_similarity, with_negatives, with_prior
from ovsops.segmenters.text_features import ClassTextFeatures

_LOGIT_EPS = 1e-6
"""Cleaned scores are kept this far from 0 and 1, where logits end."""


@dataclass(frozen=True, kw_only=True)
class ViewFeatures:
    """What the encoders see in one image."""

    patch_tokens: Float[Tensor, "V P D"]
    """DINO, after its last norm."""
    cls_logits: Float[Tensor, "V N P"] | None
    """DINO's CLS-to-patch logits; needed for cleaning and for the class prior."""
    aligned: Float[Tensor, "V P E"] | None
    """SigLIP patches in its text space; None where alpha is 1."""


def row_similarity(
    views: ViewFeatures, text: ClassTextFeatures, config: SegmenterConfig
) -> Float[Tensor, "V R P"]:
    """S': fused similarity of every row with every patch, class prior included.

    A row does not depend on other rows.
    """
    dino = patch_similarity(text.mapped, views.patch_tokens)
    siglip = None
    if config.alpha < 1:
        assert views.aligned is not None, "alpha < 1 needs SigLIP patches"
        assert text.aligned is not None, "alpha < 1 needs SigLIP text"
        siglip = patch_similarity(text.aligned, views.aligned)
    similarity = fuse(
        dino,
        siglip,
        alpha=config.alpha,
        siglip_scale=config.siglip_scale,
        siglip_shift=config.siglip_shift,
    )
    if config.prior_weight == 0:
        return similarity
    assert views.cls_logits is not None, "the class prior needs the CLS logits"
    prior = class_prior(text.mapped, views.patch_tokens, views.cls_logits)
    return with_prior(similarity, prior, weight=config.prior_weight, center=config.prior_center)


def competing_similarity(
    views: ViewFeatures, text: ClassTextFeatures, config: SegmenterConfig
) -> Float[Tensor, "V K P"]:
    """S' of the rows that compete for pixels, classes lowered where their own negative prompts win."""
    rows = row_similarity(views, text, config)
    classes, background, negatives = rows.split(
        [text.num_classes, text.num_background, len(text.negative_owner)], dim=1
    )
    lowered = with_negatives(classes, negatives, text.negative_owner, weight=config.negative_weight)
    return torch.cat([lowered, background], dim=1)


def patch_scores(
    views: ViewFeatures, text: ClassTextFeatures, config: SegmenterConfig
) -> Float[Tensor, "V K P"]:
    """Scores in [0, 1] of the rows that compete: sigmoid(S' / temperature + bias), cleaned where the config
    says so.
    """
    scores = _calibrated(views, text, config).sigmoid()
    if config.cleaning is None:
        return scores
    assert views.cls_logits is not None, "cleaning needs the CLS logits"
    return clean_background(
        scores,
        text.mapped[: text.num_competing],
        views.patch_tokens,
        views.cls_logits,
        weight=config.cleaning.weight,
        tau_head=config.cleaning.tau_head,
        mode=config.mode,
    )


def patch_logits(
    views: ViewFeatures, text: ClassTextFeatures, config: SegmenterConfig
) -> Float[Tensor, "V K P"]:
    """Logits of `patch_scores`.

    What is resized and averaged in mode `corrected`: without cleaning they are S' up to a scale and a shift that all
    rows share, so that temperature and bias change how sure a label is, never which class wins.
    """
    if config.cleaning is None:
        return _calibrated(views, text, config)
    return patch_scores(views, text, config).logit(eps=_LOGIT_EPS)


def _calibrated(
    views: ViewFeatures, text: ClassTextFeatures, config: SegmenterConfig
) -> Float[Tensor, "V K P"]:
    return competing_similarity(views, text, config) / config.temperature + config.bias
