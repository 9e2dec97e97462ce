import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ovsops.backbones.checkpoint import Checkpoint, ResolvedCheckpoint, resolve
from ovsops.backbones.florence2 import Florence2, Florence2Config, RegionText, location_bins
from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD
from ovsops.backbones.untrained_florence2 import TINY_FLORENCE2_SIDE, write_untrained_florence2
from ovsops.errors import CheckpointError, ConfigError, ShapeError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ResolvedCheckpoint:
    return resolve(Checkpoint(source=str(write_untrained_florence2(tmp_path_factory.mktemp("florence2")))))


def load(checkpoint: ResolvedCheckpoint, **fields) -> Florence2:
    config = Florence2Config(
        **{"image_side": TINY_FLORENCE2_SIDE, "max_new_tokens": 12, **fields},
    )
    return Florence2(checkpoint, config, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def florence2(checkpoint: ResolvedCheckpoint) -> Florence2:
    return load(checkpoint)


def image(seed: int = 0, height: int = 50, width: int = 80) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


BOXES = torch.tensor([[0, 0, 80, 50], [10, 5, 30, 40], [5, 5, 5, 9], [60, 20, 90, 70], [80, 0, 99, 9]])


def test_regions_get_texts_and_empty_ones_none(florence2: Florence2) -> None:
    found = florence2.describe(image(), BOXES)
    assert [text is None for text in found] == [False, False, True, False, True]
    assert all(isinstance(text, RegionText) and "<" not in text.text for text in found if text)
    assert len({text for text in found if text}) > 1  # the box matters
    assert florence2.describe(image(1), BOXES[:2]) != found[:2]  # so does the image
    assert florence2.describe(image(), torch.zeros(0, 4)) == []


def test_a_region_does_not_depend_on_its_batch(checkpoint: ResolvedCheckpoint, florence2: Florence2) -> None:
    together = florence2.describe(image(), BOXES)
    alone = [florence2.describe(image(), BOXES[i : i + 1])[0] for i in range(len(BOXES))]
    assert together == alone
    assert load(checkpoint, regions_per_batch=2).describe(image(), BOXES) == together


def test_the_image_goes_through_the_vision_tower_once(florence2: Florence2, monkeypatch) -> None:
    calls = []
    inner = florence2.model.get_image_features
    monkeypatch.setattr(
        florence2.model, "get_image_features", lambda *a, **k: calls.append(1) or inner(*a, **k)
    )
    florence2.describe(image(), BOXES.repeat(10, 1))
    assert len(calls) == 1
    florence2.describe(image(), BOXES[2:3])
    assert len(calls) == 1


@pytest.mark.parametrize("box", [0, 1, 3])
def test_it_is_what_the_models_own_forward_pass_says(checkpoint: ResolvedCheckpoint, box: int) -> None:
    """Greedy decoding step by step with the whole model, pixels and all, instead of our split of it."""
    own = load(checkpoint, no_repeat_ngram=0)
    boxes = BOXES[box : box + 1]
    places, _ = location_bins(boxes.double(), (50, 80))
    ids = own.prompt_ids(places)
    resized = Image.fromarray(image()).resize((64, 64), Image.Resampling.BICUBIC)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    pixels = ((torch.from_numpy(np.array(resized)).float() / 255 - mean) / std).permute(2, 0, 1)[None]
    said = [2, 0]  # the start, then the forced beginning
    with torch.inference_mode():
        while len(said) < 13 and said[-1] != 2:
            logits = own.model(
                input_ids=ids, pixel_values=pixels, decoder_input_ids=torch.tensor([said])
            ).logits
            said.append(int(logits[0, -1].argmax()))
    assert own.describe(image(), boxes) == [own._read(said[1:])]


def test_pixels_are_those_of_the_published_processor(florence2: Florence2, monkeypatch) -> None:
    seen = []
    inner = florence2.model.get_image_features
    monkeypatch.setattr(florence2.model, "get_image_features", lambda x: seen.append(x) or inner(x))
    florence2.image_tokens(image())
    processor = CLIPImageProcessorPil(
        size={"height": 64, "width": 64},
        do_center_crop=False,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
        resample=Image.Resampling.BICUBIC,
    )
    theirs = processor(image(), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(seen[0], theirs, atol=1e-5, rtol=0)


def test_prompts_hold_image_tokens_and_places(checkpoint: ResolvedCheckpoint, florence2: Florence2) -> None:
    (row,) = florence2.prompt_ids(torch.tensor([[0, 7, 999, 500]])).tolist()
    assert row[:5] == [florence2.tokenizer.token_to_id("<image>")] * 5
    assert (row[5], row[-1]) == (0, 2)
    text = florence2.tokenizer.decode(row[6:-1], skip_special_tokens=False)
    assert text == "What does the region <loc_0><loc_7><loc_999><loc_500> describe?"
    (other,) = load(checkpoint, task="category").prompt_ids(torch.tensor([[0, 7, 999, 500]])).tolist()
    assert "What is the region <loc_0>" in florence2.tokenizer.decode(other, skip_special_tokens=False)


def test_places_worked_out_by_hand() -> None:
    boxes = torch.tensor(
        [[0.0, 0.0, 80.0, 50.0], [8.0, 4.99, 40.0, 25.0], [-5.0, -5.0, 900.0, 900.0]]
    ).double()
    places, is_empty = location_bins(boxes, (50, 80))
    assert places.tolist() == [[0, 0, 999, 999], [100, 99, 500, 500], [0, 0, 999, 999]]
    assert is_empty.tolist() == [False, False, False]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-100, 200), min_size=4, max_size=4), st.integers(1, 90), st.integers(1, 90))
def test_places_are_always_tokens(box, height, width) -> None:
    places, is_empty = location_bins(torch.tensor([box], dtype=torch.float64), (height, width))
    assert 0 <= int(places.min()) <= int(places.max()) <= 999
    has_area = box[2] > max(box[0], 0) and box[3] > max(box[1], 0) and box[0] < width and box[1] < height
    assert bool(is_empty[0]) != has_area


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    def digests(name: str, seed: int) -> list[str]:
        folder = write_untrained_florence2(tmp_path / name, seed=seed)
        return [hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())]

    assert digests("a", 3) == digests("b", 3)
    assert digests("c", 4) != digests("a", 3)


def test_a_tokenizer_without_places_is_refused(tmp_path: Path) -> None:
    folder = write_untrained_florence2(tmp_path)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text("utf-8").replace("<loc_17>", "<lac_17>"), "utf-8")
    with pytest.raises(CheckpointError, match="no <loc_17>"):
        load(resolve(Checkpoint(source=str(folder))))


def test_bad_input(florence2: Florence2) -> None:
    with pytest.raises(ShapeError, match="not finite"):
        florence2.describe(image(), torch.tensor([[0.0, 0.0, float("nan"), 9.0]]))
    for fields in ({"image_side": 70}, {"max_new_tokens": 0}, {"regions_per_batch": 0}):
        with pytest.raises(ConfigError, match="florence2"):
            Florence2Config(**fields)
