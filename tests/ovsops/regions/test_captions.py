import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovsops.errors import ConfigError, ShapeError, VocabularyError
from ovsops.miniature.attributes import COLOURS, MATERIALS, NOUN_WORDS, PATTERNS, SIZES
from ovsops.miniature.captions import region_phrase
from ovsops.miniature.scene import draw_scene
from ovsops.regions.attributes import load_attributes, read_attributes
from ovsops.regions.caption_config import NEVER, CaptionConfig
from ovsops.regions.captions import RegionCaptioner, count_captions
from ovsops.regions.phrase_cache import PhraseCache
from tests.tiny.words import WordEncoder

VOCABULARY = load_attributes()


def caption(seen: str, noun: str, language: str = "en", **fields):
    """The caption of one region that looks exactly like a text."""
    encode = WordEncoder()
    captioner = RegionCaptioner(encode, config=CaptionConfig(**fields))
    return captioner.caption(encode.vectors([seen]), torch.tensor([False]), [noun], language=language)[0]


def test_a_red_ball_is_a_red_ball_with_the_margin_worked_out_by_hand() -> None:
    found = caption("red ball", "ball")
    (colour,) = found.attributes
    # "red ball" 1, "blue ball" 1/2, "ball" 1/sqrt(2): the noun alone comes next
    assert (colour.type, colour.value, colour.word, colour.runner_up) == ("colour", "red", "red", "")
    assert colour.margin == pytest.approx(1 - math.sqrt(0.5), abs=1e-6)
    assert (found.short, found.long, found.source) == ("red ball", "red ball", "fgclip2")
    assert found.declined == ("material", "pattern", "transparency")


def test_the_runner_up_is_named_where_the_noun_alone_does_not_compete() -> None:
    found = caption("red ball", "ball", bare_competes=False, attributes=("colour",))
    assert found.attributes[0].margin == pytest.approx(0.5, abs=1e-6)
    assert found.attributes[0].runner_up == "black"


def test_attributes_stand_in_the_order_of_each_language() -> None:
    english = caption("striped transparent glass red cup", "cup", max_short_attributes=4)
    assert english.short == english.long == "transparent red striped glass cup"
    assert english.declined == ()
    chinese = caption("透明红色条纹玻璃杯", "杯", "zh", max_short_attributes=4)
    assert chinese.long == "透明红色条纹玻璃杯"


def test_the_short_caption_says_what_is_surest() -> None:
    encode = WordEncoder()
    seen = encode.vectors(["red ball"]) + 0.9 * encode.vectors(["striped ball"])
    captioner = RegionCaptioner(encode, config=CaptionConfig(max_short_attributes=1))
    features = torch.nn.functional.normalize(seen, dim=-1)
    (found,) = captioner.caption(features, torch.tensor([False]), ["ball"], language="en")
    assert (found.short, found.long) == ("red ball", "red striped ball")


def test_what_is_not_supported_is_declined_and_the_noun_stays() -> None:
    found = caption("ball", "ball")
    assert (found.short, found.long, found.source, found.attributes) == ("ball", "ball", "detector", ())
    assert found.declined == ("colour", "material", "pattern", "transparency")


def test_two_colours_that_tie_are_declined() -> None:
    assert "colour" in caption("red blue ball", "ball", bare_competes=False, default_margin=0.0).declined


def test_a_constant_encoder_says_nothing_even_without_margin() -> None:
    captioner = RegionCaptioner(lambda p: torch.ones(len(p), 4) / 2, config=CaptionConfig(default_margin=0.0))
    (found,) = captioner.caption(torch.ones(1, 4) / 2, torch.tensor([False]), ["ball"], language="en")
    assert (found.short, found.source) == ("ball", "detector")


def test_where_only_the_shade_is_in_doubt_the_base_is_said() -> None:
    shade = caption("light red ball", "ball", attributes=("colour",))
    assert shade.short == "light red ball"
    # "light red" leads all other colours clearly, but "red" only by 1 - sqrt(2/3) = 0.18
    base = caption("light red ball", "ball", attributes=("colour",), shade_margins={"colour": 0.2})
    assert base.short == "red ball"
    assert base.attributes[0].value == "red"
    declined = caption("light red ball", "ball", attributes=("colour",), margins={"colour": 0.6})
    assert declined.declined == ("colour",)


