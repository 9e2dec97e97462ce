"""Controls of CLIP's and DINO's figures: what knows nothing must score what theory says."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ovsops.backbones.miniature import miniature_clip, miniature_dino, save_half, write_clip_tokenizer
from ovsops.metrics.segmentation import mean_iou
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.miniature.words import WORDS
from ovsops.training.dense_quality import (
    ClipTowers,
    clip_retrieval,
    key_tokens,
    load_clip,
    load_keys,
    plain_patch_names,
)
from ovsops.training.quality import ALL_IDS
from ovsops.training.scenes import SceneBank, bank_of

NUM_SCENES = 24


@pytest.fixture(scope="module")
def scenes() -> SceneBank:
    return bank_of(draw_scene(seed) for seed in seeds_of("test")[:NUM_SCENES])


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> ClipTowers:
    folder = tmp_path_factory.mktemp("clip")
    save_half(miniature_clip(len(WORDS), seed=0), folder)
    write_clip_tokenizer(folder, WORDS)
    return load_clip(folder)


def test_untrained_towers_retrieve_by_chance(scenes: SceneBank, towers: ClipTowers) -> None:
    for direction in clip_retrieval(towers, scenes, "zh"):
        assert direction.num_queries == NUM_SCENES
        assert direction.recall_at(1) <= 5 / NUM_SCENES


def test_untrained_towers_name_patches_next_to_never(scenes: SceneBank, towers: ClipTowers) -> None:
    counts = plain_patch_names(towers, scenes, "en")
    assert counts.counts.sum() == NUM_SCENES * 16 * 16
    assert not counts.counts[0].any()  # the world has no pixel without a class
    assert not counts.counts[:, 0].any()
    assert float(mean_iou(counts.areas, ALL_IDS)) < 0.1


def test_patches_that_show_what_is_said_are_named(
    scenes: SceneBank, towers: ClipTowers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tower whose every patch says `sand`."""
    text = towers.text.encode(["sand"]).embeddings
    monkeypatch.setattr(towers.vision, "project", lambda tokens: text.expand(*tokens.shape[:-1], -1))
    counts = plain_patch_names(towers, scenes, "en").counts
    assert np.array_equal(counts[:, 14], counts.sum(axis=1))


def test_keys_are_those_of_the_last_block_with_heads_side_by_side(scenes: SceneBank, tmp_path: Path) -> None:
    save_half(miniature_dino(seed=0), tmp_path)
    vfm = load_keys(tmp_path)
    (tokens,) = key_tokens(vfm, scenes)
    keys = vfm.last_keys(scenes.images.float())
    assert tokens.shape == (NUM_SCENES, 256, 128)
    assert torch.equal(tokens[3, 2 * 16 + 5], keys[3, :, 2, 5].flatten())
