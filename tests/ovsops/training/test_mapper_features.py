"""Cached features are what the towers say, and the same after a trip to disk."""

from pathlib import Path

import pytest
import torch

from ovsops.errors import CheckpointError, ConfigError
from ovsops.mapper.alignment import head_embeddings
from ovsops.miniature.attributes import LANGUAGES
from ovsops.miniature.captions import ATTRIBUTES, region_phrase
from ovsops.training.feature_cache import cached_features, features_key, load_features, save_features
from ovsops.training.mapper_features import (
    SAID_SETS,
    MapperFeatures,
    classes_on_grid,
    compute_features,
    regions_on_grid,
    resized,
)
from ovsops.training.mapper_views import random_boxes
from ovsops.training.scenes import ABSENT, class_shares
from tests.ovsops.training.mapper_world import GRIDS, NUM_SCENES, World


def test_a_row_is_what_the_tower_says_of_that_scene(world: World) -> None:
    view = resized(world.bank.images[5:6].float(), 6 * world.dino.patch_size)
    seen = world.dino.encode(view, with_attention=True)
    grid = world.features.grid(6)
    assert seen.cls_patch_logits is not None
    torch.testing.assert_close(
        grid.patch_tokens[5:6].float(), seen.patch_tokens.flatten(1, 2), atol=4e-3, rtol=1e-3
    )
    torch.testing.assert_close(
        grid.cls_logits[5:6].float(), seen.cls_patch_logits.flatten(2), atol=4e-3, rtol=1e-3
    )
    tokens = world.siglip.encode(resized(world.bank.images[5:6].float(), 6 * 16)).patch_tokens.flatten(1, 2)
    assert grid.aligned is not None
    torch.testing.assert_close(grid.aligned[5:6].float(), world.siglip.align(tokens), atol=4e-3, rtol=1e-3)


def test_features_can_be_trained_on(world: World) -> None:
    """Towers run in inference mode, whose tensors autograd refuses."""
    grid = world.features.grid(4)
    weight = torch.ones(1, requires_grad=True)
    tokens = grid.patch_tokens[:2].float() * weight
    head_embeddings(tokens, grid.cls_logits[:2].float()).sum().backward()
    assert weight.grad is not None


def test_captions_and_names_stand_at_their_scene_and_class(world: World) -> None:
    texts = world.features.texts
    caption = world.text.encode([world.bank.captions["zh", "long"][7]]).embeddings
    torch.testing.assert_close(texts.captions["zh", "long"][7:8], caption.clone(), atol=1e-5, rtol=1e-4)
    names = world.text.encode(["ball", "stone", "球", "石头"]).embeddings.clone()
    torch.testing.assert_close(texts.names[:, [0, 19]].flatten(0, 1), names, atol=1e-5, rtol=1e-4)


def test_every_phrase_of_a_thing_has_its_row(world: World) -> None:
    texts, things = world.features.texts, world.bank.things
    assert set(SAID_SETS[-1]) == set(ATTRIBUTES)
    assert SAID_SETS[0] == frozenset()
    for language in LANGUAGES:
        phrase = region_phrase(things[3][0], language, SAID_SETS[6])
        row = int(texts.phrase_of[LANGUAGES.index(language), 3, 0, 6])
        torch.testing.assert_close(
            texts.phrases[row : row + 1], world.text.encode([phrase]).embeddings.clone(), atol=1e-5, rtol=1e-4
        )
    for n, of_scene in enumerate(things):
        assert (texts.phrase_of[:, n, len(of_scene) :] == ABSENT).all()
        assert (texts.phrase_of[:, n, : len(of_scene)] >= 0).all()


def test_shares_of_classes_sum_to_one_on_a_grid_that_does_not_divide_the_picture(world: World) -> None:
    shares = world.features.grid(6).class_shares.float()  # 64 px into 6 patches
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(NUM_SCENES, 36), atol=2e-3, rtol=0)
    exact = class_shares(world.bank.semantic, patch_size=16).flatten(2).transpose(1, 2)
    torch.testing.assert_close(classes_on_grid(world.bank.semantic, 4), exact)


