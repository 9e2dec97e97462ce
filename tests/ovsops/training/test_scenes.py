"""Banks of scenes: who is in a batch, what a patch holds, and which phrase is true of which thing."""

from dataclasses import dataclass, replace
from itertools import combinations, product

import pytest
import torch

from ovsops.backbones.miniature import TEXT_LENGTH, write_word_tokenizer
from ovsops.backbones.tokenizers import SiglipTokenizer
from ovsops.errors import TrainingError
from ovsops.miniature.attributes import CLASS_NAMES, LANGUAGES, MATERIALS, NOUNS, PATTERNS, SIZES
from ovsops.miniature.captions import ATTRIBUTES, region_phrase
from ovsops.miniature.samples import scene_sample
from ovsops.miniature.scene import SceneConfig, draw_scene
from ovsops.miniature.truth import read_truth
from ovsops.miniature.words import WORDS
from ovsops.training.scenes import (
    ABSENT,
    FAMILIES,
    SceneBank,
    bank_of,
    bank_of_truths,
    batch_indices,
    class_shares,
    matches,
    phrase_codes,
    region_shares,
    step_generator,
    stuff_codes,
    thing_codes,
)


@dataclass(frozen=True, kw_only=True)
class Told:
    """Attributes of a thing, without a picture."""

    noun: str = "fish"
    colour: str = "orange"
    pattern: str = "striped"
    material: str = "shiny"
    size: str = "big"


FISH = Told()
BALL = Told(noun="ball", colour="red", pattern="plain", material="matte", size="medium")


class TestBatches:
    def test_an_epoch_shows_no_scene_twice_and_the_next_has_another_order(self) -> None:
        epochs = [
            torch.cat([batch_indices(e * 3 + s, num_scenes=10, batch_size=3, seed=5) for s in range(3)])
            for e in range(4)
        ]
        assert all(len(set(epoch.tolist())) == 9 for epoch in epochs)
        assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4
        assert len(set(torch.cat(epochs).tolist())) == 10  # whom one epoch leaves out, another shows

    def test_the_workers_slices_are_the_batch_of_one_worker(self) -> None:
        for step in range(7):
            whole = batch_indices(step, num_scenes=25, batch_size=6, seed=1)
            parts = [
                batch_indices(step, num_scenes=25, batch_size=2, seed=1, rank=rank, world_size=3)
                for rank in range(3)
            ]
            assert torch.equal(torch.cat(parts), whole)

    def test_a_batch_depends_on_step_and_seed_alone(self) -> None:
        torch.manual_seed(3)
        first = batch_indices(11, num_scenes=50, batch_size=8, seed=2)
        before = torch.get_rng_state()
        batch_indices(3, num_scenes=50, batch_size=8, seed=2)
        torch.rand(4)
        assert torch.equal(batch_indices(11, num_scenes=50, batch_size=8, seed=2), first)
        assert not torch.equal(batch_indices(11, num_scenes=50, batch_size=8, seed=3), first)
        torch.manual_seed(3)
        assert torch.equal(torch.get_rng_state(), before)  # the global state was not drawn from

    def test_random_numbers_of_a_step_are_its_own(self) -> None:
        draws = {
            float(torch.rand(1, generator=step_generator(seed, step))) for seed in (0, 1) for step in range(9)
        }
        assert len(draws) == 18
        assert torch.equal(
            torch.rand(3, generator=step_generator(4, 2)), torch.rand(3, generator=step_generator(4, 2))
        )

    def test_too_few_scenes_are_refused(self) -> None:
        with pytest.raises(TrainingError, match=r"7 scenes do not fill one batch of 8; .*smaller batch"):
            batch_indices(0, num_scenes=7, batch_size=4, seed=0, world_size=2)


