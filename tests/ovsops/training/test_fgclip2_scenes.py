"""Batches of regions: what is true of what, drawn by the step alone, and what a source must give."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from ovsops.errors import ConfigError, ShapeError, TrainingError
from ovsops.miniature.attributes import LANGUAGES, STUFF
from ovsops.miniature.region_truth import explicit_phrase, values_of
from ovsops.training.fgclip2_batch import CaptionBatch, CaptionSource, RegionBatch, RegionSource
from ovsops.training.fgclip2_scenes import ATTRIBUTES, SceneRegions, SceneRegionsConfig, corners
from ovsops.training.scenes import SceneBank
from tests.ovsops.training.test_siglip2 import Told

NO_STUFF = SceneRegionsConfig(stuff_windows=0)


def source(bank: SceneBank, config: SceneRegionsConfig | None = None) -> SceneRegions:
    return SceneRegions(bank, batch_size=4, seed=0, config=config)


def test_it_is_a_source_for_both_stages(bank: SceneBank) -> None:
    assert isinstance(source(bank), CaptionSource)
    assert isinstance(source(bank), RegionSource)


def test_a_batch_depends_on_the_step_alone(bank: SceneBank) -> None:
    first = source(bank).regions(3)
    other = source(bank)
    other.regions(1)
    torch.manual_seed(9)
    again = other.regions(3)
    assert (first.phrases, first.negatives, first.captions_long) == (
        again.phrases,
        again.negatives,
        again.captions_long,
    )
    assert torch.equal(first.boxes_xyxy, again.boxes_xyxy)
    assert source(bank).regions(4).phrases != first.phrases


@pytest.mark.parametrize("step", range(6))
def test_every_thing_is_a_region_with_a_phrase_that_is_true_of_it(bank: SceneBank, step: int) -> None:
    batch = source(bank, NO_STUFF).regions(step)
    rows = [
        next(row for row in range(len(bank)) if (bank.images[row].permute(1, 2, 0).numpy() == image).all())
        for image in batch.images
    ]
    things = [thing for row in rows for thing in bank.things[row]]
    assert len(things) == len(batch.phrases)
    for thing, box, phrase in zip(things, batch.boxes_xyxy.tolist(), batch.phrases, strict=True):
        assert tuple(box) == corners(thing)  # type: ignore[arg-type]
        subsets = [
            [attribute for place, attribute in enumerate(ATTRIBUTES) if bits >> place & 1]
            for bits in range(16)
        ]
        assert phrase in {explicit_phrase(thing, lang, said) for lang in LANGUAGES for said in subsets}
    for place, phrase, negatives in zip(
        batch.hard_regions.tolist(), batch.hard_phrases, batch.negatives, strict=True
    ):
        full = {
            explicit_phrase(things[place], lang, said)
            for lang in LANGUAGES
            for said in (ATTRIBUTES, ATTRIBUTES[:3])
        }
        assert phrase in full
        assert len({*negatives} - full) == 10


def test_phrases_have_equal_keys_exactly_where_they_say_the_same(bank: SceneBank) -> None:
    """Full phrases of things: their keys are those of all values."""
    batch = source(bank, replace(NO_STUFF, noun_share=0.0, full_share=1.0)).regions(0)
    rows = source(bank).draws(0)[0].tolist()
    things = [thing for row in rows for thing in bank.things[row]]
    said = [(thing.noun, *values_of(thing).values()) for thing in things]
    expected = torch.tensor([[a == b for b in said] for a in said])
    assert torch.equal(batch.phrase_keys[:, None] == batch.phrase_keys[None], expected)


def test_stuff_comes_in_windows_that_show_nothing_else(bank: SceneBank) -> None:
    names = {word.in_language(language) for word in STUFF for language in LANGUAGES}
    many = source(bank, SceneRegionsConfig(stuff_windows=8, window_side=16)).regions(0)
    few = source(bank, NO_STUFF).regions(0)
    windows = [place for place, phrase in enumerate(many.phrases) if phrase in names]
    assert len(many.phrases) - len(few.phrases) == len(windows) > 4
    assert not {*windows} & {*many.hard_regions.tolist()}
    rows = source(bank).draws(0)[0].tolist()
    for place in windows:
        x1, y1, x2, y2 = map(int, many.boxes_xyxy[place].tolist())
        seen = bank.semantic[rows[int(many.box_images[place])], y1:y2, x1:x2].unique().tolist()
        assert [word.in_language(lang) for word in STUFF for lang in LANGUAGES].index(
            many.phrases[place]
        ) // 2 == (seen[0] - 13)
        assert len(seen) == 1


def test_workers_see_different_scenes(bank: SceneBank) -> None:
    parts = [SceneRegions(bank, batch_size=4, seed=0, rank=rank, world_size=2) for rank in (0, 1)]
    first, second = (part.captions(0) for part in parts)
    assert not {*first.captions_long} & {*second.captions_long}
    shared = first.caption_keys[:, None] == second.caption_keys[None]
    assert not shared.any()  # keys are of the whole bank, so they may be compared between workers


def test_things_without_boxes_are_refused(bank: SceneBank) -> None:
    bare = replace(bank, things=tuple((Told(noun="ball", colour="red"),) for _ in bank.things))
    with pytest.raises(TrainingError, match="its things have no boxes"):
        source(bare).regions(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hard_groups": -1}, r"program\.regions\.hard_groups is -1"),
        ({"noun_share": 1.5}, r"program\.regions\.noun_share is 1\.5; it must lie in \[0, 1\]"),
        ({"window_side": 0}, r"program\.regions\.window_side is 0; it must be 1 or more"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SceneRegionsConfig(**changes)


def test_batches_that_do_not_fit_together_are_refused(bank: SceneBank) -> None:
    whole: Mapping[str, Any] = vars(source(bank).regions(0))
    with pytest.raises(ShapeError, match="4 images, 3 short and 4 long captions"):
        CaptionBatch(
            **{name: whole[name] for name in ("images", "captions_long", "caption_keys")},
            captions_short=whole["captions_short"][:3],
        )
    for changes, message in (
        ({"phrases": whole["phrases"][1:]}, "a phrase and a key for each region"),
        (
            {"negatives": (whole["negatives"][0][:9], *whole["negatives"][1:])},
            r"phrases with \[9, 10\] negatives",
        ),
        ({"box_images": whole["box_images"] + 4}, "places in the batch of 4 are expected, rising"),
        ({"hard_regions": whole["hard_regions"] + 999}, "negatives for regions"),
    ):
        with pytest.raises(ShapeError, match=message):
            RegionBatch(**{**whole, **changes})