def test_plain_competes_and_is_never_written() -> None:
    found = caption("plain red ball", "ball", attributes=("colour", "pattern"))
    assert found.long == "red ball"
    assert [(c.value, c.word) for c in found.attributes] == [("red", "red"), ("plain", "")]
    assert found.declined == ()


def test_a_type_that_the_noun_says_is_not_asked() -> None:
    found = caption("red ball", "blue ball", attributes=("colour",))
    assert (found.short, found.attributes, found.declined) == ("blue ball", (), ())


def test_an_empty_region_declines_everything() -> None:
    encode = WordEncoder()
    found = RegionCaptioner(encode).caption(
        torch.zeros(1, encode.size), torch.tensor([True]), ["ball"], language="en"
    )
    assert (found[0].short, found[0].source, len(found[0].declined)) == ("ball", "detector", 4)
    assert encode.calls == []


def test_no_regions_give_no_captions() -> None:
    encode = WordEncoder()
    none = RegionCaptioner(encode).caption(
        torch.zeros(0, 600), torch.zeros(0, dtype=torch.bool), [], language="zh"
    )
    assert none == []


def test_types_are_asked_by_kind_and_by_class() -> None:
    config = CaptionConfig(class_attributes={"sky": ()})
    assert config.asked("cup", is_stuff=False) == ("colour", "material", "pattern", "transparency")
    assert config.asked("grass", is_stuff=True) == ("colour",)
    assert config.asked("sky", is_stuff=True) == ()
    encode = WordEncoder()
    found = RegionCaptioner(encode, config=config).caption(
        encode.vectors(["red glass cup"] * 2),
        torch.tensor([False, False]),
        ["cup", "cup"],
        language="en",
        asked=[("colour",), ()],
    )
    assert [c.short for c in found] == ["red cup", "cup"]


def test_margins_may_differ_by_language() -> None:
    margins = {"colour": 0.0, "colour.zh": NEVER}
    assert caption("red ball", "ball", margins=margins).short == "red ball"
    assert caption("红色球", "球", "zh", margins=margins).short == "球"


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.sampled_from(["red ball", "light blue glass cup", "cup", "striped ball"]), min_size=1, max_size=7
    )
)
def test_a_region_does_not_depend_on_its_neighbours(seen: list[str]) -> None:
    encode = WordEncoder()
    features = encode.vectors(seen)
    nouns = [text.split()[-1] for text in seen]
    is_empty = torch.zeros(len(seen), dtype=torch.bool)
    captioner = RegionCaptioner(encode, config=CaptionConfig(attributes=("colour", "pattern")))
    together = captioner.caption(features, is_empty, nouns, language="en")
    alone = [
        captioner.caption(features[i : i + 1], is_empty[:1], [noun], language="en")[0]
        for i, noun in enumerate(nouns)
    ]
    for a, b in zip(together, alone, strict=True):
        assert [c.margin for c in a.attributes] == pytest.approx([c.margin for c in b.attributes], abs=1e-12)
        strip = [replace(x, attributes=()) for x in (a, b)]
        assert strip[0] == strip[1]


def test_each_phrase_is_encoded_once_however_many_regions_and_images() -> None:
    encode = WordEncoder()
    captioner = RegionCaptioner(encode)
    for _ in range(3):
        captioner.caption(
            encode.vectors(["red ball", "red cup", "blue ball"]),
            torch.zeros(3, dtype=torch.bool),
            ["ball", "cup", "ball"],
            language="en",
        )
    phrases = [phrase for call in encode.calls for phrase in call]
    assert len(phrases) == len(set(phrases)) == captioner.phrases.num_encoded
    num_values = sum(len(kind.values) for kind in VOCABULARY.types)
    assert len(phrases) == 2 * (num_values + 1)


def test_the_cache_is_bounded_and_forgets_what_was_used_longest_ago() -> None:
    encode = WordEncoder()
    cache = PhraseCache(encode, max_phrases=2)
    cache(["a", "b"])
    cache(["a", "c"])
    assert len(cache) == 2
    encode.calls.clear()
    torch.testing.assert_close(cache(["c", "a", "b", "c"]), encode.vectors(["c", "a", "b", "c"]))
    assert encode.calls == [["b"]]
    assert len(cache) == 2
    with pytest.raises(ConfigError, match="at least 1"):
        PhraseCache(encode, max_phrases=0)


