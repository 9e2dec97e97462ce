"""What ships of FG-CLIP 2 keeps its promises: figures of the shipped files on test scenes, a little below the card's.

`python -m benchmarks.fgclip2_quality` gives the figures on more scenes, with intervals.
"""

import json

import pytest
import torch

from ovsops.backbones.fgclip2 import FgClip2, FgClip2Image
from ovsops.backbones.fgclip2_pixels import patch_budget
from ovsops.backbones.shipped import miniature_checkpoint
from ovsops.miniature.attributes import LANGUAGES, Language
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.training.fgclip2_quality import (
    RegionSet,
    blind_is_right,
    caption_ranks,
    encode_scenes,
    hard_negatives,
    load_fgclip2,
    noun_answers,
    region_set,
    true_nouns,
)
from ovsops.training.scenes import SceneBank, bank_of

NUM_SCENES = 64
HARD_NEGATIVES, NOUNS, RETRIEVAL = 0.70, 0.92, 0.93


@pytest.fixture(scope="module")
def bank() -> SceneBank:
    return bank_of(draw_scene(seed) for seed in seeds_of("test")[:NUM_SCENES])


@pytest.fixture(scope="module")
def model() -> FgClip2:
    return load_fgclip2(miniature_checkpoint("fgclip2"))


@pytest.fixture(scope="module")
def images(model: FgClip2, bank: SceneBank) -> list[FgClip2Image]:
    return encode_scenes(model, bank)


@pytest.fixture(scope="module")
def regions(model: FgClip2, bank: SceneBank, images: list[FgClip2Image]) -> RegionSet:
    return region_set(model, bank, images)


def share(is_right: torch.Tensor) -> float:
    return float(is_right.float().mean())


def test_it_is_small_and_has_the_published_lengths(model: FgClip2) -> None:
    folder = miniature_checkpoint("fgclip2")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4e6
    assert json.loads((folder / "config.json").read_text("utf-8"))["model_type"] == "fgclip2"
    assert (folder / "README.md").is_file()
    assert (model.model.num_tokens("box"), model.model.num_tokens("long")) == (64, 196)
    assert model.model.keep_len == 20
    assert patch_budget((128, 128), patch_size=model.patch_size) == 256


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_wrong_attribute_is_seen(model: FgClip2, regions: RegionSet, language: Language) -> None:
    assert share(hard_negatives(model, regions, language)) >= HARD_NEGATIVES
    assert share(blind_is_right(regions, language)) < 0.15  # chance is 0.09


@pytest.mark.parametrize("language", LANGUAGES)
def test_regions_are_named(model: FgClip2, regions: RegionSet, language: Language) -> None:
    assert share(noun_answers(model, regions, language) == true_nouns(regions)) >= NOUNS


def test_both_languages_give_the_same_noun(model: FgClip2, regions: RegionSet) -> None:
    english, chinese = (noun_answers(model, regions, language) for language in LANGUAGES)
    assert share(english == chinese) >= 0.90


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_find_their_scene(
    model: FgClip2, bank: SceneBank, images: list[FgClip2Image], language: Language
) -> None:
    for length in ("short", "long"):
        for ranks in caption_ranks(model, bank, images, language, length).values():
            assert share(ranks == 1) >= RETRIEVAL
