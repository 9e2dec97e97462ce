"""Invariants of the fused maths on random features."""

from typing import Any

import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.segmenters.config import CleaningConfig, SegmenterConfig
from ovsops.segmenters.fused import ViewFeatures, competing_similarity, patch_scores, row_similarity
from ovsops.segmenters.text_features import ClassTextFeatures
from tests.ovsops.segmenters.conftest import random_text, random_views

NOWHERE = Checkpoint(source="nowhere")


def config(**fields: Any) -> SegmenterConfig:
    return SegmenterConfig(dino=NOWHERE, mapper=NOWHERE, siglip=NOWHERE, **fields)


VARIANTS = [
    config(),
    config(alpha=1.0),
    config(alpha=0.0, siglip_scale=2.0, siglip_shift=-0.1),
    config(prior_weight=0.3, prior_center=0.1),
    config(cleaning=CleaningConfig(tau_head=0.05), temperature=0.2),
    config(mode="upstream", cleaning=CleaningConfig()),
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_are_scores(variant: SegmenterConfig) -> None:
    scores = patch_scores(random_views(num_views=3), random_text(background=2, owners=(1, 1)), variant)
    assert scores.shape == (3, 6, 64)
    assert scores.isfinite().all()
    assert (scores >= 0).all()
    assert (scores <= 1).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_permuting_classes_permutes_scores(variant: SegmenterConfig) -> None:
    views, text = random_views(num_views=2), random_text()
    order = torch.tensor([3, 1, 0, 2])
    assert text.aligned is not None
    permuted = ClassTextFeatures(
        class_ids=text.class_ids,
        num_background=0,
        negative_owner=text.negative_owner,
        mapped=text.mapped[order],
        aligned=text.aligned[order],
        identity="permuted",
    )
    torch.testing.assert_close(
        patch_scores(views, permuted, variant), patch_scores(views, text, variant)[:, order]
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_adding_a_class_changes_no_other_similarity(variant: SegmenterConfig) -> None:
    views = random_views(num_views=2)
    few = row_similarity(views, random_text(classes=3), variant)
    more = row_similarity(views, random_text(classes=5), variant)
    torch.testing.assert_close(more[:, :3], few)


def test_background_prompts_compete_like_classes() -> None:
    views = random_views()
    as_class = patch_scores(views, random_text(classes=3), config())
    as_background = patch_scores(views, random_text(classes=2, background=1), config())
    torch.testing.assert_close(as_background, as_class)


def test_a_negative_lowers_its_class_only_and_only_where_it_wins() -> None:
    views = random_views()
    plain = row_similarity(views, random_text(classes=3), config())
    found = competing_similarity(views, random_text(classes=2, owners=(0,)), config())
    negative = plain[:, 2]
    assert torch.equal(found[:, 1], plain[:, 1])
    loses = negative <= plain[:, 0]
    assert loses.any()
    assert (~loses).any()
    assert torch.equal(found[:, 0][loses], plain[:, 0][loses])
    torch.testing.assert_close(found[:, 0][~loses], (2 * plain[:, 0] - negative)[~loses])


def test_a_constant_image_is_finite() -> None:
    flat = ViewFeatures(
        patch_tokens=torch.ones(1, 16, 48), cls_logits=torch.zeros(1, 3, 16), aligned=torch.ones(1, 16, 32)
    )
    for variant in VARIANTS:
        for classes in (1, 4):
            scores = patch_scores(flat, random_text(classes=classes), variant)
            assert scores.isfinite().all()
            torch.testing.assert_close(scores, scores[..., :1].expand_as(scores), atol=1e-6, rtol=1e-6)


def test_talk2dino_alone_is_the_sigmoid_of_a_cosine() -> None:
    views, text = random_views(), random_text()
    cosine = torch.cosine_similarity(text.mapped[None, :, None], views.patch_tokens[:, None], dim=-1)
    torch.testing.assert_close(patch_scores(views, text, config(alpha=1.0)), cosine.sigmoid())