class TestShares:
    semantic = torch.tensor(
        [[[1, 1, 13, 13], [1, 20, 13, 13], [2, 2, 0, 0], [2, 2, 0, 14]]], dtype=torch.uint8
    )
    instances = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0], [2, 2, 0, 0], [2, 2, 0, 0]]], dtype=torch.uint8)

    def test_classes(self) -> None:
        shares = class_shares(self.semantic, patch_size=2)
        assert shares.shape == (1, 20, 2, 2)
        expected = torch.zeros(1, 20, 2, 2)
        expected[0, 0, 0, 0], expected[0, 19, 0, 0] = 0.75, 0.25  # class 1 is plane 0, class 20 plane 19
        expected[0, 12, 0, 1] = 1.0
        expected[0, 1, 1, 0] = 1.0
        expected[0, 13, 1, 1] = 0.25  # where there is nothing, nothing is counted
        assert torch.equal(shares, expected)

    def test_regions_are_the_things_then_every_stuff(self) -> None:
        shares = region_shares(self.instances, self.semantic, patch_size=2, num_things=3)
        expected = torch.zeros(1, 3 + 8, 2, 2)
        expected[0, 0, 0, 0] = 0.75
        expected[0, 1, 1, 0] = 1.0  # the third thing is absent
        expected[0, 3 + 0, 0, 1] = 1.0  # grass is class 13
        expected[0, 3 + 7, 0, 0] = 0.25  # stone is class 20
        expected[0, 3 + 1, 1, 1] = 0.25
        assert torch.equal(shares, expected)

    def test_shares_of_a_drawn_scene_add_up_to_one(self) -> None:
        bank = bank_of([draw_scene(100_000)])
        things = bank.codes.shape[1]
        shares = region_shares(bank.instances, bank.semantic, patch_size=8, num_things=things)
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(1, 16, 16))
        areas = shares.sum(dim=(2, 3))[0, :things] * 64
        torch.testing.assert_close(areas, torch.tensor([float(thing.area) for thing in bank.things[0]]))


class TestPhrases:
    def test_places_in_the_families(self) -> None:
        assert FAMILIES == ("noun", "colour", "pattern", "material", "size")
        assert thing_codes(FISH) == [11, 1, 1, 1, 2]
        assert thing_codes(BALL) == [0, 0, 0, 0, 1]

    def test_what_goes_without_saying_is_not_said(self) -> None:
        assert phrase_codes(FISH, {"colour", "size"}) == [11, 1, ABSENT, ABSENT, 2]
        assert phrase_codes(FISH, ()) == [11, ABSENT, ABSENT, ABSENT, ABSENT]
        assert phrase_codes(BALL, ATTRIBUTES) == [0, 0, ABSENT, ABSENT, ABSENT]

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_codes_agree_with_the_words(self, language: str) -> None:
        """Over every value of the four attributes and every set that may be said: equal codes, equal words."""
        subsets = [set(s) for count in range(5) for s in combinations(ATTRIBUTES, count)]
        by_code: dict[tuple[int, ...], set[str]] = {}
        by_words: dict[str, set[tuple[int, ...]]] = {}
        values = product(("red", "black"), PATTERNS, MATERIALS, SIZES)
        for colour, pattern, material, size in values:
            fields = {"pattern": pattern.name, "material": material.name, "size": size.name}
            thing = Told(noun="tree", colour=colour, **fields)
            for said in subsets:
                code, words = tuple(phrase_codes(thing, said)), region_phrase(thing, language, said)
                by_code.setdefault(code, set()).add(words)
                by_words.setdefault(words, set()).add(code)
                for place, family in enumerate(FAMILIES[1:], start=1):
                    alone = region_phrase(thing, language, {family})
                    is_heard = family in said and alone != region_phrase(thing, language, ())
                    assert (code[place] != ABSENT) == is_heard
        assert all(len(words) == 1 for words in by_code.values())
        assert all(len(codes) == 1 for codes in by_words.values())

    def test_truth_table(self) -> None:
        red_ball = Told(noun="ball", colour="red", pattern="striped", material="shiny", size="small")
        regions = torch.tensor([thing_codes(BALL), thing_codes(red_ball), thing_codes(FISH)])
        regions = torch.cat([regions, stuff_codes([0, 7]), torch.full((1, 5), ABSENT)])
        phrases = {
            "ball": phrase_codes(BALL, ()),
            "red ball": phrase_codes(
                BALL, {"colour", "pattern", "material", "size"}
            ),  # nothing else has a word
            "striped ball": phrase_codes(red_ball, {"pattern"}),
            "small red striped shiny ball": phrase_codes(red_ball, ATTRIBUTES),
            "red fish": phrase_codes(replace(FISH, colour="red"), {"colour"}),
            "fish": phrase_codes(FISH, {}),
            "grass": [12, *[ABSENT] * 4],
            "stone": [19, *[ABSENT] * 4],
            "star": [2, *[ABSENT] * 4],
        }
        expected = {
            "ball": [1, 1, 0, 0, 0, 0],
            "red ball": [
                1,
                1,
                0,
                0,
                0,
                0,
            ],  # true of the striped one, too: a phrase that is silent denies nothing
            "striped ball": [0, 1, 0, 0, 0, 0],
            "small red striped shiny ball": [0, 1, 0, 0, 0, 0],
            "red fish": [0, 0, 0, 0, 0, 0],
            "fish": [0, 0, 1, 0, 0, 0],
            "grass": [0, 0, 0, 1, 0, 0],
            "stone": [0, 0, 0, 0, 1, 0],
            "star": [0, 0, 0, 0, 0, 0],
        }
        found = matches(torch.tensor(list(phrases.values())), regions)
        assert dict(zip(phrases, found.int().tolist(), strict=True)) == expected

    def test_stuff_has_no_attribute_that_a_phrase_could_name(self) -> None:
        codes = stuff_codes(range(8))
        assert codes[:, 0].tolist() == [CLASS_NAMES.index(name) for name in CLASS_NAMES[len(NOUNS) :]]
        for family in range(1, 5):
            for value in range(9):
                phrase = torch.full((1, 5), ABSENT)
                phrase[0, family] = value
                assert not matches(phrase, codes).any()


