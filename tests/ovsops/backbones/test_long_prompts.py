"""Prompts that a tower cuts are counted and the first is named; a prompt that just fits is not among them."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint, ResolvedCheckpoint, resolve
from ovsops.backbones.clip import ClipText
from ovsops.backbones.long_prompts import long_prompts, warn_of_long_prompts
from ovsops.backbones.untrained_sam3 import write_untrained_sam3
from tests.tiny import checkpoints as tiny
from tests.tiny.sam3 import SMALLEST

FAMILIES: dict[str, tuple[Callable[[Path], Path], int]] = {
    "clip": (tiny.write_clip, 77 - 2),
    "siglip": (tiny.write_siglip, 64 - 1),
    "naflex": (tiny.write_naflex, 64 - 1),
    "sam3": (lambda folder: write_untrained_sam3(folder, **SMALLEST), 32 - 2),
}
"""How each is written, and the letters that fit: a token each in these checkpoints."""


@pytest.fixture(scope="module", params=FAMILIES)
def tower(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ResolvedCheckpoint, int]:
    write, fits = FAMILIES[request.param]
    return resolve(Checkpoint(source=str(write(tmp_path_factory.mktemp(request.param))))), fits


def test_one_letter_more_than_fits(tower: tuple[ResolvedCheckpoint, int]) -> None:
    place, fits = tower
    prompts = ["cat", "x" * fits, "Y" * (fits + 1), "猫", "猫" * fits]
    assert long_prompts(place, prompts) == prompts[2:3] + prompts[4:]


def test_one_warning_counts_and_names_the_first(
    tower: tuple[ResolvedCheckpoint, int], caplog: pytest.LogCaptureFixture
) -> None:
    place, fits = tower
    with caplog.at_level(logging.WARNING):
        warn_of_long_prompts(place, ["cat", "z" * 90, "y" * 100])
    [record] = caplog.records
    assert "2 of 3 prompts are longer than" in record.getMessage()
    assert f"the first is '{'z' * 90}'" in record.getMessage()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_of_long_prompts(place, ["cat", "x" * fits])
    assert not caplog.records


def test_what_is_named_is_what_the_tokenizer_cuts(tmp_path: Path) -> None:
    """The tower's own ids: a prompt that is not named keeps all its tokens."""
    place = resolve(Checkpoint(source=str(tiny.write_clip(tmp_path))))
    text = ClipText(place, device="cpu", dtype=torch.float32)
    prompts = [letter * 75 for letter in "ab"] + [letter * 76 for letter in "cd"]
    assert [len(row) for row in text.tokenizer(prompts)] == [77] * 4
    assert text.tokenizer.count(prompts) == [77, 77, 78, 78]
    assert long_prompts(place, prompts) == prompts[2:]


def test_short_ascii_prompts_need_no_tokenizer(tmp_path: Path) -> None:
    folder = tiny.write_clip(tmp_path)
    (folder / "tokenizer.json").unlink()
    assert long_prompts(resolve(Checkpoint(source=str(folder))), ["cat", "a photo of a dog."]) == []
