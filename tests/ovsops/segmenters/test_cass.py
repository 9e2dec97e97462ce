"""CASS end to end on tiny random checkpoints, against the same steps written out, and at its edges."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ovsops.backbones.checkpoint import Checkpoint, checkpoints_of
from ovsops.errors import CheckpointError, ConfigError
from ovsops.masks.class_map import ClassMap
from ovsops.segmenters.cass import CassSegmenter, build_cass, compute_cass_text
from ovsops.segmenters.cass_config import CassConfig
from ovsops.segmenters.cass_features import dense_patches
from ovsops.segmenters.cass_views import vfm_pixels
from ovsops.segmenters.labels import canvas_scores
from ovsops.segmenters.prompt_tree import adjusted_text, query_logits
from ovsops.segmenters.queries import QueryTextFeatures
from ovsops.segmenters.segmenter import Segmenter
from ovsops.segmenters.views import in_whole_patches, plan_views, resize
from ovsops.text.vocabulary import ClassSpec, Vocabulary
from tests.tiny import checkpoints as tiny

NAMES = ("cat", "dog", "tree", "sky")
VOCABULARY = Vocabulary(
    name="four",
    languages=("en",),
    templates={"en": ("a photo of a {}.", "a {}.")},
    classes=tuple(ClassSpec(id=10 + i, name=name) for i, name in enumerate(NAMES)),
    background={"en": ("nothing",)},
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cass")
    shape = {"hidden_size": 32, "num_attention_heads": 2}
    return {
        "clip": tiny.write_clip(root / "clip"),
        "siglip": tiny.write_siglip(root / "siglip"),
        "dino": tiny.write_vit(root / "dino", width=32, heads=2),
        "dinov2": tiny.write_dinov2(root / "dinov2", **shape),
        "large": tiny.write_clip(
            root / "large", projection=40, patch_size=14, hidden_size=48, num_attention_heads=3
        ),
        "three_heads": tiny.write_vit(root / "three_heads"),
    }


def config_of(
    folders: dict[str, Path], *, clip: str = "clip", vfm: str = "dino", **fields: Any
) -> CassConfig:
    small = {"short_side": 64, "window": 48, "stride": 32, "max_long_side": 256}
    return CassConfig(
        clip=Checkpoint(source=str(folders[clip])),
        vfm=Checkpoint(source=str(folders[vfm])),
        **(small | {"cluster_threshold": 0.5} | fields),
    )


def built(folders: dict[str, Path], vocabulary: Vocabulary = VOCABULARY, **fields: Any) -> CassSegmenter:
    config = config_of(folders, **fields)
    text = compute_cass_text(config, vocabulary, ("en",), dtype="float32")
    return build_cass(config, vocabulary, text, dtype="float32")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_same(found: ClassMap, expected: ClassMap) -> None:
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert (found.labels == expected.labels).mean() > 0.999  # near ties may fall either way in another batch


@pytest.mark.parametrize("mode", ["upstream", "corrected"])
@pytest.mark.parametrize(
    ("clip", "vfm"), [("clip", "dino"), ("clip", "dinov2"), ("siglip", "dino"), ("siglip", "dinov2")]
)
def test_every_pair_of_towers_labels_images_of_any_size(
    folders: dict[str, Path], clip: str, vfm: str, mode: str
) -> None:
    segmenter = built(folders, clip=clip, vfm=vfm, mode=mode)
    assert isinstance(segmenter, Segmenter)
    sizes = [(64, 96), (50, 70), (1, 1), (7, 90)]
    maps = segmenter.segment([picture(*size, seed=i) for i, size in enumerate(sizes)])
    for found, size in zip(maps, sizes, strict=True):
        assert found.labels.shape == size
        assert found.labels.max() <= len(NAMES)
        assert np.isfinite(found.scores).all()
        assert (found.scores >= 0).all()
        assert (found.scores <= 1).all()


def test_an_image_does_not_depend_on_the_others_in_its_batch(folders: dict[str, Path]) -> None:
    images = [picture(64, 96), picture(64, 64, seed=1), picture(40, 100, seed=3)]
    for fields in ({}, {"prior_from": "window"}, {"mode": "upstream"}, {"views": "squash"}):
        together = built(folders, **fields).segment(images)
        few = built(folders, views_per_batch=1, class_chunk=1, **fields)
        for image, found in zip(images, together, strict=True):
            assert_same(found, few.segment([image])[0])
    assert built(folders).segment([]) == []


@pytest.mark.parametrize("mode", ["upstream", "corrected"])
@torch.inference_mode()
def test_features_and_labels_are_the_steps_one_window_at_a_time(folders: dict[str, Path], mode: str) -> None:
    segmenter = built(folders, mode=mode, prob_threshold=0.3)
    config, clip, vfm = segmenter.config, segmenter.clip, segmenter.vfm
    image = picture(64, 96)
    plan = plan_views((64, 96), config)
    position = "upstream" if mode == "upstream" else "native"
    canvas = resize(image, plan.canvas_hw)[None]
    whole = clip.encode(canvas, position=position)
    prior = F.normalize(clip.image_embedding(whole.blocks), dim=-1) @ segmenter.text.queries.T
    views = []
    for window in plan.windows:
        pixels = canvas[:, :, window.y1 : window.y2, window.x1 : window.x2]
        hidden = clip.encode(pixels, position=position)
        seen = vfm_pixels(pixels, patch=vfm.patch_size, side=None, mode=config.mode)
        keys = vfm.last_keys(seen, position=position)
        dense = dense_patches(
            clip, hidden.blocks[-2], keys, hidden.grid, config.distillation, locality_std=config.locality_std
        ).patches
        text = adjusted_text(
            segmenter.text.queries, dense, prior, segmenter.clusters, weight=config.text_weight, num_patches=2
        )
        views.append(
            query_logits(dense, text, prior, prior_weight=config.prior_weight).unflatten(2, hidden.grid)
        )
    canvas_logits = canvas_scores(torch.cat(views), plan, mode="corrected")
    probabilities = (40 * canvas_logits).softmax(dim=0)
    classes = segmenter.text.query_class
    best = torch.stack([probabilities[classes == c].amax(dim=0) for c in range(5)])  # background first
    score, label = best[1:].max(dim=0)
    expected = torch.where((best[0] >= score) | (score < 0.3), 0, label + 1).numpy().astype(np.uint16)
    assert_same(segmenter.segment([image])[0], ClassMap(labels=expected, scores=score.numpy()))


def test_the_modes_give_other_scores(folders: dict[str, Path]) -> None:
    image = picture(64, 96)
    upstream, corrected = (built(folders, mode=m).segment([image])[0] for m in ("upstream", "corrected"))
    assert np.abs(upstream.scores - corrected.scores).max() > 1e-3


@pytest.mark.parametrize(
    "fields",
    [
        {"fusion_factor": 0.0},
        {"text_weight": 0.0},
        {"prior_weight": 0.0},
        {"locality_std": None},
        {"eigenscale": None},
        {"energy": 1.0},
        {"matching": "same"},
        {"matching": "similar"},
        {"prior_from": "window"},
        {"vfm_side": 96},
        {"num_eigenvalues": 2},
    ],
)
def test_each_mechanism_can_be_switched_and_changes_scores(
    folders: dict[str, Path], fields: dict[str, Any]
) -> None:
    strong = {"text_weight": 0.5, "tie_break": 0.0, "rank": 2, "rank_step": 1}
    image = picture(96, 64, seed=3)
    plain = built(folders, **strong).segment([image])[0]
    changed = built(folders, **(strong | fields)).segment([image])[0]
    assert np.isfinite(changed.scores).all()
    assert np.abs(changed.scores - plain.scores).max() > 1e-6


@pytest.mark.parametrize("prior_from", ["image", "window"])
@pytest.mark.parametrize("size", [(64, 96), (48, 48)])
@torch.inference_mode()
def test_another_clip_sees_the_whole_picture(
    folders: dict[str, Path], size: tuple[int, int], prior_from: str
) -> None:
    """The prior is that tower's similarity of picture and text; everything else stays."""
    image = picture(*size)
    plain = built(folders, prior_from=prior_from)
    large = built(folders, prior_from=prior_from, prior_clip=Checkpoint(source=str(folders["large"])))
    plan = plan_views(size, plain.cass)
    [one], [other] = plain.encode([image], [plan]), large.encode([image], [plan])
    torch.testing.assert_close(one.patches, other.patches)
    tower, text = large.prior_clip, large.text.picture_queries
    assert tower is not None
    assert text is not None
    seen = large.views(image, plan, patch_size=tower.patch_size)
    if prior_from == "image":
        seen = in_whole_patches(resize(image, plan.canvas_hw)[None], patch=tower.patch_size, mode="corrected")
    pictures = tower.image_embedding(tower.encode(seen, position="native").blocks)
    torch.testing.assert_close(other.pictures, F.normalize(pictures, dim=-1), atol=1e-5, rtol=1e-4)
    assert other.pictures.shape[1] == text.shape[1] != one.pictures.shape[1]
    [found] = large.segment([image])
    assert not np.allclose(found.scores, plain.segment([image])[0].scores, atol=1e-4)


