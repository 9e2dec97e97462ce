"""How regions are measured: a model that knows everything, one that knows nothing, and counts by scene."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from ovsops.backbones.fgclip2 import FgClip2
from ovsops.backbones.miniature import write_word_tokenizer
from ovsops.errors import TrainingError
from ovsops.miniature.attributes import LANGUAGES
from ovsops.training.fgclip2_module import FgClip2Embedder
from ovsops.training.fgclip2_quality import (
    ATTRIBUTES,
    RegionSet,
    caption_ranks,
    encode_scenes,
    hard_negatives,
    load_fgclip2,
    noun_answers,
    one_attribute,
    region_set,
    true_nouns,
)
from ovsops.training.fgclip2_stage1 import FGCLIP2_WORDS
from ovsops.training.scenes import SceneBank
from tests.ovsops.training.fgclip2_world import tiny_model
from tests.ovsops.training.test_siglip2 import Told


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FgClip2:
    folder = tmp_path_factory.mktemp("tiny")
    write_word_tokenizer(folder / "words", FGCLIP2_WORDS)
    FgClip2Embedder(tiny_model(), folder / "words", device="cpu").export(folder / "checkpoint")
    return load_fgclip2(folder / "checkpoint")


@pytest.fixture(scope="module")
def regions(model: FgClip2, bank: SceneBank) -> RegionSet:
    return region_set(model, bank, encode_scenes(model, bank))


def test_every_thing_is_a_region(regions: RegionSet, bank: SceneBank) -> None:
    assert len(regions.truths) == sum(map(len, bank.things)) == len(regions.features)
    assert regions.by_scene(torch.ones(len(regions.things), dtype=torch.bool))[:, 1].tolist() == [
        len(things) for things in bank.things
    ]
    torch.testing.assert_close(regions.features.norm(dim=1), torch.ones(len(regions.features)))


def test_regions_that_are_their_phrases_are_all_right(model: FgClip2, regions: RegionSet) -> None:
    for language in LANGUAGES:
        texts = model.encode_text([truth.phrases[language] for truth in regions.truths], length="box")
        known = replace(regions, features=texts)
        assert hard_negatives(model, known, language).all()
        for attribute in ATTRIBUTES[:3]:
            assert one_attribute(model, known, language, attribute).all()


def test_empty_regions_are_all_wrong(model: FgClip2, regions: RegionSet) -> None:
    blind = replace(regions, features=torch.zeros_like(regions.features))
    assert not hard_negatives(model, blind, "en").any()
    assert (noun_answers(model, blind, "en") == -1).all()


def test_regions_that_are_nouns_are_named(model: FgClip2, regions: RegionSet) -> None:
    names = model.encode_text([thing.noun for thing in regions.things], length="box")
    named = replace(regions, features=F.normalize(names, dim=-1))
    assert torch.equal(noun_answers(model, named, "en"), true_nouns(regions))


def test_counts_of_scenes_may_be_of_a_part(regions: RegionSet) -> None:
    is_right = torch.arange(len(regions.things)) % 2 == 0
    counts = regions.by_scene(is_right, ~is_right)
    assert counts[:, 0].sum() == 0
    assert counts[:, 1].sum() == int((~is_right).sum())


def test_negatives_are_drawn_by_scene_and_place(model: FgClip2, bank: SceneBank, regions: RegionSet) -> None:
    images = encode_scenes(model, bank)
    again = region_set(model, bank, images)
    assert [truth.negatives for truth in again.truths] == [truth.negatives for truth in regions.truths]
    other = region_set(model, bank, images, seed=1)
    assert [truth.negatives for truth in other.truths] != [truth.negatives for truth in regions.truths]


def test_captions_of_both_lengths_are_ranked(model: FgClip2, bank: SceneBank) -> None:
    images = encode_scenes(model, bank)
    for length in ("short", "long"):
        for found in caption_ranks(model, bank, images, "zh", length).values():
            assert 1 <= int(found.min()) <= int(found.max()) <= len(bank)


def test_things_without_boxes_are_refused(model: FgClip2, bank: SceneBank) -> None:
    bare = replace(bank, things=tuple((Told(noun="ball", colour="red"),) for _ in bank.things))
    with pytest.raises(TrainingError, match="scene 0: its things have no boxes"):
        region_set(model, bare, encode_scenes(model, bank))
