"""The projection: its formula, its file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ovsops.errors import CheckpointError, ConfigError
from ovsops.mapper.model import TextToDino, load_mapper, mapper_from_tensors, save_mapper


def test_the_formula_by_hand() -> None:
    """psi(t) = 3 tanh(2 t + 1) - 1 in one dimension."""
    tensors = {
        "linears.0.weight": torch.tensor([[2.0]]),
        "linears.0.bias": torch.tensor([1.0]),
        "linears.1.weight": torch.tensor([[3.0]]),
        "linears.1.bias": torch.tensor([-1.0]),
    }
    mapper = mapper_from_tensors(tensors, activation="tanh", where="test")
    torch.testing.assert_close(
        mapper(torch.tensor([[0.5]])), torch.tensor([[3 * torch.tanh(torch.tensor(2.0)) - 1]])
    )


def test_without_a_hidden_layer_there_is_no_activation() -> None:
    mapper = TextToDino(3, 3, num_hidden=0, activation="relu")
    with torch.no_grad():
        mapper.linears[0].weight.copy_(-torch.eye(3))
        mapper.linears[0].bias.zero_()
    torch.testing.assert_close(mapper(torch.ones(1, 3)), -torch.ones(1, 3))


@pytest.mark.parametrize("num_hidden", [0, 1, 3])
def test_a_saved_mapper_comes_back(tmp_path: Path, num_hidden: int) -> None:
    mapper = TextToDino(6, 4, num_hidden=num_hidden, activation="relu")
    save_mapper(mapper, tmp_path / "mapper.safetensors")
    back = load_mapper(tmp_path)  # a folder stands for its mapper.safetensors
    text = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(back(text), mapper(text))
    assert (back.text_width, back.dino_width, back.activation) == (6, 4, "relu")
    assert not any(p.requires_grad for p in back.parameters())
    save_mapper(back, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "mapper.safetensors").read_bytes()


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="convert_talk2dino"):
        load_mapper(tmp_path)


def test_other_safetensors_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "mapper.safetensors")
    with pytest.raises(CheckpointError, match="not a text-to-DINO mapper"):
        load_mapper(tmp_path)


def test_a_damaged_file_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "mapper.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_mapper(tmp_path)


def test_widths_that_do_not_chain_are_named() -> None:
    tensors = {
        "linears.0.weight": torch.zeros(4, 6),
        "linears.0.bias": torch.zeros(4),
        "linears.1.weight": torch.zeros(4, 5),
        "linears.1.bias": torch.zeros(4),
    }
    with pytest.raises(CheckpointError, match=r"linears.1.weight has shape \(4, 5\), \(4, 4\) is expected"):
        mapper_from_tensors(tensors, activation="tanh", where="test")


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises((ConfigError, TypeError), match="gelu"):
        TextToDino(2, 2, activation="gelu")  # type: ignore[arg-type]
