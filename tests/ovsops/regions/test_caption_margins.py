import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovsops.errors import ConfigError, ShapeError
from ovsops.regions.attributes import load_attributes
from ovsops.regions.caption_config import NEVER, CaptionConfig
from ovsops.regions.caption_margins import (
    JudgedMargins,
    MarginTarget,
    fit_caption_margins,
    fit_margin,
    judge_ranks,
)
from ovsops.regions.captions import RegionCaptioner
from tests.tiny.words import WordEncoder


def judged(margins, is_right) -> JudgedMargins:
    return JudgedMargins(margins=np.array(margins, float), is_right=np.array(is_right, bool))


def test_all_right_says_all() -> None:
    fit = fit_margin(judged(np.linspace(0.01, 0.5, 400), np.ones(400)))
    assert fit.margin == pytest.approx(0.01)
    assert (fit.num_said, fit.num_wrong, fit.num_regions) == (400, 0, 400)


def test_all_wrong_says_nothing() -> None:
    assert fit_margin(judged(np.linspace(0.01, 0.5, 400), np.zeros(400))).margin == NEVER


def test_too_few_regions_prove_nothing() -> None:
    # 0 wrong of n: the bound is 1 - 0.0025 ** (1 / n), over 5 % up to n = 116
    assert fit_margin(judged(np.full(116, 0.3), np.ones(116))).margin == NEVER
    assert fit_margin(judged(np.full(117, 0.3), np.ones(117))).margin == 0.3


def test_the_margin_parts_the_sure_from_the_unsure() -> None:
    margins = np.concatenate([np.linspace(0.2, 0.4, 500), np.linspace(0.01, 0.1, 500)])
    is_right = np.concatenate([np.ones(500), np.zeros(500)])
    fit = fit_margin(judged(margins, is_right))
    assert fit.margin == pytest.approx(0.2)
    assert (fit.num_said, fit.num_wrong) == (500, 0)


def test_what_is_not_over_its_rival_is_never_said() -> None:
    fit = fit_margin(judged([0.2] * 300 + [0.0] * 100 + [-0.1] * 600, np.ones(1000)))
    assert (fit.margin, fit.num_said) == (0.2, 300)


def test_the_promise_is_kept_on_other_regions() -> None:
    """Of 200 fits on a world where wrong values have smaller margins, at most 5 % may miss 5 % on it."""
    generator = np.random.default_rng(0)

    def draw(num: int) -> JudgedMargins:
        is_right = generator.random(num) < 0.7
        return judged(generator.gamma(np.where(is_right, 8, 1), 0.05), is_right)

    world = draw(100_000)
    missed, said = 0, []
    for _ in range(200):
        margin = fit_margin(draw(600)).margin
        is_said = world.margins >= margin
        said.append(is_said.mean())
        missed += bool(is_said.any()) and (~world.is_right[is_said]).mean() > 0.05
    assert missed <= 10
    assert np.mean(said) > 0.3  # not by saying nothing


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.booleans()), max_size=60), st.floats(0.01, 0.9))
def test_a_fit_tells_what_it_does(pairs, max_wrong) -> None:
    margins, is_right = (
        (np.array(x) for x in zip(*pairs, strict=True)) if pairs else (np.zeros(0), np.zeros(0))
    )
    found = judged(margins, is_right)
    fit = fit_margin(found, MarginTarget(max_wrong=max_wrong))
    is_said = found.margins >= fit.margin
    assert (int(is_said.sum()), int((~found.is_right[is_said]).sum())) == (fit.num_said, fit.num_wrong)
    assert fit.num_said == 0 or fit.num_wrong / fit.num_said <= max_wrong


def test_ranks_are_judged_by_base_and_by_shade() -> None:
    encode = WordEncoder()
    captioner = RegionCaptioner(encode, config=CaptionConfig(attributes=("colour", "pattern")))
    features = encode.vectors(["light red ball", "blue ball", "plain ball", "red ball"])
    ranks = captioner.rank(features, torch.tensor([False, False, False, True]), ["ball"] * 4, language="en")
    truths = [
        {"colour": "red"},
        {"colour": "green"},
        {"colour": "red", "pattern": "striped"},
        {"colour": "red"},
    ]
    bases, shades = judge_ranks(ranks, truths, vocabulary=load_attributes(), language="en")
    assert bases["colour"].is_right[:2].tolist() == [True, False]
    assert len(bases["colour"].margins) == 3  # the empty region is left out
    assert shades["colour"].is_right.tolist()[0] is False
    assert len(bases["pattern"].margins) == 0  # "plain" is never written


def fit(seen: list[str], truths: list[dict[str, str]], encode: WordEncoder, **fields):
    captioner = RegionCaptioner(encode, config=CaptionConfig(**fields))
    is_empty = torch.zeros(len(seen), dtype=torch.bool)
    nouns = ["ball"] * len(seen)
    return fit_caption_margins(captioner, encode.vectors(seen), is_empty, nouns, truths, language="en")


def test_fitted_margins_go_into_the_config_by_language() -> None:
    encode = WordEncoder()
    seen = ["red ball", "light blue ball"] * 150 + ["ball"] * 40
    truths = [{"colour": text.removesuffix(" ball")} for text in seen]
    config, fits = fit(seen, truths, encode, attributes=("colour",))
    assert set(config.margins) == {"colour.en"} == set(config.shade_margins)
    assert config.without_bare == ()
    assert (fits["colour"].num_said, fits["colour"].num_wrong, fits["colour"].with_bare) == (300, 0, True)
    captioner = RegionCaptioner(encode, config=config)
    found = captioner.caption(
        encode.vectors(seen[:2]), torch.zeros(2, dtype=torch.bool), ["ball"] * 2, language="en"
    )
    assert [caption.short for caption in found] == ["red ball", "light blue ball"]


def test_where_the_noun_alone_is_near_everything_it_does_not_compete() -> None:
    """Regions that are five parts ball and one part colour: "ball" is nearest, and red still nearer than blue."""
    encode = WordEncoder()
    seen = ["ball ball ball ball ball red", "ball ball ball ball ball blue"] * 200
    truths = [{"colour": text.split()[-1], "pattern": "plain"} for text in seen]
    config, fits = fit(seen, truths, encode, attributes=("colour", "pattern"))
    assert config.without_bare == ("colour.en",)
    assert (fits["colour"].num_said, fits["colour"].with_bare) == (400, False)
    captioner = RegionCaptioner(encode, config=config)
    is_empty = torch.zeros(2, dtype=torch.bool)
    found = captioner.caption(encode.vectors(seen[:2]), is_empty, ["ball"] * 2, language="en")
    assert [caption.short for caption in found] == ["red ball", "blue ball"]


def test_bad_input() -> None:
    with pytest.raises(ShapeError, match="nan"):
        fit_margin(judged([float("nan")], [True]))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        MarginTarget(max_wrong=0.0)
