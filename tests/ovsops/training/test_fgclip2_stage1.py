"""FG-CLIP 2's stage 1: captions of both lengths, no region; where it starts from; killed and gone on with."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.fgclip2 import FgClip2
from ovsops.backbones.miniature import miniature_siglip, save_half, write_word_tokenizer
from ovsops.backbones.siglip2 import SiglipText, SiglipVision
from ovsops.errors import CheckpointError, ConfigError
from ovsops.training.fgclip2_stage1 import FgClip2Stage1Config, stage1_start
from ovsops.training.loop import LoopConfig, train
from ovsops.training.scenes import SceneBank
from tests.ovsops.training.fgclip2_world import stage1
from tests.ovsops.training.programs import (
    losses_whatever_was_drawn_before,
    rows_on_one_batch,
    values,
    without_gradient,
)

CONFIG = FgClip2Stage1Config(batch_size=4)
LOOP = LoopConfig(num_steps=4, warmup_steps=1, log_every=2, save_every=2)


def test_the_loss_falls_on_one_batch(bank: SceneBank, tmp_path: Path) -> None:
    rows = rows_on_one_batch(stage1(bank, tmp_path / "work", CONFIG), tmp_path)
    assert rows[0].losses.keys() == {"global_short", "global_long", "total"}
    assert all(math.isfinite(value) for row in rows for value in row.losses.values())
    for name in rows[0].losses:
        assert rows[-1].losses[name] < rows[0].losses[name], name


def test_a_step_is_the_same_whatever_was_drawn_before(bank: SceneBank, tmp_path: Path) -> None:
    first, again = losses_whatever_was_drawn_before(stage1(bank, tmp_path, CONFIG), 1)
    assert first == again


def test_terms_are_weighted(bank: SceneBank, tmp_path: Path) -> None:
    program = stage1(bank, tmp_path, replace(CONFIG, short_weight=3.0, long_weight=5.0))
    with torch.no_grad():
        losses = values(program.losses(0))
    expected = 3 * losses["global_short"] + 5 * losses["global_long"]
    assert losses["total"] == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_all_but_what_regions_use(bank: SceneBank, tmp_path: Path) -> None:
    program = stage1(bank, tmp_path, CONFIG)
    assert without_gradient(program) == set()
    frozen = {
        name.split(".")[1]
        for name, p in program.module.named_parameters()
        if not p.requires_grad and "." in name
    }
    assert frozen == {"boxtext_head", "dense_feature_head"}


def test_a_training_in_two_parts_leaves_the_same_bytes(bank: SceneBank, tmp_path: Path) -> None:
    left = []
    for name in ("whole", "parts"):
        folder = tmp_path / name
        if name == "parts":
            steps: list[int] = []
            train(
                stage1(bank, folder / "work", CONFIG),
                LOOP,
                folder,
                should_stop=lambda steps=steps: len(steps.append(1) or steps) >= 2,  # type: ignore[misc]
            )
            assert len(steps) == 2
        program = stage1(bank, folder / "work", CONFIG)
        train(program, LOOP, folder)
        program.export(folder / "checkpoint")
        files = ("curve.csv", "checkpoint/model.safetensors")
        left.append([(folder / file).read_bytes() for file in files])
    assert left[0] == left[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, r"program\.batch_size is 0"),
        ({"long_weight": -1.0}, r"program\.long_weight is -1\.0"),
        ({"short_weight": 0.0, "long_weight": 0.0}, "every weight is 0"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FgClip2Stage1Config(**changes)  # type: ignore[arg-type]


def test_it_starts_as_the_shipped_miniature_siglip2(bank: SceneBank, tmp_path: Path) -> None:
    """Same images and captions as the fixed-resolution towers, through the exported file (float16)."""
    place = resolve(Checkpoint(source="miniature:siglip2"))
    program = stage1(bank, tmp_path, CONFIG)
    model, words = stage1_start(place, tmp_path / "work", seed=0)
    program.embedder = type(program.embedder)(model, words, device="cpu")
    program.export(tmp_path / "checkpoint")
    started = FgClip2(
        resolve(Checkpoint(source=str(tmp_path / "checkpoint"))), device="cpu", dtype=torch.float32
    )
    vision = SiglipVision(place, device="cpu", dtype=torch.float32)
    text = SiglipText(place, device="cpu", dtype=torch.float32)
    captions = [bank.captions[language, "long"][0] for language in ("en", "zh")]
    images = started.encode_images([image.permute(1, 2, 0).numpy() for image in bank.images[:2]])
    tokens = vision.encode(bank.images[:2].float()).patch_tokens.flatten(1, 2)
    pooled = torch.nn.functional.normalize(vision.pool(tokens), dim=-1)
    said = torch.nn.functional.normalize(text.encode(captions).embeddings, dim=-1)
    torch.testing.assert_close(torch.stack([i.pooled for i in images]), pooled, atol=2e-3, rtol=0)
    torch.testing.assert_close(started.encode_text(captions, length="short"), said, atol=2e-3, rtol=0)
    assert images[0].grid == (16, 16)


def test_random_weights_are_drawn_by_the_seed(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (stage1_start(None, tmp_path, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for (name, one), two in zip(first.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two), name
    assert not torch.equal(first.boxtext_head.weight, other.boxtext_head.weight)


def test_a_tokenizer_of_other_words_is_refused(tmp_path: Path) -> None:
    save_half(miniature_siglip(2, seed=0), tmp_path / "siglip2")
    write_word_tokenizer(tmp_path / "siglip2", ("cat", "dog"))
    with pytest.raises(CheckpointError, match="the words of its tokenizer are not the first"):
        stage1_start(resolve(Checkpoint(source=str(tmp_path / "siglip2"))), tmp_path / "work", seed=0)
