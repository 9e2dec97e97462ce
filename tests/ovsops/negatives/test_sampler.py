"""Negatives: ten, distinct, false, of the level asked for, the same each time."""

import functools
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from ovsops.negatives.config import LEVELS, NUM_CHANGES, REASONS, Level, NegativeConfig
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


BAD_INPUT = [
    None,
    7,
    ["a red car"],
    {"text": "a red car"},
    "",
    " \t\n ",
    "a red\x00 car",
    "a \x1b[31mred\x1b[0m car",
    "a \u202ered car",
    "a \ud800 red car",
    "\ufeff",
    "<b>a red car</b>",
    "a [red](http://x.y) car",
    "a &lt;red&gt; car",
    "a {colour} car",
    "a red car " * 10_000,
    "\u7ea2" * 100_000,
    "\U0001f697" * 100,
    "\U0001f697\U0001f3fd\u200d",
    "a red car \u7ea2\u8272\u7684\u8f66",
    "\u043a\u0440\u0430\u0441\u043d\u0430\u044f car",
    "it is what it is",
    "\u8fd9\u662f\u4ec0\u4e48",
    "12 34.",
    "...",
]


@pytest.fixture(scope="module")
def samplers() -> dict[Level, NegativeSampler]:
    return {level: fit_sampler(CorpusSample(), NegativeConfig(level=level)) for level in LEVELS}


@pytest.mark.parametrize("text", BAD_INPUT, ids=range(len(BAD_INPUT)))
@pytest.mark.parametrize("level", ["hard", "medium", "easy"])
def test_bad_input_is_refused_with_a_reason(
    text: object, level: Level, samplers: dict[Level, NegativeSampler]
) -> None:
    answer = samplers[level].negatives_for(text, key="bad")
    assert isinstance(answer, Refusal)
    assert answer.reason in REASONS


@pytest.mark.parametrize("text", BAD_INPUT[:21], ids=range(21))
def test_trivial_negatives_of_bad_input_are_refused_too(
    text: object, samplers: dict[Level, NegativeSampler]
) -> None:
    assert isinstance(samplers["trivial"].negatives_for(text), Refusal)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            "a an the red dark light blue glass wooden striped two big cup cups of made with and , . 红色的 \U0001f697"
            " \t <b> LED café \u200b ( ) 's - --".split(" ")
        ),
        max_size=14,
    ),
    st.sampled_from(["hard", "medium", "easy"]),
)
def test_any_mixture_gets_a_reason_or_ten_sound_negatives(words: list[str], level: Level) -> None:
    sampler = _sampler_without_corpus(level)
    answer = sampler.negatives_for(" ".join(words), key="x")
    if isinstance(answer, Refusal):
        assert answer.reason in REASONS
        return
    faults = {fault for fault, _ in set_faults(answer.positive, answer.negatives)}
    assert not faults - {"F_MARKS"}  # marks of the caption itself stay as they are
    assert {len(kinds.split("+")) for kinds in answer.types} == {NUM_CHANGES[level]}


@functools.cache
def _sampler_without_corpus(level: Level) -> NegativeSampler:
    return fit_sampler(CorpusSample(), NegativeConfig(level=level))


def test_a_thing_is_no_glass_where_it_is_said_to_be_of_glass() -> None:
    """A blue glass lamp may be called a blue glass: no negative says so."""
    sampler = fit_sampler(CorpusSample(), NegativeConfig(level="hard", object_weight=1000.0))
    for text in ("a blue glass lamp", "a blue lamp made of glass"):
        for key in range(30):
            answer = sampler.negatives_for(text, key=str(key))
            assert isinstance(answer, Negatives)
            assert not {"a blue glass", "a blue glass made of glass"} & set(answer.negatives)
