"""The tiny checkpoints that anybody can write."""

import hashlib
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from ovsops.backbones.untrained import write_untrained_checkpoints


def digests(folder: Path) -> dict[str, str]:
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    write_untrained_checkpoints(tmp_path / "a", seed=7)
    torch.manual_seed(2)
    write_untrained_checkpoints(tmp_path / "b", seed=7)
    write_untrained_checkpoints(tmp_path / "c", seed=8)
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    weights = [name for name in first if name.endswith(".safetensors")]
    assert len(weights) == 3
    other = digests(tmp_path / "c")
    assert all(first[name] != other[name] for name in weights)
    assert sum(f.stat().st_size for f in (tmp_path / "a").rglob("*") if f.is_file()) < 1_000_000


@pytest.mark.parametrize("text", ["a photo of a cat.", "一张猫的照片。", "naïve café 🙂"])
def test_every_text_survives_the_tokenizer(tmp_path: Path, text: str) -> None:
    folder = write_untrained_checkpoints(tmp_path).siglip
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.token_to_id("<unk>") not in ids
    assert tokenizer.decode(ids) == text.lower()
