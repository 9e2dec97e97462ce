"""SAM 3's text side, its licence, and the untrained checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import Sam3Model

from ovsops.backbones.checkpoint import Checkpoint, ResolvedCheckpoint, load_pretrained, resolve
from ovsops.backbones.sam3 import load_sam3
from ovsops.backbones.sam3_licence import OWN_WEIGHTS_KEY, check_sam_licence
from ovsops.backbones.sam3_text import Sam3Text
from ovsops.backbones.untrained_sam3 import write_untrained_sam3
from ovsops.errors import CheckpointError, ShapeError
from tests.tiny.sam3 import SMALLEST, random_pixels

PROMPTS = ("cat", "a red car", "狗")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_sam3(tmp_path_factory.mktemp("sam3"), **SMALLEST)


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> ResolvedCheckpoint:
    return resolve(Checkpoint(source=str(folder)))


@pytest.fixture(scope="module")
def text(checkpoint: ResolvedCheckpoint) -> Sam3Text:
    return Sam3Text(checkpoint, device="cpu", dtype=torch.float32)


def test_prompt_features_are_those_of_the_whole_model(text: Sam3Text, checkpoint: ResolvedCheckpoint) -> None:
    whole = load_pretrained(Sam3Model, checkpoint, device="cpu", dtype=torch.float32)
    found = text.encode(PROMPTS)
    for row, (prompt, ids) in enumerate(zip(PROMPTS, text.tokenizer(PROMPTS), strict=True)):
        padded = torch.tensor([ids + [0] * (32 - len(ids))])  # Meta's tokenizer pads with 0
        mask = torch.tensor([[1] * len(ids) + [0] * (32 - len(ids))])
        with torch.inference_mode():
            expected = whole.get_text_features(input_ids=padded, attention_mask=mask).pooler_output
        valid = found.attention_mask[row]
        assert valid.tolist() == mask[0].bool().tolist(), prompt
        torch.testing.assert_close(found.tokens[row, valid], expected[0, valid], rtol=0, atol=1e-5)


def test_batches_do_not_matter(text: Sam3Text) -> None:
    one_by_one, together = text.encode(PROMPTS, batch_size=1), text.encode(PROMPTS)
    torch.testing.assert_close(one_by_one.tokens, together.tokens, rtol=0, atol=1e-5)


def test_a_long_prompt_is_cut_with_its_end_kept(text: Sam3Text) -> None:
    found = text.encode(["cat", "x" * 100])
    assert found.attention_mask.sum(dim=1).tolist() == [5, 32]
    [row] = text.tokenizer(["x" * 100])
    assert len(row) == 32
    assert row[-1] == text.tokenizer.eos


def test_no_prompts_are_refused(text: Sam3Text) -> None:
    with pytest.raises(ShapeError, match="one or more noun phrases"):
        text.encode([])


def test_the_layout_of_the_published_file_loads(folder: Path, tmp_path: Path, text: Sam3Text) -> None:
    """facebook/sam3 holds the video model: the detector's config nested, its weights prefixed, a tracker beside."""
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"model_type": "sam3_video", "detector_config": config, "architectures": ["Sam3VideoModel"]}
        )
    )
    weights = {f"detector_model.{name}": t for name, t in load_file(folder / "model.safetensors").items()}
    save_file(weights | {"tracker_model.x": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    published = resolve(Checkpoint(source=str(tmp_path)))
    found = Sam3Text(published, device="cpu", dtype=torch.float32).encode(PROMPTS)
    expected = text.encode(PROMPTS)
    assert torch.equal(found.tokens, expected.tokens)
    pixels = random_pixels(1, side=112)
    levels = [
        load_sam3(place, device="cpu", dtype=torch.float32).encode_images(pixels).levels
        for place in (published, resolve(Checkpoint(source=str(folder))))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*levels, strict=True))


def test_the_image_side_has_no_text_tower(checkpoint: ResolvedCheckpoint) -> None:
    sam3 = load_sam3(checkpoint, device="cpu", dtype=torch.float32)
    assert not any(name.startswith("text_encoder") for name, _ in sam3.model.named_parameters())


def test_the_licence_must_be_accepted(folder: Path, tmp_path: Path) -> None:
    check_sam_licence(Checkpoint(source=str(folder)), accepted=False)  # our own weights
    hub = Checkpoint(source="facebook/sam3", revision="0" * 40)
    for gated in (hub, Checkpoint(source="sam3", revision="0" * 40)):
        with pytest.raises(
            CheckpointError, match=r"SAM licence, which is not accepted.*accept_sam_licence: true"
        ):
            check_sam_licence(gated, accepted=False)
        check_sam_licence(gated, accepted=True)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    assert config.pop(OWN_WEIGHTS_KEY) is True
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="SAM licence"):
        check_sam_licence(Checkpoint(source=str(tmp_path)), accepted=False)


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(9)
    again = write_untrained_sam3(tmp_path, **SMALLEST)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("phrase", ["a photo of a cat", "一只猫", "naïve café 🙂"])
def test_every_text_has_tokens_of_its_own(folder: Path, phrase: str) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    unknown = tokenizer.token_to_id("<|endoftext|>")
    ids = tokenizer.encode(phrase, add_special_tokens=False).ids
    assert unknown not in ids
    assert len(ids) == len(phrase.replace(" ", "").encode())
    assert tokenizer.encode(phrase.upper(), add_special_tokens=False).ids == ids
