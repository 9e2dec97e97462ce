"""Prompts to token ids, from the tokenizer.json of a checkpoint folder.

The padding and end-of-text rules are ours, as the towers were trained, because the classes of transformers
differ from them: SigLIP 2's pads on the left by default and hands out an attention mask that the text tower
must not get.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor

from ovsops.errors import CheckpointError


class SiglipTokenizer:
    """Lower case, no BOS, EOS that survives cutting, padded on the right to the tower's full length
    (big_vision).
    """

    num_specials = 1
    """Tokens that are not of the prompt: EOS."""

    def __init__(self, folder: Path, *, length: int) -> None:
        self.length = length
        self.tokenizer = read_tokenizer(folder)
        self.eos = _special_id(self.tokenizer, folder, "eos_token", "<eos>", "</s>")
        self.pad = _special_id(self.tokenizer, folder, "pad_token", "<pad>", "</s>")

    def __call__(self, prompts: Sequence[str]) -> Int[Tensor, "T L"]:
        """Ids of equal length; a prompt that is too long is cut and still ends with EOS."""
        encodings = self.tokenizer.encode_batch([p.lower() for p in prompts], add_special_tokens=False)
        rows = [[*encoding.ids[: self.length - 1], self.eos] for encoding in encodings]
        return torch.tensor([row + [self.pad] * (self.length - len(row)) for row in rows], dtype=torch.int64)

    def count(self, prompts: Sequence[str]) -> list[int]:
        """Tokens that each prompt would have if it were not cut, EOS among them."""
        encodings = self.tokenizer.encode_batch([p.lower() for p in prompts], add_special_tokens=False)
        return [len(encoding.ids) + self.num_specials for encoding in encodings]


class ClipTokenizer:
    """BOS, text, EOS; cut to the tower's length with EOS kept."""

    num_specials = 2
    """Tokens that are not of the prompt: BOS and EOS."""

    def __init__(self, folder: Path, *, length: int) -> None:
        self.length = length
        self.tokenizer = read_tokenizer(folder)
        self.bos = _special_id(self.tokenizer, folder, "bos_token", "<|startoftext|>")
        self.eos = _special_id(self.tokenizer, folder, "eos_token", "<|endoftext|>")

    def __call__(self, prompts: Sequence[str]) -> list[list[int]]:
        """Ids of each prompt, not padded."""
        encodings = self.tokenizer.encode_batch(list(prompts), add_special_tokens=False)
        return [[self.bos, *encoding.ids[: self.length - 2], self.eos] for encoding in encodings]

    def count(self, prompts: Sequence[str]) -> list[int]:
        """Tokens that each prompt would have if it were not cut, BOS and EOS among them."""
        encodings = self.tokenizer.encode_batch(list(prompts), add_special_tokens=False)
        return [len(encoding.ids) + self.num_specials for encoding in encodings]


def read_tokenizer(folder: Path) -> Tokenizer:
    """The folder's tokenizer.json, without its own padding and cutting."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {folder}: no tokenizer.json; a folder with only vocab or sentencepiece files "
            "must be converted once with the fast tokenizer of transformers"
        )
    tokenizer: Tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _special_id(tokenizer: Tokenizer, folder: Path, role: str, *usual: str) -> int:
    """Id of a special token: what the folder's tokenizer config says, else the family's usual name."""
    names: list[str] = []
    config_path = folder / "tokenizer_config.json"
    if config_path.is_file():
        said: Any = json.loads(config_path.read_text(encoding="utf-8")).get(role)
        if isinstance(said, dict):
            said = said.get("content")
        if isinstance(said, str):
            names.append(said)
    for name in (*names, *usual):
        token_id = tokenizer.token_to_id(name)
        if token_id is not None:
            return int(token_id)
    raise CheckpointError(f"checkpoint {folder}: the tokenizer has no {role} ({', '.join((*names, *usual))})")
