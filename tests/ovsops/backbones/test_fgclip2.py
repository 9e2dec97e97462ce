"""FG-CLIP 2 from its files: lengths of text, batches of images, regions, and what is refused."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.fgclip2 import FgClip2
from ovsops.backbones.fgclip2_model import ADDED_PARAMETERS, FgClip2Config, fgclip2_config, save_fgclip2
from ovsops.backbones.fgclip2_pixels import BUDGETS, patch_budget
from ovsops.backbones.untrained import write_byte_tokenizer
from ovsops.backbones.untrained_fgclip2 import TINY_FGCLIP2_WIDTH, write_untrained_fgclip2
from ovsops.errors import CheckpointError, ShapeError
from tests.golden.checks_fgclip2 import check_model, model_of
from tests.golden.kinds import load_arrays

GOLDEN = Path(__file__).parents[2] / "golden" / "data" / "fgclip2_model_a.npz"
SIZES = [(70, 100), (300, 200), (40, 40), (300, 400), (420, 460), (640, 480), (32, 400), (1, 1)]
"""Of every bucket one, but for the last two."""


def load(folder: Path, dtype: torch.dtype = torch.float32) -> FgClip2:
    return FgClip2(resolve(Checkpoint(source=str(folder))), device="cpu", dtype=dtype)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_fgclip2(tmp_path_factory.mktemp("fgclip2"))


@pytest.fixture(scope="module")
def fgclip2(folder: Path) -> FgClip2:
    return load(folder)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def test_the_real_loader_gives_the_published_numbers(tmp_path: Path) -> None:
    arrays = load_arrays(GOLDEN)
    save_fgclip2(model_of(arrays), tmp_path)
    write_byte_tokenizer(tmp_path)
    loaded = load(tmp_path)
    state = {f"w.{name}": value.numpy() for name, value in loaded.model.state_dict().items()}
    assert state.keys() == {name for name in arrays if name.startswith("w.")}
    check_model({**arrays, **state}, tmp_path)
    ids = torch.from_numpy(arrays["input_ids_long"])
    found = loaded.model.embed_texts(ids, length="long")
    np.testing.assert_allclose(found.numpy(), arrays["text_long"], atol=5e-5, rtol=1e-4)
    assert loaded.logit_scale == pytest.approx(np.exp(1.5))
    assert loaded.logit_bias == -2.0


def test_a_checkpoint_of_the_published_form_loads(folder: Path, tmp_path: Path, fgclip2: FgClip2) -> None:
    """Remote-code entries, towers of other model types, the two scalars of the training."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "fgclip2"
    config["auto_map"] = {"AutoModel": "modeling_fgclip2.Fgclip2Model"}
    config["text_config"]["model_type"] = "fgclip2_text_model"
    config["vision_config"]["model_type"] = "fgclip2_vision_model"
    del config["text_config"]["keep_len"], config["text_config"]["longtext_len"]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    scalars = {f"logit_scale_{name}": torch.tensor(4.6) for name in ("finegraind", "hardneg")}
    save_file(load_file(folder / "model.safetensors") | scalars, tmp_path / "model.safetensors")
    for length in ("short", "box", "long"):
        ours, theirs = (f.encode_text(["a red cup"], length=length) for f in (fgclip2, load(tmp_path)))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_saved_checkpoint_has_the_added_tensors_and_is_written_the_same_twice(
    folder: Path, tmp_path: Path
) -> None:
    names = set(load_file(folder / "model.safetensors"))
    assert names >= ADDED_PARAMETERS
    assert len(ADDED_PARAMETERS) == 17
    assert len(names) == 16 * 4 + 24 + 17
    again = write_untrained_fgclip2(tmp_path)
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (again / file).read_bytes() == (folder / file).read_bytes(), file


