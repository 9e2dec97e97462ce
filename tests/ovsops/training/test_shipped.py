"""What ships keeps its promises: figures of the shipped files on test scenes, a little below those of the cards.

`python -m benchmarks.miniature_quality` gives the figures with their intervals, on more scenes.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ovsops.backbones.shipped import PARTS, miniature_calibration, miniature_checkpoints
from ovsops.metrics.segmentation import mean_iou
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.segmenters.config import SegmenterConfig
from ovsops.training.quality import (
    ALL_IDS,
    STUFF_IDS,
    SegmentationStates,
    dino_tokens,
    load_dino,
    load_siglip,
    patch_set,
    probe_accuracy,
    region_nouns,
    retrieval,
    segmentation,
    shuffled_names,
)
from ovsops.training.scenes import SceneBank, bank_of
from ovsops.training.shipping import shipped_segmenter, world_vocabulary

NUM_SCENES = 160


@pytest.fixture(scope="module")
def folder() -> Path:
    return miniature_checkpoints()


@pytest.fixture(scope="module")
def bank() -> SceneBank:
    return bank_of(draw_scene(seed) for seed in seeds_of("test")[:NUM_SCENES])


@pytest.fixture(scope="module")
def labelled(folder: Path, bank: SceneBank) -> Mapping[str, SegmentationStates]:
    config = shipped_segmenter(folder)
    variants: dict[str, SegmenterConfig] = {
        "shipped": config,
        "SigLIP": replace(config, alpha=0.0),
        "DINO": replace(config, alpha=1.0),
    }
    found = segmentation(bank, world_vocabulary(), variants)
    found |= {"zh": segmentation(bank, world_vocabulary(), {"zh": config}, language="zh")["zh"]}
    return found | {"shuffled": segmentation(bank, shuffled_names(world_vocabulary()), {"s": config})["s"]}


def all_classes(states: SegmentationStates) -> float:
    return float(mean_iou(states.areas.sum(axis=0), ALL_IDS))


def test_all_of_it_stays_under_20_megabytes(folder: Path) -> None:
    files = [path for part in PARTS for path in (folder / part).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}
    assert all((folder / part / "README.md").is_file() for part in PARTS)


def test_captions_find_their_scene_in_both_languages(folder: Path) -> None:
    scenes = bank_of(draw_scene(seed) for seed in seeds_of("test")[:256])
    towers = load_siglip(folder / "siglip2")
    for language in ("en", "zh"):
        for direction in retrieval(towers, scenes, language):
            assert direction.recall_at(1) >= 0.85


def test_regions_are_named_in_both_languages(folder: Path, bank: SceneBank) -> None:
    for counts in region_nouns(load_siglip(folder / "siglip2"), bank).values():
        assert counts.top_1 >= 0.60
        assert counts.agreement >= 0.90


@pytest.mark.nightly
def test_dino_patches_tell_nouns_apart(folder: Path, bank: SceneBank) -> None:
    dino = load_dino(folder / "dinov2")
    taught = bank_of(draw_scene(seed) for seed in seeds_of("train")[-100:])
    train, test = (patch_set(dino_tokens(dino, s), s, patch_size=dino.patch_size) for s in (taught, bank))
    assert probe_accuracy(train, test)["linear nouns"] >= 0.50


def test_fused_labels_are_right_and_better_than_either_part(
    labelled: Mapping[str, SegmentationStates],
) -> None:
    shipped = labelled["shipped"]
    assert all_classes(shipped) >= 0.50
    assert all_classes(shipped) >= max(all_classes(labelled["SigLIP"]), all_classes(labelled["DINO"])) + 0.01
    assert float(mean_iou(shipped.areas.sum(axis=0), STUFF_IDS)) >= 0.92
    assert float(mean_iou(shipped.with_background.sum(axis=0))) >= 0.35


def test_chinese_prompts_label_as_well(labelled: Mapping[str, SegmentationStates]) -> None:
    assert all_classes(labelled["zh"]) == pytest.approx(all_classes(labelled["shipped"]), abs=0.02)


def test_shuffled_names_are_worth_nothing(labelled: Mapping[str, SegmentationStates]) -> None:
    assert all_classes(labelled["shuffled"]) < 0.05


def test_the_constants_are_finite_and_both_towers_take_part(folder: Path) -> None:
    constants = miniature_calibration(folder)
    assert set(constants) == {"alpha", "siglip_scale", "siglip_shift", "temperature", "bias"}
    assert 0 < constants["alpha"] < 1
    assert np.isfinite(list(constants.values())).all()
