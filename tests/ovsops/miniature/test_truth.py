import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovsops.errors import RowError
from ovsops.miniature.captions import region_phrase
from ovsops.miniature.samples import scene_sample, scene_truth
from ovsops.miniature.scene import SceneConfig, draw_scene
from ovsops.miniature.truth import MAX_BYTES, read_truth


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(64, 64), (128, 128), (70, 111)]), st.integers(1, 12))
def test_reads_back_what_was_drawn(seed: int, size_hw: tuple[int, int], max_things: int) -> None:
    scene = draw_scene(seed, SceneConfig(size_hw=size_hw, max_things=max_things))
    truth = read_truth(scene_sample(scene)["json"])
    assert (truth.instances == scene.instances).all()
    assert (truth.semantic == scene.semantic).all()
    assert truth.instances.dtype == truth.semantic.dtype == np.uint8
    assert (truth.seed, truth.size_hw, truth.stuffs) == (seed, size_hw, scene.stuffs)
    assert truth.relations == scene.relations
    for read, drawn in zip(truth.things, scene.things, strict=True):
        for field in ("noun", "colour", "pattern", "material", "size", "box_xywh", "area", "hidden_share"):
            assert getattr(read, field) == getattr(drawn, field)
        assert read.phrases["zh"]["short"] == region_phrase(drawn, "zh")


def test_sample() -> None:
    sample = scene_sample(draw_scene(900_002))
    assert sample["__key__"] == "00900002"
    assert sample == scene_sample(draw_scene(900_002))
    plain = json.loads(sample["json"])
    assert plain["caption_short"] == plain["captions"]["en"]["short"]
    assert plain["things"][0]["phrases"]["en"]["short"] == "big red striped cross"


def changed(path: list[str | int], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(truth: dict[str, Any]) -> None:
        place: Any = truth
        for step in path[:-1]:
            place = place[step]
        if value is KeyError:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return change


def move_pixels(truth: dict[str, Any]) -> None:
    truth["stuffs"][0]["segmentation"] = truth["things"][0]["segmentation"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(["format"], "ovsops-world-0"), "truth.format is 'ovsops-world-0'"),
        (changed(["format"], KeyError), "truth has no field 'format'"),
        (changed(["seed"], -1), "truth.seed is -1"),
        (changed(["seed"], True), "truth.seed is True"),
        (changed(["seed"], 2**70), "truth.seed"),
        (changed(["size_hw"], [128, 128, 3]), "truth.size_hw is a list, expected a list of at most 2"),
        (changed(["size_hw"], [128]), "has 1 numbers"),
        (changed(["size_hw"], [0, 128]), "0x128"),
        (changed(["size_hw"], [128, 10**9]), "expected a whole number from 0 to 4096"),
        (changed(["size_hw"], [64, 128]), "segmentation.size is"),
        (changed(["things"], {}), "truth.things is a dict"),
        (changed(["things"], [7]), r"truth.things\[0\] is 7, expected an object"),
        (changed(["things"], [None] * 300), "at most 200"),
        (changed(["things", 0, "noun"], "dog"), r"truth.things\[0\].noun is 'dog', expected one of ball"),
        (changed(["things", 0, "noun"], []), "noun is a list"),
        (changed(["things", 1, "colour"], "x" * 999), r"truth.things\[1\].colour"),
        (changed(["things", 0, "hidden_share"], 1.5), "hidden_share is 1.5"),
        (changed(["things", 0, "hidden_share"], "0"), "hidden_share is '0'"),
        (changed(["things", 0, "area"], 5), "the mask has"),
        (changed(["things", 0, "box_xywh"], [0, 0, 5, 5]), "the mask's box is"),
        (changed(["things", 0, "box_xywh"], [0, 0, 5.0, 5]), r"box_xywh.2 is 5.0"),
        (changed(["things", 0, "segmentation", "counts"], "\x00"), "is invalid"),
        (changed(["things", 0, "segmentation", "counts"], ""), "it is empty"),
        (changed(["things", 0, "segmentation", "counts"], [1, 2]), "expected compressed COCO RLE"),
        (changed(["things", 0, "phrases"], []), "phrases is a list"),
        (changed(["things", 0, "phrases", "zh"], KeyError), "has no field 'zh'"),
        (changed(["captions", "en", "long"], " "), "expected a text"),
        (changed(["captions", "en", "long"], "a" * 3000), "expected a text of 1 to 2000"),
        (changed(["stuffs"], []), "overlap or leave a gap"),
        (changed(["stuffs", 0, "name"], "lava"), "expected one of grass"),
        (move_pixels, "overlap or leave a gap"),
        (changed(["relations", 0, "subject"], 9), "relations.0..subject is 9"),
        (changed(["relations", 0, "object"], 0), "to itself"),
        (changed(["relations", 0, "name"], "near"), "expected one of left of"),
    ],
)
def test_damage_is_named(change: Callable[[dict[str, Any]], None], message: str) -> None:
    truth = copy.deepcopy(scene_truth(draw_scene(900_002)))
    change(truth)
    with pytest.raises(RowError, match=message) as caught:
        read_truth(json.dumps(truth))
    assert caught.value.code == "E_TRUTH"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[]", "truth is a list"),
        (b'{"seed": NaN}', "NaN is no JSON number"),
        (b'{"seed": 1, "seed": 2}', "a key comes twice"),
        (b"[" * 200_000, "no JSON"),
        (b"1" * 10_000, "no JSON"),
        (b" " * (MAX_BYTES + 1), "bytes, at most"),
    ],
)
def test_not_a_truth(data: bytes, message: str) -> None:
    with pytest.raises(RowError, match=message):
        read_truth(data)


def test_a_stuff_twice() -> None:
    truth = scene_truth(draw_scene(900_002))
    truth["stuffs"] = truth["stuffs"] * 2
    with pytest.raises(RowError, match="name one twice"):
        read_truth(json.dumps(truth))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_flipped_byte_reads_or_fails_cleanly(data: st.DataObject) -> None:
    raw = bytearray(scene_sample(draw_scene(900_002, SceneConfig(size=64)))["json"])
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        truth = read_truth(bytes(raw))
    except RowError as error:
        assert error.code == "E_TRUTH"  # noqa: PT017  most bytes still read
    else:
        assert truth.semantic.min() >= 1