def test_counts_tell_what_was_declined() -> None:
    counts = count_captions([caption("red ball", "ball"), caption("ball", "ball")])
    assert counts.num_regions == 2
    assert counts.accepted == {"colour": 1}
    assert counts.declined_share("colour") == 0.5
    assert math.isnan(counts.declined_share("weight"))
    assert counts.by_source == {"fgclip2": 1, "detector": 1}


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"default_margin": -0.1}, "captions.default_margin is -0.1"),
        ({"margins": {"colour": float("nan")}}, "captions.margins.colour is nan"),
        ({"shade_margins": {"colour": 3.5}}, "captions.shade_margins.colour"),
        ({"max_short_attributes": -1}, "max_short_attributes"),
        ({"max_phrases": 0}, "max_phrases"),
    ],
)
def test_nonsense_in_a_config_is_refused(fields, match) -> None:
    with pytest.raises(ConfigError, match=match):
        CaptionConfig(**fields)


def test_an_unknown_type_names_the_nearest() -> None:
    with pytest.raises(VocabularyError, match=r"'color'.*did you mean 'colour'"):
        RegionCaptioner(WordEncoder(), config=CaptionConfig(attributes=("color",)))
    with pytest.raises(VocabularyError, match="materiel"):
        RegionCaptioner(WordEncoder(), config=CaptionConfig(margins={"materiel.zh": 0.1}))


def test_bad_arguments_are_refused() -> None:
    captioner = RegionCaptioner(WordEncoder())
    features, is_empty = torch.zeros(1, 600), torch.tensor([False])
    with pytest.raises(VocabularyError, match="no words in 'fr'"):
        captioner.caption(features, is_empty, ["balle"], language="fr")
    with pytest.raises(ShapeError, match="1 regions, 1 flags, 2 nouns"):
        captioner.caption(features, is_empty, ["a", "b"], language="en")
    with pytest.raises(ShapeError, match=r"regions \[0\] have no noun"):
        captioner.caption(features, is_empty, [" "], language="en")


def test_the_shipped_vocabulary_has_the_published_values_in_two_languages() -> None:
    sizes = {kind.name: len(kind.values) for kind in VOCABULARY.types}
    assert sizes == {"colour": 29, "material": 13, "pattern": 8, "transparency": 3}
    assert set(VOCABULARY.languages) == {"en", "zh"}
    colour = VOCABULARY.type("colour")
    assert len({value.family for value in colour.values}) == 11


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("types: {a: [{name: x, en: x}, {name: x, en: y}]}\norder: {en: [a]}", "none twice"),
        ("types: {a: [{name: x, en: x}]}\norder: {en: [a]}", "two or more"),
        ("types: {a: [{name: x, en: x}, {name: y, en: x}]}\norder: {en: [a]}", "share a word in en"),
        ("types: {a: [{name: x, en: x}, {name: y, base: z, en: y}]}\norder: {en: [a]}", "base 'z'"),
        ("types: {a: [{name: x, en: x}, {name: y, en: y}]}\norder: {en: [b]}", "names each of a once"),
        ("types: {a: [{name: x, en: x}, {name: y, en: y}]}\norder: {en: [a], zh: [a]}", "'zh' is missing"),
        ("types: {a: [{name: x, en: x, said: 3}, {name: y, en: y}]}\norder: {en: [a]}", "said is 3"),
        ("types: {a: x}\norder: {en: [a]}", "types.a must be a list"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_says_why(text: str, match: str) -> None:
    with pytest.raises(VocabularyError, match=match):
        read_attributes(text, where="mine")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_words_of_the_world_make_its_own_phrases(language: str) -> None:
    world = load_attributes("world")
    drawn = {"size": SIZES, "colour": COLOURS, "pattern": PATTERNS, "material": MATERIALS}
    for name, words in drawn.items():
        assert [value.name for value in world.type(name).values] == [word.name for word in words]
    for thing in draw_scene(7).things:
        values = {
            name: next(v for v in world.type(name).values if v.name == getattr(thing, name)) for name in drawn
        }
        noun = NOUN_WORDS[thing.noun].in_language(language)
        assert world.caption(noun, values, language) == region_phrase(thing, language)
