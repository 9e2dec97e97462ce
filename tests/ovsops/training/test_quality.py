"""Controls: what knows nothing must score what theory says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ovsops.backbones.miniature import (
    WIDTH,
    miniature_dinov2,
    miniature_siglip,
    save_half,
    write_word_tokenizer,
)
from ovsops.backbones.untrained import write_random_mapper
from ovsops.metrics.segmentation import ConfusionCounts, mean_iou
from ovsops.miniature.attributes import CLASS_NAMES
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.miniature.words import WORDS
from ovsops.segmenters.config import fused_config_from_folder
from ovsops.training.quality import (
    ALL_IDS,
    NUM_IDS,
    SegmentationStates,
    dino_tokens,
    grid_ceiling,
    load_dino,
    load_siglip,
    patch_set,
    probe_accuracy,
    probe_counts,
    region_nouns,
    region_nouns_by_scene,
    retrieval,
    segmentation,
)
from ovsops.training.scenes import SceneBank, bank_of
from ovsops.training.shipping import GEOMETRY, world_vocabulary

NUM_SCENES = 24


@pytest.fixture(scope="module")
def bank() -> SceneBank:
    return bank_of(draw_scene(seed) for seed in seeds_of("test")[:NUM_SCENES])


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untrained")
    save_half(miniature_siglip(len(WORDS), seed=0), folder / "siglip2")
    write_word_tokenizer(folder / "siglip2", WORDS)
    save_half(miniature_dinov2(seed=0), folder / "dinov2")
    write_random_mapper(folder / "mapper", text_width=WIDTH, dino_width=WIDTH, seed=0)
    return folder


def test_untrained_towers_retrieve_by_chance(bank: SceneBank, untrained: Path) -> None:
    to_text, to_image = retrieval(load_siglip(untrained / "siglip2"), bank, "en")
    assert to_text.num_queries == to_image.num_queries == NUM_SCENES
    assert to_text.recall_at(1) <= 4 / NUM_SCENES


def test_untrained_towers_name_regions_by_chance(bank: SceneBank, untrained: Path) -> None:
    counts = region_nouns(load_siglip(untrained / "siglip2"), bank)["en"]
    assert counts.counts[0].sum() == sum(len(things) for things in bank.things)
    assert counts.top_1 < 0.3  # one of twelve is 0.08; 24 scenes scatter


def test_regions_by_scene_are_counted_where_they_are(bank: SceneBank, untrained: Path) -> None:
    towers = load_siglip(untrained / "siglip2")
    by_scene, together = region_nouns_by_scene(towers, bank), region_nouns(towers, bank)
    for language, counts in by_scene.items():
        assert counts[:, 0].sum(axis=1).tolist() == [len(things) for things in bank.things]
        assert np.array_equal(counts.sum(axis=0), together[language].counts)


def test_untrained_towers_segment_next_to_nothing(bank: SceneBank, untrained: Path) -> None:
    config = fused_config_from_folder(untrained, threshold=0.0, **GEOMETRY)
    states = segmentation(bank, world_vocabulary(), {"untrained": config})["untrained"]
    assert states.confusion.sum() == bank.semantic.numel()
    assert float(mean_iou(states.areas.sum(axis=0), ALL_IDS)) < 0.12


def test_a_constant_map_scores_the_share_of_its_class_over_the_classes(bank: SceneBank) -> None:
    grass = CLASS_NAMES.index("grass") + 1
    labels = np.full(bank.semantic.shape[1:], grass, np.uint8)
    counts = np.stack(
        [ConfusionCounts.zeros(NUM_IDS).update(truth, labels).counts for truth in bank.semantic.numpy()]
    )
    share = float((bank.semantic == grass).float().mean())
    present = len(np.unique(bank.semantic))
    found = float(mean_iou(SegmentationStates(confusion=counts).areas.sum(axis=0), ALL_IDS))
    assert found == pytest.approx(share / present, rel=1e-4)


def test_the_grid_sets_a_ceiling_and_a_finer_one_a_higher(bank: SceneBank) -> None:
    worth = {
        grid: float(mean_iou(grid_ceiling(bank, grid=grid, kind="hard").areas.sum(axis=0), ALL_IDS))
        for grid in (8, 16, 128)
    }
    assert worth[8] < worth[16] < worth[128] == 1.0


def test_late_numbers_share_one_pass_and_change_nothing_else(bank: SceneBank, untrained: Path) -> None:
    config = fused_config_from_folder(untrained, threshold=0.0, **GEOMETRY)
    some = replace(config, alpha=0.3)
    alone = segmentation(bank, world_vocabulary(), {"some": some})["some"]
    beside = segmentation(bank, world_vocabulary(), {"other": replace(config, alpha=1.0), "some": some})[
        "some"
    ]
    assert np.array_equal(alone.confusion, beside.confusion)


def test_nouns_and_background_folds_all_stuff_into_one(bank: SceneBank) -> None:
    counts = np.zeros((1, NUM_IDS, NUM_IDS), np.int64)
    counts[0, 13, 14] = 5  # grass taken for sand: both background
    counts[0, 1, 1], counts[0, 2, 20] = 3, 2
    areas = SegmentationStates(confusion=counts).with_background[0]
    assert areas[:, 0].tolist() == [5, 5, 7]
    assert areas[:, 1].tolist() == [3, 3, 3]
    assert areas[:, 2].tolist() == [0, 2, 0]


def test_probes_of_pixels_like_features_find_what_is_there(bank: SceneBank, untrained: Path) -> None:
    dino = load_dino(untrained / "dinov2")
    patches = patch_set(dino_tokens(dino, bank), bank, patch_size=dino.patch_size)
    oracle = replace(patches, features=torch.eye(len(CLASS_NAMES))[patches.classes])
    assert set(probe_accuracy(oracle, oracle).values()) == {1.0}
    blind = replace(
        patches, features=torch.randn(len(patches.classes), 4, generator=torch.Generator().manual_seed(0))
    )
    assert probe_accuracy(blind, blind)["linear nouns"] < 0.4
    counts = probe_counts(oracle, replace(oracle, classes=oracle.classes.roll(1)))
    nouns = counts["linear nouns"]
    assert nouns.shape == (NUM_SCENES, 2)
    assert (nouns[:, 0] <= nouns[:, 1]).all()
    assert nouns[:, 1].sum() + counts["linear stuff"][:, 1].sum() == len(patches.classes)
