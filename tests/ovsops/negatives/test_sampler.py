"""Negatives: ten, distinct, false, of the level asked for, the same each time."""

import itertools
import pickle

import numpy as np
import pytest

from ovsops.errors import ConfigError
from ovsops.metrics.blind import BlindConfig, blind_scores
from ovsops.metrics.fgovd import positive_is_first
from ovsops.miniature.attributes import (
    COLOURS,
    LANGUAGES,
    MATERIALS,
    NOUNS,
    PATTERNS,
    SIZES,
    Language,
)
from ovsops.miniature.captions import region_phrase
from ovsops.miniature.scene import Thing
from ovsops.negatives.check import set_faults
from ovsops.negatives.config import LEVELS, NUM_CHANGES, Level, NegativeConfig
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.sampler import Negatives, NegativeSampler, Refusal, fit_sampler

NUM_THINGS = 60


def things(count: int, seed: int = 0) -> list[Thing]:
    """Things with attributes drawn as scenes draw them, without their pixels."""
    generator = np.random.default_rng(seed)

    def one(words: tuple, weights: list[float] | None = None) -> str:
        return words[int(generator.choice(len(words), p=weights))].name

    return [
        Thing(
            noun=one(NOUNS),
            colour=one(COLOURS),
            pattern=one(PATTERNS, [0.4, 0.2, 0.2, 0.2]),
            material=one(MATERIALS, [0.5, 0.25, 0.25]),
            size=one(SIZES),
            center_xy=(0.0, 0.0),
            radius=1.0,
            angle_degrees=0.0,
            is_mirrored=False,
            box_xywh=(0, 0, 1, 1),
            area=1,
            hidden_share=0.0,
        )
        for _ in range(count)
    ]


def true_phrases(thing: Thing, language: Language) -> set[str]:
    """All that may be said of a thing: any of its attributes, from the record alone."""
    names = ("size", "colour", "pattern", "material")
    return {
        region_phrase(thing, language, chosen)
        for count in range(len(names) + 1)
        for chosen in itertools.combinations(names, count)
    }


def sampler_of(texts: list[str], language: Language, level: Level, **fields: float) -> NegativeSampler:
    sample = CorpusSample()
    for i, text in enumerate(texts):
        sample.add(text, language, str(i))
    return fit_sampler(sample, NegativeConfig(level=level, max_iterations=25, **fields))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("level", LEVELS)
def test_negatives_of_the_world_are_false_by_its_record(language: Language, level: Level) -> None:
    drawn = things(NUM_THINGS)
    texts = [region_phrase(thing, language) for thing in drawn]
    sampler = sampler_of(texts, language, level)
    num_true = num_refused = 0
    for i, (thing, text) in enumerate(zip(drawn, texts, strict=True)):
        answer = sampler.negatives_for(text, language, key=str(i))
        if isinstance(answer, Refusal):  # "red ball" has but two slots
            num_refused += 1
            continue
        assert set_faults(text, answer.negatives) == []
        num_true += len(true_phrases(thing, language) & set(answer.negatives))
        changes = {len(kinds.split("+")) for kinds in answer.types}
        assert changes == {NUM_CHANGES[level] or 1}
    assert num_true == 0
    assert num_refused <= (0 if level in ("hard", "trivial") else NUM_THINGS * 0.2)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_blind_model_finds_nothing_in_the_world(language: Language) -> None:
    texts = list(dict.fromkeys(region_phrase(thing, language) for thing in things(400, seed=3)))
    sampler = sampler_of(texts, language, "hard", max_fitted=250)
    rows = [
        [text, *answer.negatives]
        for i, text in enumerate(texts)
        if isinstance(answer := sampler.negatives_for(text, language, key=str(i)), Negatives)
    ]
    scores, num_texts = blind_scores(
        rows, texts[: len(rows)], config=BlindConfig(num_folds=2, max_iterations=40)
    )
    assert float(positive_is_first(scores, num_texts).double().mean()) < 1.3 / 11


def test_equal_samples_make_equal_negatives_in_any_order_and_process() -> None:
    texts = [region_phrase(thing, "en") for thing in things(60)]
    one, two = (sampler_of(texts, "en", "medium") for _ in range(2))
    two = pickle.loads(pickle.dumps(two))
    first = [one.negatives_for(text, key=str(i)) for i, text in enumerate(texts)]
    last = [two.negatives_for(text, key=str(i)) for i, text in reversed(list(enumerate(texts)))][::-1]
    assert first == last
    assert one.negatives_for(texts[0], key="other") != first[0]


@pytest.mark.parametrize(
    ("text", "level", "reason"),
    [
        ("a thing on a plinth", "hard", "R_NO_ATTRIBUTE"),
        ("red", "medium", "R_TOO_FEW_ATTRIBUTES"),
        ("a transparent gizmo", "hard", "R_TOO_FEW_VALUES"),
        ("", "hard", "R_EMPTY"),
        (17, "hard", "R_NO_TEXT"),
    ],
)
def test_refusals(text: object, level: Level, reason: str) -> None:
    sampler = fit_sampler(CorpusSample(), NegativeConfig(level=level))
    assert sampler.negatives_for(text) == Refusal(reason=reason)


@pytest.mark.parametrize("level", LEVELS)
def test_without_a_corpus_the_lexicon_is_enough(level: Level) -> None:
    sampler = fit_sampler(CorpusSample(), NegativeConfig(level=level))
    for text in ("A big red ceramic bowl with a striped rim.", "一把棕色的木质椅子，靠背是黑色的。"):
        answer = sampler.negatives_for(text)
        assert isinstance(answer, Negatives)
        assert set_faults(text, answer.negatives) == []


def test_a_list_never_says_a_value_twice_or_swaps_its_values() -> None:
    sampler = fit_sampler(CorpusSample(), NegativeConfig(level="medium"))
    answer = sampler.negatives_for("a white and red cup")
    assert isinstance(answer, Negatives)
    for text in answer.negatives:
        assert "red and white" not in text
        words = text.split()
        assert (
            len(set(words) - {"a"}) == len([word for word in words if word != "a"])
            or "light" in words
            or "dark" in words
        )


def test_what_is_no_config() -> None:
    with pytest.raises(ConfigError, match="num_drawn 5"):
        NegativeConfig(num_drawn=5)
    with pytest.raises(ConfigError, match=r"ridge 0\.0"):
        NegativeConfig(ridge=0.0)
