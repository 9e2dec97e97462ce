"""What ships of SAM 3 keeps its promises: figures of the shipped files on test scenes, a little below the card's.

`python -m benchmarks.segmenters --only segmenters` gives the figures on more scenes, with intervals.
"""

import json

import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.sam3 import load_sam3
from ovsops.backbones.sam3_licence import OWN_WEIGHTS_KEY
from ovsops.backbones.sam3_text import Sam3Text
from ovsops.backbones.shipped import miniature_checkpoint
from ovsops.metrics.segmentation import mean_iou
from ovsops.miniature.attributes import CLASS_NAMES, LANGUAGES, Language
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.segmenters.sam3_config import Sam3SegmenterConfig
from ovsops.training.quality import ALL_IDS, STUFF_IDS, labelled_states, shuffled_names
from ovsops.training.sam3 import NAMES
from ovsops.training.scenes import SceneBank, bank_of
from ovsops.training.shipping import world_vocabulary

SHIPPED = Checkpoint(source="miniature:sam3")
CONFIG = Sam3SegmenterConfig(sam3=SHIPPED, threshold=0.0, prompts_per_batch=20)


@pytest.fixture(scope="module")
def scenes() -> SceneBank:
    return bank_of(draw_scene(seed) for seed in seeds_of("test")[:40])


def test_the_weights_are_our_own_and_small() -> None:
    folder = miniature_checkpoint("sam3")
    assert json.loads((folder / "config.json").read_text("utf-8"))[OWN_WEIGHTS_KEY] is True
    assert (folder / "model.safetensors").stat().st_size < 6e6


@pytest.mark.parametrize("language", LANGUAGES)
def test_class_names_find_their_pixels(scenes: SceneBank, language: Language) -> None:
    areas = labelled_states(scenes, world_vocabulary(), CONFIG, language=language).areas.sum(axis=0)
    assert mean_iou(areas, ALL_IDS) >= 0.65
    assert mean_iou(areas, STUFF_IDS) >= 0.90


def test_labels_hang_on_the_names() -> None:
    part = bank_of(draw_scene(seed) for seed in seeds_of("test")[:16])
    areas = labelled_states(part, shuffled_names(world_vocabulary()), CONFIG).areas.sum(axis=0)
    assert mean_iou(areas, ALL_IDS) < 0.05


def test_presence_knows_what_is_in_a_scene(scenes: SceneBank) -> None:
    """Balanced accuracy at 0.5 over names in both languages; regions of under 16 pixels are left out."""
    place = resolve(SHIPPED)
    sam3 = load_sam3(place, device="cpu", dtype=torch.float32)
    text = Sam3Text(place, device="cpu", dtype=torch.float32).encode(NAMES)
    said, true = [], []
    for image, semantic in zip(scenes.images, scenes.semantic, strict=True):
        found = sam3.predict(sam3.encode_images(image[None].float()), text.tokens, text.attention_mask)
        pixels = semantic.flatten().long().bincount(minlength=len(CLASS_NAMES) + 1)[1:].repeat(2)
        clear = (pixels == 0) | (pixels >= 16)
        said.append((found.presence > 0.5)[clear])
        true.append((pixels > 0)[clear])
    answers, truth = torch.cat(said), torch.cat(true)
    found_share, spared_share = answers[truth].float().mean(), (~answers[~truth]).float().mean()
    assert (found_share + spared_share) / 2 >= 0.85