@pytest.mark.parametrize("name", sorted(ADDED_PARAMETERS)[::4])
def test_a_missing_tensor_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    for file in ("config.json", "tokenizer.json"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    state = load_file(folder / "model.safetensors")
    del state[name]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"1 parameters missing .{name}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "siglip2"}, "model_type 'siglip2'; fgclip2 is expected"),
        ({"vision_config": None}, "no object vision_config"),
        ({"vision_config": {"hidden_size": 48}}, "vision of 48; FG-CLIP 2 has one width"),
        ({"text_config": {"hidden_size": 32, "keep_len": 300}}, "keep_len 300"),
        ({"text_config": {"hidden_size": "wide"}}, "config.json cannot be used"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    towers = {"text_config": {"hidden_size": 32}, "vision_config": {"hidden_size": 32}}
    with pytest.raises(CheckpointError, match=message):
        fgclip2_config({"model_type": "fgclip2"} | towers | change, place="there")


def test_long_text_has_defaults_and_the_config_keeps_them() -> None:
    towers = {"text_config": {"hidden_size": 32}, "vision_config": {"hidden_size": 32}}
    config = fgclip2_config({"model_type": "fgclip2"} | towers, place="there")
    assert isinstance(config, FgClip2Config)
    assert (config.text_config.keep_len, config.text_config.longtext_len) == (20, 196)


def test_texts_are_unit_lower_case_and_of_three_kinds(fgclip2: FgClip2) -> None:
    prompts = ["A Red Cup", "a red cup", "一只红色的杯子", ""]
    kinds = {length: fgclip2.encode_text(prompts, length=length) for length in ("short", "box", "long")}
    for texts in kinds.values():
        assert texts.shape == (4, TINY_FGCLIP2_WIDTH)
        torch.testing.assert_close(texts.norm(dim=-1), torch.ones(4))
        torch.testing.assert_close(texts[0], texts[1], rtol=0, atol=1e-6)
        assert float(texts[0] @ texts[2]) < 0.999
    assert float((kinds["short"] * kinds["box"]).sum(dim=1).max()) < 0.9
    assert float((kinds["short"] * kinds["long"]).sum(dim=1).max()) < 0.9


def test_a_text_does_not_depend_on_the_others(fgclip2: FgClip2) -> None:
    prompts = [f"a cup number {n}" for n in range(5)]
    for length in ("short", "box", "long"):
        alone = torch.cat([fgclip2.encode_text([p], length=length) for p in prompts])
        together = fgclip2.encode_text(prompts, length=length, batch_size=3)
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_a_prompt_that_is_too_long_is_cut_and_counted(
    fgclip2: FgClip2, caplog: pytest.LogCaptureFixture
) -> None:
    long = "word " * 60  # 300 tokens of single characters
    assert fgclip2.num_tokens([long, "cup", ""]).tolist() == [301, 4, 1]
    with caplog.at_level(logging.WARNING):
        texts = fgclip2.encode_text([long, long[:200], "cup"], length="short")
    assert "2 of 3 short prompts have more than 64 tokens and are cut" in caplog.text
    torch.testing.assert_close(texts[0], texts[1])
    caplog.clear()
    longer = fgclip2.encode_text([long[:190], long[:100]], length="long")
    assert not caplog.text
    assert float(longer[0] @ longer[1]) < 0.9999


def test_no_prompts_are_an_error(fgclip2: FgClip2) -> None:
    with pytest.raises(ShapeError, match="no prompts to embed"):
        fgclip2.encode_text([], length="box")


def test_ids_of_another_length_are_refused(fgclip2: FgClip2) -> None:
    with pytest.raises(ShapeError, match="long text of 64 tokens: exactly 196"):
        fgclip2.model.embed_texts(torch.zeros(1, 64, dtype=torch.int64), length="long")
    with pytest.raises(ShapeError, match="box text of 10 tokens: exactly 64"):
        fgclip2.model.embed_texts(torch.zeros(1, 10, dtype=torch.int64), length="box")


def test_an_image_does_not_depend_on_its_neighbours_or_their_order(
    fgclip2: FgClip2, images: list[np.ndarray]
) -> None:
    assert {patch_budget(image.shape[:2]) for image in images} == set(BUDGETS)
    alone = [fgclip2.encode_images([image])[0] for image in images]
    order = np.random.default_rng(1).permutation(len(images) * 2) % len(images)
    for patches_at_once in (1, 4096):
        together = fgclip2.encode_images([images[i] for i in order], patches_at_once=patches_at_once)
        for place, found in zip(order, together, strict=True):
            expected = alone[place]
            assert found.image_hw == images[place].shape[:2]
            assert found.grid == expected.grid
            assert found.grid[0] * found.grid[1] <= patch_budget(found.image_hw)
            torch.testing.assert_close(found.pooled, expected.pooled, rtol=0, atol=1e-5)
            torch.testing.assert_close(found.dense_map, expected.dense_map, rtol=0, atol=1e-5)


def test_images_are_told_apart_and_pooled_to_unit_length(fgclip2: FgClip2, images: list[np.ndarray]) -> None:
    pooled = torch.stack([found.pooled for found in fgclip2.encode_images(images[:3])])
    torch.testing.assert_close(pooled.norm(dim=-1), torch.ones(3))
    assert float((pooled @ pooled.T - torch.eye(3)).max()) < 0.9999
    assert fgclip2.encode_images([]) == []


def test_a_budget_may_be_asked_for(fgclip2: FgClip2, images: list[np.ndarray]) -> None:
    (found,) = fgclip2.encode_images(images[:1], budget=2048)
    assert 1900 < found.grid[0] * found.grid[1] <= 2048


def test_regions_are_unit_and_empty_ones_are_told(fgclip2: FgClip2, images: list[np.ndarray]) -> None:
    (image,) = fgclip2.encode_images(images[:1])  # 100 px wide, 70 high
    boxes = torch.tensor(
        [
            [10.0, 10, 60, 50],
            [0, 0, 100, 70],
            [20, 20, 20, 20],  # no area
            [20, 20, 20, 60],  # no width
            [60, 50, 10, 10],  # turned round
            [200, 200, 300, 300],  # beside the image
            [100, 0, 103, 70],  # just beside it
            [-50, -50, 1000, 1000],  # around it
            [90, 60, 1e6, 1e6],  # its corner and a lot of nothing
            [30.2, 30.2, 30.4, 30.4],  # much less than a cell
        ]
    )
    features, is_empty = fgclip2.region_features(image, boxes)
    assert is_empty.tolist() == [False, False, True, True, True, True, True, False, False, False]
    torch.testing.assert_close(features.norm(dim=-1), (~is_empty).float())
    torch.testing.assert_close(features[7], features[1])
    corner, _ = fgclip2.region_features(image, torch.tensor([[90, 60, 100, 70]]))
    torch.testing.assert_close(features[8], corner[0])
    from_numpy, _ = fgclip2.region_features(image, boxes.numpy())
    torch.testing.assert_close(from_numpy, features)


def test_upstream_regions_differ_only_where_a_box_leaves_the_image(
    fgclip2: FgClip2, images: list[np.ndarray]
) -> None:
    (image,) = fgclip2.encode_images(images[:1])
    boxes = torch.tensor([[10.0, 10, 60, 50], [100, 0, 103, 70]])
    ours, ours_empty = fgclip2.region_features(image, boxes)
    theirs, theirs_empty = fgclip2.region_features(image, boxes, mode="upstream")
    torch.testing.assert_close(ours[0], theirs[0])
    assert ours_empty.tolist() == [False, True]
    assert theirs_empty.tolist() == [False, False]


def test_a_box_of_one_cell_is_that_cell(fgclip2: FgClip2, images: list[np.ndarray]) -> None:
    (image,) = fgclip2.encode_images(images[:1])
    height, width = 70 / image.grid[0], 100 / image.grid[1]
    box = torch.tensor([[3 * width, 2 * height, 4 * width, 3 * height]])
    features, _ = fgclip2.region_features(image, box)
    torch.testing.assert_close(
        features[0], torch.nn.functional.normalize(image.dense_map[2, 3], dim=0), atol=1e-4, rtol=0
    )


def test_no_boxes_and_boxes_that_are_not_finite(fgclip2: FgClip2, images: list[np.ndarray]) -> None:
    (image,) = fgclip2.encode_images(images[:1])
    features, is_empty = fgclip2.region_features(image, torch.zeros(0, 4))
    assert features.shape == (0, TINY_FGCLIP2_WIDTH)
    assert is_empty.shape == (0,)
    with pytest.raises(ShapeError, match=r"boxes \[1\] of 2: a coordinate is not finite"):
        fgclip2.region_features(image, torch.tensor([[0.0, 0, 1, 1], [0, 0, torch.inf, 1]]))


def test_half_precision_stays_near(folder: Path, fgclip2: FgClip2, images: list[np.ndarray]) -> None:
    half = load(folder, torch.bfloat16)
    ours, theirs = (f.encode_images(images[:1])[0] for f in (fgclip2, half))
    assert theirs.pooled.dtype == theirs.dense_map.dtype == torch.float32
    assert float(ours.pooled @ theirs.pooled) > 0.99
    text = [f.encode_text(["a cup"], length="long")[0] for f in (fgclip2, half)]
    assert float(text[0] @ text[1]) > 0.99
