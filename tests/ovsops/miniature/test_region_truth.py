"""What is said of regions: words by hand, negatives that are wrong in one attribute, none likelier than another."""

from collections import Counter

import numpy as np
import pytest

from ovsops.errors import ConfigError
from ovsops.metrics.blind import blind_scores
from ovsops.metrics.fgovd import positive_is_first
from ovsops.miniature.attributes import COLOURS, LANGUAGES, MATERIALS, PATTERNS, SIZES
from ovsops.miniature.captions import region_phrase, split_words
from ovsops.miniature.region_truth import (
    CHANGED,
    EXPLICIT_WORDS,
    Change,
    Located,
    explicit_phrase,
    region_truth,
    wrong_values,
)
from ovsops.miniature.samples import scene_sample
from ovsops.miniature.scene import Thing, draw_scene
from ovsops.miniature.truth import read_truth
from ovsops.miniature.words import WORDS

EVERYTHING = ("size", "colour", "pattern", "material")
THING = Thing(
    noun="fish",
    colour="red",
    pattern="plain",
    material="matte",
    size="medium",
    center_xy=(30.0, 40.0),
    radius=18.0,
    angle_degrees=0.0,
    is_mirrored=False,
    box_xywh=(12, 20, 30, 40),
    area=600,
    hidden_share=0.0,
)


def test_phrases_by_hand() -> None:
    assert explicit_phrase(THING, "en") == "medium red plain fish"
    assert explicit_phrase(THING, "zh") == "中红色素面鱼"
    assert explicit_phrase(THING, "en", EVERYTHING) == "medium red plain matte fish"
    assert explicit_phrase(THING, "zh", EVERYTHING) == "中红色素面哑光的鱼"
    assert explicit_phrase(THING, "en", ()) == "fish"
    changed = Change(attribute="pattern", value="striped")
    assert explicit_phrase(THING, "en", ("pattern", "colour"), change=changed) == "red striped fish"
    for language in LANGUAGES:
        for said in ((), ("colour",), EVERYTHING):
            assert explicit_phrase(THING, language, said, outright=False) == region_phrase(
                THING, language, said
            )


def test_wrong_values_are_all_but_the_true_one() -> None:
    found = wrong_values(THING)
    assert Counter(change.attribute for change in found) == {"size": 2, "colour": 8, "pattern": 3}
    assert not {"red", "plain", "medium"} & {change.value for change in found}
    assert len(wrong_values(THING, EVERYTHING)) == 15


def test_a_truth_of_a_scene_and_of_what_is_read_back() -> None:
    scene = draw_scene(900_001)
    read = read_truth(scene_sample(scene)["json"])
    for thing, again in zip(scene.things, read.things, strict=True):
        assert isinstance(thing, Located)
        assert isinstance(again, Located)
        truth = region_truth(thing, np.random.default_rng(3))
        assert truth == region_truth(again, np.random.default_rng(3))
        x1, y1, x2, y2 = truth.box_xyxy
        mask = scene.instances == scene.things.index(thing) + 1
        rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
        assert (x1, y1, x2, y2) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


@pytest.mark.parametrize("seed", range(4))
def test_each_negative_differs_in_one_attribute(seed: int) -> None:
    for thing in draw_scene(900_100 + seed).things:
        truth = region_truth(thing, np.random.default_rng(seed))
        own = {"size": thing.size, "colour": thing.colour, "pattern": thing.pattern}
        for language in LANGUAGES:
            assert len(set(truth.negatives[language]) | {truth.phrases[language]}) == 11
        for change, text in zip(truth.changes, truth.negatives["en"], strict=True):
            assert own[change.attribute] != change.value
            said, true = text.split(), truth.phrases["en"].split()
            assert sum(a != b for a, b in zip(said, true, strict=True)) == 1
            assert change.value in said


def test_every_wrong_value_is_drawn_as_often_as_any_other() -> None:
    drawn: Counter[Change] = Counter()
    generator = np.random.default_rng(0)
    for _ in range(2000):
        drawn.update(region_truth(THING, generator).changes)
    assert len(drawn) == 13
    assert all(abs(count / 2000 - 10 / 13) < 0.04 for count in drawn.values())


def test_a_model_that_sees_the_texts_alone_is_at_chance() -> None:
    rows: list[list[str]] = []
    scenes: list[int] = []
    for seed in range(900_000, 900_120):
        for place, thing in enumerate(draw_scene(seed).things):
            truth = region_truth(thing, np.random.default_rng([seed, place]))
            rows.append([truth.phrases["en"], *truth.negatives["en"]])
            scenes.append(seed)
    right = positive_is_first(*blind_scores(rows, scenes))
    assert float(right.float().mean()) < 1 / 11 + 0.06


def test_too_few_wrong_values_are_refused() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="10 negatives, but colour have only 8 wrong values"):
        region_truth(THING, generator, said=("colour",), changed=("colour",))
    with pytest.raises(ConfigError, match="negatives in material, which the phrase does not say"):
        region_truth(THING, generator, said=CHANGED, changed=EVERYTHING)


def test_every_word_of_a_phrase_is_known() -> None:

    known = {*WORDS, *EXPLICIT_WORDS}
    for size in SIZES:
        for colour in COLOURS:
            for pattern in PATTERNS:
                for material in MATERIALS:
                    told = {"size": size, "colour": colour, "pattern": pattern, "material": material}
                    thing = Thing(
                        **{
                            **{name: getattr(THING, name) for name in THING.__dataclass_fields__},
                            **{name: value.name for name, value in told.items()},
                        }
                    )
                    for language in LANGUAGES:
                        assert set(split_words(explicit_phrase(thing, language, EVERYTHING))) <= known
