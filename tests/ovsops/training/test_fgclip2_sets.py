"""Batches of a training set: functions of the step, of one language and bucket, with nothing lost or doubled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovsops.backbones.miniature import write_word_tokenizer
from ovsops.errors import ConfigError, TrainingError
from ovsops.training.fgclip2_batch import CaptionSource, RegionSource
from ovsops.training.fgclip2_sets import SetBank, SetImage, SetRegion, SetRegions, SetRegionsConfig, same_text
from ovsops.training.fgclip2_sets_order import SetOrder
from ovsops.training.fgclip2_stage1 import FGCLIP2_WORDS
from ovsops.training.fgclip2_stage2 import FgClip2Stage2Config, FgClip2Stage2Program
from tests.ovsops.training.fgclip2_world import tiny_model

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
NEGATIVES = (*(f"{colour} fish" for colour in COLOURS[1:]), "red tree", "red key")
SIZES = ((64, 64), (48, 96), (160, 160), (64, 64))


def region(phrase: str = "red fish", *, negatives: tuple[str, ...] = (), label: str = "") -> SetRegion:
    return SetRegion(
        box=(0.25, 0.0, 0.5, 1.0),
        short_expr=phrase,
        long_expr=f"a {phrase} on grass",
        negatives=negatives,
        label=label,
    )


class MadeBank:
    """Images whose first pixel holds their place."""

    def __init__(
        self, images: list[SetImage], *, languages: tuple[str, ...] = (), sizes: Any = SIZES
    ) -> None:
        self.images = images
        self.languages = languages or ("en",) * len(images)
        self.sizes_hw = np.array([sizes[place % len(sizes)] for place in range(len(images))], np.int64)
        self.drawn_hw = self.sizes_hw

    @property
    def is_labelled(self) -> bool:
        return all(region.label for image in self.images for region in image.regions)

    def image(self, place: int) -> SetImage:
        return self.images[place]

    def pixels(self, place: int) -> np.ndarray:
        height, width = self.drawn_hw[place].tolist()
        picture = np.random.default_rng(place).integers(0, 255, (height, width, 3), np.uint8)
        picture[0, 0] = place
        return picture


def made_image(place: int, *regions: SetRegion) -> SetImage:
    return SetImage(caption_short=f"short {place}", caption_long=f"long {place}", regions=regions)


def made_bank(count: int = 12, **changes: Any) -> MadeBank:
    images = [
        made_image(place, region(negatives=NEGATIVES), region(f"{COLOURS[place % 9]} key"))
        for place in range(count)
    ]
    return MadeBank(images, **changes)


def source(bank: SetBank, config: SetRegionsConfig | None = None, **changes: Any) -> SetRegions:
    return SetRegions(bank, **({"batch_size": 4, "seed": 0, "patch_size": 16, "config": config} | changes))


def places(batch: Any) -> list[int]:
    return [int(image[0, 0, 0]) for image in batch.images]


def test_it_is_a_source_for_both_stages() -> None:
    assert isinstance(made_bank(), SetBank)
    assert isinstance(source(made_bank()), CaptionSource)
    assert isinstance(source(made_bank()), RegionSource)


def test_a_batch_depends_on_the_step_alone() -> None:
    one, other = source(made_bank()), source(made_bank())
    other.regions(9)
    torch.manual_seed(5)
    for step in (0, 4, 3):
        first, again = one.regions(step), other.regions(step)
        assert (places(first), first.phrases, first.negatives) == (
            places(again),
            again.phrases,
            again.negatives,
        )
        assert torch.equal(first.boxes_xyxy, again.boxes_xyxy)
    assert places(one.captions(3)) == places(one.regions(3))


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order() -> None:
    drawn = source(made_bank())
    epochs = [
        [place for step in range(start, start + 3) for place in places(drawn.captions(step))]
        for start in (0, 3)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 2
    assert epochs[0] != epochs[1]


def test_workers_share_the_batch_of_one_worker() -> None:
    whole = source(made_bank())
    halves = [source(made_bank(), batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    for step in range(5):
        assert places(whole.captions(step)) == [
            place for half in halves for place in places(half.captions(step))
        ]
    keys = [half.captions(0).caption_keys for half in halves]
    assert torch.equal(torch.cat(keys), whole.captions(0).caption_keys)


def test_a_batch_is_of_one_language() -> None:
    bank = made_bank(20, languages=("en", "zh") * 10)
    for step in range(10):
        assert len({bank.languages[place] for place in places(source(bank).captions(step))}) == 1
    mixed = source(bank, SetRegionsConfig(mix_languages=True))
    assert any(
        len({bank.languages[place] for place in places(mixed.captions(step))}) == 2 for step in range(10)
    )


def test_batches_are_of_one_bucket_where_they_can_be() -> None:
    sizes = ((64, 64),) * 4 + ((160, 400),) * 4 + ((64, 64), (160, 400)) * 2
    bank = made_bank(12, sizes=sizes)
    of_step = [
        {bool(bank.sizes_hw[place][1] > 64) for place in places(source(bank).captions(s))} for s in range(3)
    ]
    assert sorted(map(len, of_step)) == [
        1,
        1,
        2,
    ]  # six of each in batches of four: what is left goes together


def test_what_is_left_of_a_language_is_another_in_each_epoch() -> None:
    order = SetOrder(languages=["en"] * 5, buckets=np.zeros(5, np.int64), whole=4, seed=0)
    left = [set(range(5)) - set(order.batch(step).tolist()) for step in range(12)]
    assert order.per_epoch == 1
    assert len({place for of_epoch in left for place in of_epoch}) > 2


def test_a_language_that_fills_no_batch_is_an_error_and_not_left_out() -> None:
    with pytest.raises(TrainingError, match=r"3 images of language zh .* does not fill one batch of 4"):
        source(made_bank(11, languages=("en",) * 8 + ("zh",) * 3))
    with pytest.raises(TrainingError, match="no image in the set"):
        source(made_bank(0))


def test_regions_become_pixels_phrases_and_groups() -> None:
    batch = source(made_bank(), SetRegionsConfig(long_share=0.0)).regions(0)
    assert batch.box_images.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for image, box in zip(batch.box_images.tolist(), batch.boxes_xyxy.tolist(), strict=True):
        height, width, _ = batch.images[image].shape
        assert box == [0.25 * width, 0.0, 0.5 * width, height]
    assert batch.hard_regions.tolist() == [0, 2, 4, 6]
    assert set(batch.hard_phrases) == {"red fish"}
    assert batch.negatives == (NEGATIVES,) * 4
    assert batch.things is None


def test_equal_phrases_are_positives_of_each_other() -> None:
    bank = MadeBank(
        [
            made_image(place, region(("red fish", "Red  fish.", "blue fish", "red fishes")[place]))
            for place in range(4)
        ]
    )
    batch = source(bank, SetRegionsConfig(long_share=0.0)).regions(0)
    same = batch.phrase_keys[:, None] == batch.phrase_keys[None]
    expected = [[same_text(a) == same_text(b) for b in batch.phrases] for a in batch.phrases]
    assert same.tolist() == expected
    assert int(same.sum()) == 6


def test_a_step_says_short_or_long_expressions_and_negatives_stay_with_the_short_one() -> None:
    drawn = source(made_bank(), SetRegionsConfig(long_share=0.5))
    told = {
        step: {phrase.endswith("on grass") for phrase in drawn.regions(step).phrases} for step in range(16)
    }
    assert {len(kinds) for kinds in told.values()} == {1}
    assert {True, False} == {kind for kinds in told.values() for kind in kinds}
    long = source(made_bank(), SetRegionsConfig(long_share=1.0)).regions(0)
    assert set(long.hard_phrases) == {"red fish"}


def test_only_the_first_regions_and_so_many_groups_are_taken() -> None:
    bank = MadeBank([made_image(place, *[region(negatives=NEGATIVES)] * 6) for place in range(4)])
    batch = source(bank, SetRegionsConfig(regions_per_image=5, hard_groups=7)).regions(0)
    assert len(batch.phrases) == 20
    assert len(batch.negatives) == len(set(batch.hard_regions.tolist())) == 7
    assert batch.hard_regions.tolist() == sorted(batch.hard_regions.tolist())


def test_a_picture_of_another_size_than_before_is_an_error() -> None:
    bank = made_bank()
    drawn = source(bank)
    bank.drawn_hw = bank.sizes_hw + 1
    with pytest.raises(TrainingError, match="the set changed while it was learned from"):
        drawn.captions(0)


@pytest.mark.parametrize(
    ("field", "value"), [("regions_per_image", 0), ("hard_groups", -1), ("long_share", 1.5)]
)
def test_settings_that_mean_nothing_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"program.set_regions.{field}"):
        SetRegionsConfig(**{field: value})


def program(bank: SetBank, folder: Path, **changes: Any) -> FgClip2Stage2Program:
    write_word_tokenizer(folder, FGCLIP2_WORDS)
    config = FgClip2Stage2Config(batch_size=4, **changes)
    return FgClip2Stage2Program(source(bank), config, tiny_model(), folder)


def test_images_of_several_sizes_take_a_step(tmp_path: Path) -> None:
    losses = program(made_bank(), tmp_path).losses(0)
    losses["total"].backward()
    assert float(losses["fgt"].detach()) > 0
    assert float(losses["fgv"].detach()) > 0
    assert not any(float(value) for name, value in losses.items() if name.endswith("_skipped"))


def test_a_set_without_regions_counts_what_it_skips_or_stops(tmp_path: Path) -> None:
    bank = MadeBank([made_image(place) for place in range(8)])
    losses = program(bank, tmp_path, too_few="skip").losses(0)
    losses["total"].backward()
    assert {name for name, value in losses.items() if name.endswith("_skipped") and float(value)} == {
        "fgv_skipped",
        "tic_skipped",
        "fgt_skipped",
        "cmr_skipped",
    }
    with pytest.raises(TrainingError, match="rank 0 has 0 regions and 0 with negatives"):
        program(bank, tmp_path).losses(0)


def test_phrases_without_negatives_are_phrases_only(tmp_path: Path) -> None:
    bank = MadeBank([made_image(place, region(f"{COLOURS[place]} fish")) for place in range(8)])
    losses = program(bank, tmp_path, too_few="skip").losses(0)
    assert float(losses["fgv"].detach()) > 0
    assert float(losses["fgt_skipped"]) == 1
    assert float(losses["fgv_skipped"]) == 0


def test_regions_of_one_label_are_no_rivals_where_that_is_asked_for() -> None:
    fish = [
        made_image(place, region("red fish", label="fish"), region("key", label="key")) for place in range(4)
    ]
    by_label = SetRegionsConfig(rivals="other_labels")
    keys = source(MadeBank(fish), by_label).regions(0).label_keys
    assert keys is not None
    assert keys.tolist() == [0, 1] * 4
    assert source(MadeBank(fish)).regions(0).label_keys is None


def test_rivals_by_label_need_labels() -> None:
    with pytest.raises(TrainingError, match="has no `category`"):
        source(made_bank(), SetRegionsConfig(rivals="other_labels"))