class TestBanks:
    def test_a_bank_read_back_from_its_samples_is_the_bank_drawn(self) -> None:
        scenes = [draw_scene(seed, SceneConfig(size=64)) for seed in (100_003, 100_004, 100_005)]
        drawn = bank_of(scenes)
        read = bank_of_truths((scene.image, read_truth(scene_sample(scene)["json"])) for scene in scenes)
        for name in ("images", "instances", "semantic", "codes"):
            assert torch.equal(getattr(read, name), getattr(drawn, name)), name
        assert read.captions == drawn.captions
        assert [[thing_codes(t) for t in of_one] for of_one in read.things] == [
            [thing_codes(t) for t in of_one] for of_one in drawn.things
        ]

    def test_places_of_a_bank_fit_together(self, bank: SceneBank) -> None:
        assert len(bank) == 8
        assert bank.images.shape == (8, 3, 128, 128)
        for n, things in enumerate(bank.things):
            assert (bank.codes[n, len(things) :] == ABSENT).all()
            for t, thing in enumerate(things):
                assert bank.codes[n, t].tolist() == thing_codes(thing)
                is_here = bank.instances[n] == t + 1
                assert int(is_here.sum()) == thing.area
                assert (bank.semantic[n][is_here] == bank.codes[n, t, 0] + 1).all()
        image = torch.from_numpy(draw_scene(100_000).image)
        assert torch.equal(bank.images[0].permute(1, 2, 0), image)

    def test_every_caption_fits_the_text_tower_and_is_known_word_for_word(self, tmp_path) -> None:  # type: ignore[no-untyped-def]
        write_word_tokenizer(tmp_path, WORDS)
        tokenizer = SiglipTokenizer(tmp_path, length=200)
        unknown = tokenizer.tokenizer.token_to_id("<unk>")
        full = bank_of(
            draw_scene(seed, SceneConfig(size=64, min_things=6)) for seed in range(100_000, 100_040)
        )
        captions = [text for texts in full.captions.values() for text in texts]
        ids = tokenizer(captions)
        lengths = (ids != tokenizer.pad).sum(dim=1)
        assert (
            TEXT_LENGTH - 6 < int(lengths.max()) <= TEXT_LENGTH
        )  # end token included; and the bound is near
        assert not (ids == unknown).any()

    def test_no_scene_is_an_error(self) -> None:
        with pytest.raises(TrainingError, match="no scene to train on"):
            bank_of([])