def test_the_prior_of_the_same_clip_is_the_prior(folders: dict[str, Path]) -> None:
    image = picture(64, 96)
    same = built(folders, prior_clip=Checkpoint(source=str(folders["clip"])))
    assert_same(same.segment([image])[0], built(folders).segment([image])[0])


def test_text_without_the_prior_s_queries_is_refused(folders: dict[str, Path]) -> None:
    config = config_of(folders)
    text = compute_cass_text(config, VOCABULARY, ("en",), dtype="float32")
    large = replace(config, prior_clip=Checkpoint(source=str(folders["large"])))
    with pytest.raises(CheckpointError, match="queries of the prior have None channels, `prior_clip` has 40"):
        build_cass(large, VOCABULARY, text, dtype="float32")
    both = compute_cass_text(large, VOCABULARY, ("en",), dtype="float32")
    again = QueryTextFeatures.from_bytes(both.to_bytes())
    assert again.picture_queries is not None
    assert again.picture_queries.shape == (5, 40)
    assert again.identity == both.identity != text.identity


def test_the_vfm_does_not_matter_when_its_graphs_are_left_out(folders: dict[str, Path]) -> None:
    image = picture(64, 96)
    dino, dinov2 = (built(folders, vfm=v, fusion_factor=0.0).segment([image])[0] for v in ("dino", "dinov2"))
    assert_same(dino, dinov2)