def test_regions_of_one_scene_by_hand() -> None:
    """Left half thing 1 (a ball), right half grass, on a 2 x 2 grid."""
    instances = torch.zeros(1, 4, 4, dtype=torch.uint8)
    instances[..., :2] = 1
    semantic = torch.full((1, 4, 4), 13, dtype=torch.uint8)
    semantic[..., :2] = 1
    shares = regions_on_grid(instances, semantic, 2, 2)
    assert shares.shape == (1, 2 + 8, 4)
    assert shares[0, 0].tolist() == [1, 0, 1, 0]
    assert shares[0, 2].tolist() == [0, 1, 0, 1]
    assert shares.sum() == 4


def test_features_come_back_from_disk_and_are_computed_once(world: World, tmp_path: Path) -> None:
    calls = []

    def compute() -> MapperFeatures:
        calls.append(1)
        return world.features

    key = features_key(world.bank, {"dino": "a", "text": "b"}, GRIDS)
    cached_features(tmp_path, key, compute)
    again = cached_features(tmp_path, key, compute)
    assert len(calls) == 1
    for side in GRIDS:
        for name, tensor in vars(world.features.grid(side)).items():
            assert torch.equal(getattr(again.grid(side), name), tensor)
    assert torch.equal(again.texts.phrase_of, world.features.texts.phrase_of)
    assert torch.equal(again.texts.captions["en", "short"], world.features.texts.captions["en", "short"])
    assert torch.equal(again.region_codes, world.features.region_codes)


def test_the_key_follows_towers_grids_and_pixels(world: World) -> None:
    key = features_key(world.bank, {"dino": "a"}, (4, 6))
    assert key == features_key(world.bank, {"dino": "a"}, (6, 4))
    assert key != features_key(world.bank, {"dino": "b"}, (4, 6))
    assert key != features_key(world.bank, {"dino": "a"}, (4,))


def test_features_without_siglip_have_no_aligned_patches(world: World, tmp_path: Path) -> None:
    plain = compute_features(world.bank, dino=world.dino, text=world.text, grids=(4,))
    save_features(plain, tmp_path / "plain.safetensors")
    assert load_features(tmp_path / "plain.safetensors").grid(4).aligned is None


def test_a_damaged_file_and_a_missing_grid_say_the_way_out(world: World, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="delete the file"):
        load_features(tmp_path / "bad.safetensors")
    with pytest.raises(ConfigError, match=r"there are those of \[4, 6\]"):
        world.features.grid(9)
    with pytest.raises(ConfigError, match="no grid"):
        compute_features(world.bank, dino=world.dino, text=world.text, grids=())


def test_masked_places_alone_change_when_the_picture_changes_there(world: World) -> None:
    """What DINO sees of a masked patch does not depend on its pixels."""
    rows = torch.tensor([0])
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    views = world.views(with_siglip=True)
    seen = views.masked(rows, mask, with_siglip=True)
    other = world.bank.images.clone()
    other[0, :, 16:32, 32:48] = 255 - other[0, :, 16:32, 32:48]
    mean = resized(other[:1].float(), 4 * 14), resized(world.bank.images[:1].float(), 4 * 14)
    exact = [world.dino.encode(v, with_attention=False, masked=mask).patch_tokens for v in mean]
    inside = (slice(None), slice(None), slice(14, 28), slice(28, 42))
    patched = mean[1].clone()
    patched[inside] = mean[0][inside]
    changed = world.dino.encode(patched, with_attention=False, masked=mask).patch_tokens
    torch.testing.assert_close(changed, exact[1])
    assert not torch.allclose(world.dino.encode(patched, with_attention=False).patch_tokens, exact[1])
    assert seen.aligned is not None
    assert not seen.aligned[mask].any()
    assert seen.aligned[~mask].any()


def test_a_crop_of_the_whole_picture_is_the_picture(world: World) -> None:
    """64 px shown as 4 patches of 16 px: SigLIP sees the very pixels."""
    rows, whole = torch.tensor([2]), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    seen = world.views(with_siglip=True).crops(rows, whole, 4, with_siglip=True)
    grid = world.features.grid(4)
    assert seen.aligned is not None
    assert grid.aligned is not None
    torch.testing.assert_close(seen.aligned.flatten(1, 2), grid.aligned[2:3].float(), atol=4e-3, rtol=1e-3)


def test_boxes_lie_inside_and_have_the_asked_areas() -> None:
    boxes = random_boxes(500, scale=(0.05, 0.4), generator=torch.Generator().manual_seed(0))
    assert ((boxes >= 0) & (boxes <= 1)).all()
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert 0.049 < area.min() < 0.07
    assert 0.38 < area.max() < 0.401
