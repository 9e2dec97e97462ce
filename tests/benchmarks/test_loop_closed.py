"""The loop closed: arms differ in how negatives are drawn alone, and nothing that is told false is true."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks import loop_closed, loop_closed_sets
from benchmarks.loop_closed import BARS, missed, wrong_phrases
from benchmarks.loop_closed_sets import ARMS, Arm, Labelled, arm_negatives, covered, label_rows
from benchmarks.loop_closed_start import joined_checkpoint
from benchmarks.world_negatives import true_phrases
from ovsops.backbones.shipped import miniature_checkpoint
from ovsops.errors import ConfigError
from ovsops.images.decode import DecodeConfig
from ovsops.miniature.captions import region_phrase
from ovsops.negatives.sampler import NegativeSampler
from pipelines.storage import StorageOptions
from pipelines.training.set_files import SetInput, find_set
from pipelines.training.sets import read_set
from pipelines.training_sets.contract import negatives_faults


@pytest.fixture(scope="module")
def corpus() -> list[Labelled]:
    return list(loop_closed_sets.labelled_scenes(12))


@pytest.fixture(scope="module")
def sampler(corpus: list[Labelled]) -> NegativeSampler:
    return loop_closed_sets.fitted(corpus)


def test_the_corpus_is_skewed_and_the_same_every_time(corpus: list[Labelled]) -> None:
    things = [labelled.scene.things[place] for labelled in corpus for place in labelled.kept]
    colours = [thing.colour for thing in things]
    assert colours.count("black") + colours.count("white") > colours.count("purple") + colours.count("pink")
    assert all(len(labelled.kept) >= 2 for labelled in corpus)
    again = next(iter(loop_closed_sets.labelled_scenes(1)))
    assert (again.scene.seed, again.kept) == (corpus[0].scene.seed, corpus[0].kept)


@pytest.mark.parametrize("arm", ["random", "frequency", "ours"])
def test_negatives_of_every_arm_are_ten_and_false(
    arm: Arm, corpus: list[Labelled], sampler: NegativeSampler
) -> None:
    for labelled in corpus[:6]:
        for place in labelled.kept:
            found = arm_negatives(arm, sampler, labelled, place)
            assert found is not None
            assert not list(negatives_faults(labelled.phrase(place), found.texts, "negatives"))
            assert not true_phrases(labelled.scene.things[place], "en").intersection(found.texts)
            assert found == arm_negatives(arm, sampler, labelled, place)


def test_frequent_values_come_more_often_where_they_are_drawn_so(
    corpus: list[Labelled], sampler: NegativeSampler
) -> None:
    said = {}
    for arm in ("random", "frequency"):
        texts = [
            text
            for labelled in corpus
            for place in labelled.kept
            for text in arm_negatives(arm, sampler, labelled, place).texts  # type: ignore[union-attr]
            if labelled.scene.things[place].colour not in ("black", "pink")
        ]
        said[arm] = sum("black" in text for text in texts) - sum("pink" in text for text in texts)
    assert said["frequency"] > said["random"]


def test_a_set_is_what_the_train_job_reads(
    tmp_path: Path, corpus: list[Labelled], sampler: NegativeSampler
) -> None:
    told = {arm: loop_closed_sets.write_set(tmp_path / arm, arm, corpus, sampler) for arm in ("none", "ours")}
    assert told["ours"]["true"] == 0
    assert told["ours"]["negatives"] == 10 * told["ours"]["with negatives"]
    for arm, with_negatives in (("none", 0), ("ours", told["ours"]["with negatives"])):
        given, options = SetInput(url=str(tmp_path / arm)), StorageOptions()
        rows = read_set(find_set(given, options), given, options, DecodeConfig())
        assert rows.totals() == {"read": 12, "used": 12, "failed": 0}
        assert rows.regions["with_negatives"] == with_negatives


def test_a_label_row_holds_what_is_kept(corpus: list[Labelled]) -> None:
    image, instances, data = label_rows(corpus[0])
    assert image["status"] == "labelled"
    assert [row["caption_short"] for row in instances] == [
        corpus[0].phrase(place) for place in corpus[0].kept
    ]
    assert data.startswith(b"\x89PNG")


def test_negatives_of_the_test_are_false_and_differ_in_what_is_said(corpus: list[Labelled]) -> None:
    for labelled in corpus:
        for place, thing in enumerate(labelled.scene.things):
            found = wrong_phrases(thing, np.random.default_rng(place))
            texts = [text for _, text in found]
            assert len(set(texts)) == 10
            assert not true_phrases(thing, "en").intersection(texts)
            own = region_phrase(thing, "en").split()
            assert all(len(text.split()) == len(own) for text in texts)
            assert all(sum(a != b for a, b in zip(text.split(), own, strict=True)) == 1 for text in texts)


def gain(arm: str, value: float) -> dict[str, object]:
    return {"ours over": arm, "11-way": {"value": value}, "bar": BARS[arm], "reached": value >= BARS[arm]}


def test_every_bar_that_is_missed_is_said() -> None:
    sets = {"ours": {"true": 1, "negatives": 1000}}
    fine = [{"checkpoint": "ours", "mean change": -0.01}, {"checkpoint": "none", "mean change": -0.5}]
    assert missed(sets, [gain("none", 0.31), gain("random", 0.03)], fine) == []
    told = missed(
        {"ours": {"true": 6, "negatives": 1000}},
        [gain("none", 0.29), gain("random", 0.02)],
        [{"checkpoint": "ours", "mean change": -0.03}],
    )
    assert len(told) == 4
    assert "0.290 over none" in told[0]


def test_intervals_count_regions_by_scene() -> None:
    rows = loop_closed.HeldOut(boxes=[], texts=[], kinds=[], scenes=np.array([0, 0, 2]))
    counts = loop_closed.by_scene(rows, torch.tensor([True, False, True]))
    assert counts.tolist() == [[1, 2], [0, 0], [1, 1]]


def test_arms_are_those_of_the_bars() -> None:
    assert set(BARS) == set(ARMS) - {"ours"}


def test_a_box_is_of_the_thing_that_it_covers_best(corpus: list[Labelled]) -> None:
    scene = corpus[0].scene
    for thing in scene.things:
        assert covered(scene, thing.box_xywh) is thing
    assert covered(scene, (0.0, 0.0, 1.0, 1.0)) is None


def test_a_start_takes_its_sight_from_one_checkpoint_and_its_words_from_the_other(tmp_path: Path) -> None:
    shipped = miniature_checkpoint("fgclip2")
    other = tmp_path / "other"
    shutil.copytree(shipped, other)
    weights = load_file(str(other / "model.safetensors"))
    save_file({name: value + 1 for name, value in weights.items()}, str(other / "model.safetensors"))
    joined = load_file(
        str(joined_checkpoint(str(shipped), str(other), tmp_path / "joined") / "model.safetensors")
    )
    assert joined.keys() == weights.keys()
    for name, value in joined.items():
        sees = name.startswith(("vision_model.", "dense_feature_head."))
        assert torch.equal(value, weights[name] if sees else weights[name] + 1), name
    weights["text_model.final_layer_norm.weight"] = torch.zeros(3)
    save_file(weights, str(other / "model.safetensors"))
    with pytest.raises(ConfigError, match=r"differ in 1 tensors .* text_model.final_layer_norm.weight"):
        joined_checkpoint(str(shipped), str(other), tmp_path / "joined")