def test_one_class_and_no_background_labels_every_pixel(folders: dict[str, Path]) -> None:
    only = Vocabulary(
        name="one", languages=("en",), templates={"en": ("a {}.",)}, classes=(ClassSpec(id=3, name="cat"),)
    )
    found = built(folders, only).segment([picture(64, 80)])[0]
    assert (found.labels == 1).all()
    np.testing.assert_allclose(found.scores, 1, atol=1e-6)


@pytest.mark.parametrize("value", [0, 127, 255])
@pytest.mark.parametrize("mode", ["upstream", "corrected"])
def test_a_constant_image_has_a_defined_result(folders: dict[str, Path], mode: str, value: int) -> None:
    found = built(folders, mode=mode).segment([np.full((64, 96, 3), value, np.uint8)])[0]
    assert np.isfinite(found.scores).all()


def test_a_threshold_that_nothing_reaches_leaves_background(folders: dict[str, Path]) -> None:
    assert not built(folders, prob_threshold=1.0, logit_scale=0.01).segment([picture(64, 96)])[0].labels.any()


def test_towers_whose_heads_differ_are_refused_with_the_way_out(folders: dict[str, Path]) -> None:
    with pytest.raises(
        CheckpointError, match=r"`clip` has 2 heads of 16 .* `vfm` has 3 of 16, .*; choose towers"
    ):
        built(folders, vfm="three_heads")


def test_text_of_other_ids_or_another_tower_is_refused(folders: dict[str, Path]) -> None:
    config = config_of(folders)
    text = compute_cass_text(config, VOCABULARY, ("en",), dtype="float32")
    other = replace(VOCABULARY, classes=VOCABULARY.classes[:3])
    with pytest.raises(ConfigError, match="ids are not those of the text features; compute them again"):
        build_cass(config, other, text, dtype="float32")
    wide = QueryTextFeatures(
        class_ids=text.class_ids,
        query_class=text.query_class,
        queries=F.pad(text.queries, (0, 1)),
        identity="other",
    )
    with pytest.raises(CheckpointError, match="queries have 25 channels, `clip` has 24 in text space"):
        build_cass(config, VOCABULARY, wide, dtype="float32")


def test_text_is_computed_once_and_read_from_the_cache(folders: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(folders)
    first = compute_cass_text(config, VOCABULARY, ("en",), dtype="float32", cache_dir=tmp_path)
    again = compute_cass_text(config, VOCABULARY, ("en",), dtype="float32", cache_dir=tmp_path)
    assert torch.equal(first.queries, again.queries)
    assert first.query_class.tolist() == [1, 2, 3, 4, 0]


def test_the_checkpoints_of_a_manifest(folders: dict[str, Path]) -> None:
    config = config_of(folders)
    assert checkpoints_of(config) == {"clip": config.clip, "vfm": config.vfm}
