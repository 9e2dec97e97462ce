"""Published Talk2DINO projections (.pth) to our safetensors, once."""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from ovsops.errors import CheckpointError
from ovsops.mapper.model import Activation, TextToDino, mapper_from_tensors, save_mapper

_HIDDEN = re.compile(r"hidden_layers\.(\d+)\.(weight|bias)")
_FIRST = re.compile(r"linear_layer\.(weight|bias)")
_SECOND = re.compile(r"linear_layer2\.(weight|bias)")


def convert_talk2dino(
    source: Path | str, target: Path | str, *, activation: Activation = "tanh"
) -> TextToDino:
    """Write `source` (.pth of the authors) as safetensors to `target`, in a new folder where need be; the mapper.

    The file is read with `weights_only=True`, which runs no code. The activation is not in the published
    files: all released ones use tanh.
    """
    path = Path(source)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{path}: no file of plain torch weights; the projection that the authors publish (.pth) is expected. "
            "Files that need more than tensors could run code and are not read"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise CheckpointError(f"{path}: a dictionary of tensors is expected, as the authors publish it")
    mapper = mapper_from_tensors(
        renamed_talk2dino(loaded, where=str(path)), activation=activation, where=str(path)
    )
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    save_mapper(mapper, target)
    return mapper


def renamed_talk2dino(published: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Published names to ours:

    `linear_layer` is linear 0, `hidden_layers.N` (older: `linear_layer2`) is N + 1.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in published.items():
        if found := _FIRST.fullmatch(name):
            new = f"linears.0.{found[1]}"
        elif found := _SECOND.fullmatch(name):
            new = f"linears.1.{found[1]}"
        elif found := _HIDDEN.fullmatch(name):
            new = f"linears.{int(found[1]) + 1}.{found[2]}"
        else:
            raise CheckpointError(
                f"{where}: tensor {name} belongs to a variant that is not supported; "
                "linear_layer, linear_layer2 and hidden_layers.N are"
            )
        if new in renamed:
            raise CheckpointError(f"{where}: {new} is given twice, under an old and a new name")
        renamed[new] = tensor
    return renamed
